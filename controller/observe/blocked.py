"""What keeps a bound pod from starting, in its kubelet's words: an image, a Secret, a volume.

The kubelet tries again by itself, ever more slowly, and starts the pod when the cause is gone: nothing of ours would
make it quicker. So it is said, not acted upon, until the pod's time to start is over.
"""

from __future__ import annotations

from controller.resources.core import CONTAINER_FAULTS, Pod

SANDBOX = "PodReadyToStartContainers"
"""Condition of a pod that is False until its volumes are mounted and its network is there; only events say more."""
LONGEST = 400
"""Characters of the kubelet's words that are kept."""


def blocked_by(pod: Pod) -> str:
    """What keeps it from starting, in words; empty when nothing does or nobody says so."""
    if not pod.spec.node_name or pod.finished or pod.metadata.deletion_timestamp is not None:
        return ""
    for each in pod.status.container_statuses:
        waiting = each.state.waiting
        if waiting is not None and waiting.reason in CONTAINER_FAULTS:
            return f"{waiting.reason}: {waiting.message}"[:LONGEST].removesuffix(": ")
    return ""


def unprepared(pod: Pod) -> bool:
    """Whether it is bound and its kubelet says that nothing can be started in it yet."""
    condition = pod.condition(SANDBOX)
    return (
        bool(pod.spec.node_name)
        and pod.status.phase == "Pending"
        and pod.metadata.deletion_timestamp is None
        and condition is not None
        and condition.status == "False"
    )
