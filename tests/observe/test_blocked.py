"""What keeps a pod from starting, out of its own status."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.observe.blocked import blocked_by, unprepared
from controller.resources.core import Pod


def pod(waiting: dict[str, str] | None = None, **more: Any) -> Pod:
    """A bound pod whose only container waits for something."""
    status = {"phase": "Pending", "conditions": more.pop("conditions", [])}
    if waiting is not None:
        status["containerStatuses"] = [{"name": "engine", "state": {"waiting": waiting}}]
    meta = {"name": "p", "namespace": "shop", **more.pop("metadata", {})}
    spec = {"nodeName": more.pop("node", "n1")}
    return msgspec.convert({"metadata": meta, "spec": spec, "status": {**status, **more}}, Pod)


MISSING = {"reason": "CreateContainerConfigError", "message": 'secret "hub" not found'}
BLOCKED = [
    pytest.param(pod(MISSING), 'CreateContainerConfigError: secret "hub" not found', id="a Secret is missing"),
    pytest.param(pod({"reason": "ErrImagePull"}), "ErrImagePull", id="a kubelet of few words"),
    pytest.param(pod({"reason": "ContainerCreating"}), "", id="on its way"),
    pytest.param(pod({"reason": "PodInitializing", "message": "x"}), "", id="on its way, with a word"),
    pytest.param(pod(), "", id="nothing said yet"),
    pytest.param(pod(MISSING, node=""), "", id="not bound: nobody's word counts yet"),
    pytest.param(pod(MISSING, metadata={"deletionTimestamp": "x"}), "", id="going anyway"),
    pytest.param(pod(MISSING, phase="Failed"), "", id="over"),
    pytest.param(pod({"reason": "ErrImagePull", "message": "x" * 9_000}), "ErrImagePull: " + "x" * 386, id="a kubelet of many words"),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "words"), BLOCKED)
def test_what_keeps_a_pod_from_starting(seen: Pod, words: str) -> None:
    assert blocked_by(seen) == words


SANDBOX = {"type": "PodReadyToStartContainers", "status": "False"}
PREPARED = [
    pytest.param(pod(conditions=[SANDBOX]), True, id="volumes are not there"),
    pytest.param(pod(conditions=[{**SANDBOX, "status": "True"}]), False, id="they are"),
    pytest.param(pod(), False, id="an older kubelet says nothing"),
    pytest.param(pod(conditions=[SANDBOX], node=""), False, id="not bound"),
    pytest.param(pod(conditions=[SANDBOX], phase="Failed"), False, id="over"),
]


@pytest.mark.parametrize(("seen", "waits"), PREPARED)
def test_a_pod_whose_volumes_are_not_mounted(seen: Pod, waits: bool) -> None:
    assert unprepared(seen) is waits
