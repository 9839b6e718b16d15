"""What a cache keeps of other people's pods: all that makes them claims, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controller.observe.pods import project
from controller.resources import trimming
from controller.resources.core import Pod
from controller.resources.trimming import trimmed_pod
from tests.store.objects import pinned_pod, pod

GPUS = frozenset({"nvidia.com/gpu"})


def decoded(obj: Any) -> Pod:
    return msgspec.convert(obj, Pod)


def foreign(name: str = "theirs", **status: Any) -> Any:
    made = pod(name, node="n1", labels={"app": "x"}, annotations={"a/b": "c"}, uid="u-1", resourceVersion="7")
    made["spec"]["containers"][0] |= {
        "env": [{"name": "A", "value": "b"}],
        "resources": {"limits": {"nvidia.com/gpu": "2"}, "requests": {"cpu": "500m", "memory": "1Gi"}},
    }
    return made | {"status": status}


CASES = [
    pytest.param(foreign(phase="Running"), id="running"),
    pytest.param(foreign(phase="Succeeded"), id="finished"),
    pytest.param(foreign(phase="Failed", reason="Evicted", message="no room"), id="evicted"),
    pytest.param(pinned_pod("pinned", "n2", gpus=3), id="pinned and not bound yet"),
    pytest.param(pod("plain"), id="without a GPU"),
    pytest.param(
        foreign() | {"metadata": {"name": "going", "namespace": "a", "deletionTimestamp": "2026-11-21T00:00:00Z"}},
        id="on its way out",
    ),
    pytest.param(
        foreign() | {"spec": {"nodeName": "n1", "containers": [], "overhead": {"cpu": "250m"}, "initContainers": [
            {"name": "s", "restartPolicy": "Always", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}},
        id="with a sidecar and overhead",
    ),
]  # fmt: skip


@pytest.mark.parametrize("obj", CASES)
def test_a_trimmed_pod_is_the_same_claim(obj: Any) -> None:
    whole = decoded(obj)
    kept = trimmed_pod(whole)
    wanted = project(whole, GPUS, node_lost=False, now_seconds=0.0)
    assert project(kept, GPUS, node_lost=False, now_seconds=0.0) == wanted
    assert (kept.metadata.key, kept.metadata.uid, kept.finished) == (
        whole.metadata.key,
        whole.metadata.uid,
        whole.finished,
    )
    assert kept.metadata.resource_version == whole.metadata.resource_version


@pytest.mark.parametrize("mark", ["labels", "annotations"])
def test_a_pod_of_ours_is_kept_whole(mark: str) -> None:
    ours = decoded(pod("ours", **{mark: {"plimsoll.dev/service": "chat"}}))
    assert trimmed_pod(ours) is ours


def test_what_many_have_alike_is_kept_once() -> None:
    first, second = (trimmed_pod(decoded(foreign(name, phase="Running"))) for name in ("a", "b"))
    assert first.spec.containers is second.spec.containers
    assert first.status is second.status
    assert first.spec.node_name is second.spec.node_name
    assert first.metadata.annotations == {}
    assert first.spec.containers[0].env == []


def test_the_table_of_what_is_alike_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "MOST_SHARED", 4)
    monkeypatch.setattr(trimming, "_containers", {})
    monkeypatch.setattr(trimming, "_statuses", {})
    for gpus in range(50):
        trimmed_pod(decoded(pinned_pod(f"p{gpus}", "n1", gpus)))
        trimmed_pod(decoded(foreign(phase="Failed", reason=f"r{gpus}")))
    assert len(trimming._containers) <= 4
    assert len(trimming._statuses) <= 4
