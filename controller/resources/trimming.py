"""What a cache keeps of objects that are none of ours: a cluster has tens of thousands of other people's pods.

Of such a pod only what makes it a claim is read: where it is, what it takes, how far it is. What many pods have alike
(names of nodes and namespaces, containers' resources) is kept once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from controller.resources.base import GROUP, ObjectMeta
from controller.resources.core import Container, Pod, PodSpec, PodStatus

MOST_SHARED = 4_096
"""Different sets of containers remembered; beyond, the table begins anew."""

_OURS = f"{GROUP}/"
_NO_NAMES: Final[dict[str, str]] = {}
_NONE: Final[list[Any]] = []
"""Shared by all that have none: nothing of a projection is ever changed."""

_containers: dict[tuple[Any, ...], list[Container]] = {}
_statuses: dict[tuple[str, str], PodStatus] = {}


def trimmed_pod(pod: Pod) -> Pod:
    """The pod itself when a label or annotation of ours is on it, else the little that is read of it."""
    meta, spec = pod.metadata, pod.spec
    if any(key.startswith(_OURS) for key in meta.annotations) or any(
        key.startswith(_OURS) for key in meta.labels
    ):
        return pod
    return Pod(
        metadata=ObjectMeta(
            name=meta.name,
            namespace=sys.intern(meta.namespace),
            uid=meta.uid,
            resource_version=meta.resource_version,
            deletion_timestamp=meta.deletion_timestamp,
            labels=_NO_NAMES,
            annotations=_NO_NAMES,
            finalizers=_NONE,
            owner_references=_NONE,
        ),
        spec=PodSpec(
            node_name=sys.intern(spec.node_name),
            containers=_shared(spec.containers),
            init_containers=_shared(spec.init_containers),
            overhead=spec.overhead or _NO_NAMES,  # type: ignore[arg-type]
            readiness_gates=_NONE,
            affinity=spec.affinity,
            node_selector=_NO_NAMES,
            tolerations=_NONE,
            scheduling_gates=_NONE,
            priority=spec.priority,
        ),
        status=_status(pod.status.phase, pod.status.reason),
    )


def _shared(containers: list[Container]) -> list[Container]:
    if not containers:
        return _NONE
    key = tuple(
        (each.restart_policy, tuple(each.resources.requests.items()), tuple(each.resources.limits.items()))
        for each in containers
    )
    found = _containers.get(key)
    if found is None:
        if len(_containers) >= MOST_SHARED:
            _containers.clear()
        found = _containers[key] = [
            Container(name="", resources=each.resources, restart_policy=each.restart_policy, env=_NONE)
            for each in containers
        ]
    return found


def _status(phase: str, reason: str) -> PodStatus:
    key = (phase, reason)
    found = _statuses.get(key)
    if found is None:
        if len(_statuses) >= MOST_SHARED:
            _statuses.clear()
        found = _statuses[key] = PodStatus(
            phase=phase, reason=reason, conditions=_NONE, container_statuses=_NONE
        )
    return found


TRIMS: Mapping[type[Any], Callable[[Any], Any]] = {Pod: trimmed_pod}
"""By projection: what a cache keeps of each object of it."""
