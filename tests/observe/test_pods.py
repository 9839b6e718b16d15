"""Pods as nouns: everybody's claims, our replicas, members of gangs, and notes nobody can read."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.base import Ref
from cluster.launch import RankLaunch
from cluster.occupancy import Claim
from cluster.serving import Launcher, Replica, ReplicaPhase, Tier
from controller.observe import labels
from controller.observe.pods import PodFacts, node_of, pod_gpus, project
from controller.resources import core
from tests.observe.objects import L4, NOW, engine_pod, pinned, pod, rank_pod, slot

GPUS = frozenset({"nvidia.com/gpu"})
LEAVING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}


def facts(obj: core.Pod, *, node_lost: bool = False) -> PodFacts:
    return project(obj, GPUS, node_lost=node_lost, now_seconds=NOW)


def claim(obj: core.Pod) -> Claim:
    found = facts(obj).claim
    assert found is not None
    return found


# other people's pods


def test_another_s_pod_claims_devices_nobody_numbered() -> None:
    theirs = pod(gpus=2, requests={"cpu": "1500m", "memory": "2Gi"}, spec={"priority": 9})
    assert facts(theirs) == PodFacts(
        Claim(
            key="shop/p", owner=Ref("Pod", "shop/p", "uid-p"),
            slot=slot("n1", -2, -1, cpu_millis=1_500, memory_bytes=2 * 2**30), priority=9, phase="running", foreign=True,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("obj", "counted"),
    [
        pytest.param(pod(gpus=0), False, id="a pod without GPUs"),
        pytest.param(pod(gpus="many"), False, id="a pod that asks for no number of GPUs"),
        pytest.param(pod(at=""), False, id="a pod that is nowhere yet"),
        pytest.param(pod(at="", spec=pinned("n2")), True, id="a pod that is pinned but not bound"),
        pytest.param(pod(phase="Succeeded"), False, id="a pod that is done"),
        pytest.param(pod(phase="Failed"), False, id="a pod that failed"),
        pytest.param(pod(phase="Unknown"), True, id="a pod nobody hears of still holds its devices"),
        pytest.param(pod(metadata=LEAVING), True, id="a pod that is being deleted still holds its devices"),
    ],
)
def test_a_pod_counts_while_it_holds_devices(obj: core.Pod, counted: bool) -> None:
    assert (facts(obj).claim is not None) is counted


def test_all_containers_and_resources_of_a_pod_count() -> None:
    def container(**resources: Any) -> dict[str, Any]:
        return {"name": "c", "resources": resources}

    mixed = pod(
        spec={
            "containers": [
                container(limits={"nvidia.com/gpu": "2"}, requests={"nvidia.com/gpu": "9"}),
                container(requests={"amd.com/gpu": 1, "cpu": 1}),
                container(limits={"cpu": "250m"}),
            ]
        }
    )
    assert pod_gpus(mixed, frozenset({"nvidia.com/gpu", "amd.com/gpu"})) == 3
    assert pod_gpus(mixed, frozenset({"nvidia.com/gpu"})) == 2
    assert claim(mixed).slot.cpu_millis == 1_250, "a limit counts where no request is given"


@pytest.mark.parametrize(
    ("obj", "phase"),
    [
        pytest.param(pod(), "running", id="running"),
        pytest.param(pod(phase="Pending"), "bound", id="bound"),
        pytest.param(pod(phase="Pending", at="", spec=pinned("n1")), "pending", id="pinned"),
        pytest.param(pod(metadata=LEAVING), "stopping", id="being deleted"),
    ],
)
def test_a_claim_says_how_far_its_pod_is(obj: core.Pod, phase: str) -> None:
    assert claim(obj).phase == phase


def test_a_pod_is_where_it_is_bound_or_else_where_it_is_pinned() -> None:
    assert node_of(pod(at="n1")) == "n1"
    assert node_of(pod(at="", spec=pinned("n2"))) == "n2"
    assert node_of(pod(spec={**pinned("n2"), "nodeName": "n3"})) == "n3"
    assert node_of(pod(at="")) == ""


# replicas


def test_a_replicas_pod_is_a_claim_a_launcher_and_a_replica() -> None:
    found = facts(engine_pod(devices=(2,), requests={"cpu": 4}, labels={labels.REVISION: "r1"}))
    held = slot("n1", 2, cpu_millis=4_000)
    assert found.claim == Claim(
        key="shop/chat-0", owner=Ref("Replica", "shop/chat-0", "uid-chat-0"), slot=held, phase="running"
    )
    assert found.launcher == Launcher(
        key="shop/chat-0", ref=Ref("Launcher", "shop/chat-0", "uid-chat-0"), slots=(held,), variant=L4,
        phase=ReplicaPhase.READY,
    )  # fmt: skip
    assert found.replica == Replica(
        key="shop/chat-0", ref=Ref("Replica", "shop/chat-0", "uid-chat-0", 5), service="shop/chat",
        launcher="shop/chat-0", variant=L4, pool="l4-od", phase=ReplicaPhase.READY, tier=Tier.AWAKE, ordinal=3,
        revision="r1", phase_since_seconds=NOW,
    )  # fmt: skip
    assert found.rank is None


DRAINED = {labels.DRAIN_UNTIL: "1060.0"}


@pytest.mark.parametrize(
    ("obj", "node_lost", "phase"),
    [
        pytest.param(engine_pod(phase="Pending", ready=False, at="", spec=pinned("n1")), False, ReplicaPhase.PENDING, id="not bound"),
        pytest.param(engine_pod(phase="Pending", ready=False), False, ReplicaPhase.STARTING, id="bound"),
        pytest.param(engine_pod(ready=False), False, ReplicaPhase.STARTING, id="running, not ready"),
        pytest.param(engine_pod(), False, ReplicaPhase.READY, id="ready"),
        pytest.param(engine_pod(annotations=DRAINED), False, ReplicaPhase.DRAINING, id="told to drain"),
        pytest.param(engine_pod(annotations=DRAINED, metadata=LEAVING), False, ReplicaPhase.STOPPING, id="told to drain, then deleted"),
        pytest.param(engine_pod(phase="Failed", ready=False), False, ReplicaPhase.FAILED, id="crashed"),
        pytest.param(engine_pod(phase="Succeeded", ready=False), False, ReplicaPhase.FAILED, id="an engine that simply ends has failed"),
        pytest.param(engine_pod(phase="Failed", ready=False, metadata=LEAVING), False, ReplicaPhase.GONE, id="crashed and deleted: only a finalizer holds its object"),
        pytest.param(engine_pod(), True, ReplicaPhase.LOST, id="its node is lost"),
        pytest.param(engine_pod(metadata=LEAVING), True, ReplicaPhase.LOST, id="deleted on a lost node: nobody carries that out"),
    ],
)  # fmt: skip
def test_a_replicas_phase_is_what_its_pod_shows(obj: core.Pod, node_lost: bool, phase: ReplicaPhase) -> None:
    found = facts(obj, node_lost=node_lost)
    assert found.replica is not None
    assert found.launcher is not None
    assert (found.replica.phase, found.launcher.phase) == (phase, phase)


def test_a_starting_replica_says_at_which_stage_it_is() -> None:
    starting = facts(engine_pod(ready=False, status={"reason": "weights"})).replica
    ready = facts(engine_pod(status={"reason": "weights"})).replica
    assert starting is not None
    assert ready is not None
    assert (starting.stage, ready.stage) == ("weights", "")


def test_a_finished_replica_holds_nothing_but_says_where_it_was() -> None:
    found = facts(engine_pod(phase="Failed", devices=(1,)))
    assert found.claim is None
    assert found.launcher is not None
    assert found.launcher.slots == (slot("n1", 1),)


def test_a_replica_without_numbered_devices_holds_as_many_as_its_variant_has() -> None:
    assert claim(engine_pod(devices=())).slot.devices == (-1,)
    assert not claim(engine_pod(devices=())).foreign


@pytest.mark.parametrize(
    ("generation", "version"),
    [("5", 5), ("", 0), ("five", 0), ("-3", 0), ("1.5", 0)],
    ids=["a number", "nothing", "a word", "a negative number", "a fraction"],
)  # fmt: skip
def test_a_label_that_somebody_edited_costs_nothing_but_its_number(generation: str, version: int) -> None:
    found = facts(engine_pod(labels={labels.GENERATION: generation})).replica
    assert found is not None
    assert found.ref.version == version


# notes nobody can read


@pytest.mark.parametrize(
    "note",
    [
        "", "{", "null", "[]", "7", '{"service":"shop/chat"}', '{"service":1}', '{"unknown":true}', "\x00", "x" * 100_000,
    ],
    ids=["empty", "half an object", "null", "a list", "a number", "too little", "of the wrong type", "of another version", "a zero byte", "100 kB of x"],
)  # fmt: skip
def test_a_pod_of_ours_whose_note_cannot_be_read_counts_as_anybodys(note: str) -> None:
    for ours in (
        engine_pod(annotations={labels.LAUNCH: note}),
        rank_pod(0, metadata={"annotations": {labels.LAUNCH: note}}),
    ):
        found = facts(ours)
        assert found.claim is not None
        assert found.claim.foreign
        assert found.claim.owner.kind == "Pod"
        assert (found.launcher, found.replica, found.rank) == (None, None, None)


def test_a_note_without_our_label_or_a_label_without_a_note_is_nobodys_of_ours() -> None:
    noted = pod(metadata={"annotations": engine_pod().metadata.annotations})
    marked = pod(metadata={"labels": {labels.SERVICE: "chat", labels.JOB: "train"}})
    assert all(facts(each).replica is None and facts(each).rank is None for each in (noted, marked))
    assert all(claim(each).foreign for each in (noted, marked))


# members of gangs


def test_a_members_pod_is_a_claim_of_its_job_and_a_rank() -> None:
    found = facts(rank_pod(1))
    assert found.claim == Claim(
        key="shop/train-a1-r1",
        owner=Ref("TrainingJob", "shop/train"),
        slot=slot("n2", 0, 1, 2, 3),
        phase="running",
    )
    assert isinstance(found.rank, RankLaunch)
    assert (found.rank.node_rank, found.rank.attempt, found.rank.job) == (1, 1, "shop/train")
    assert (found.launcher, found.replica) == (None, None)


def test_a_member_that_is_done_is_a_rank_without_a_claim() -> None:
    found = facts(rank_pod(0, phase="Succeeded"))
    assert found.claim is None
    assert found.rank is not None


# what a pod takes, as the scheduler counts it


def container(gpus: int = 0, **more: Any) -> dict[str, Any]:
    return {"name": "c", "resources": {"limits": {"nvidia.com/gpu": gpus} if gpus else {}}, **more}


SIDECAR = {"restartPolicy": "Always"}


@pytest.mark.parametrize(
    ("spec", "gpus"),
    [
        pytest.param({"initContainers": [container(4)], "containers": [container(1)]}, 4, id="an init container needs more than what runs after it"),
        pytest.param({"initContainers": [container(1)], "containers": [container(4)]}, 4, id="an init container needs less"),
        pytest.param({"initContainers": [container(2), container(3)], "containers": [container(1)]}, 3, id="init containers run one after the other"),
        pytest.param({"initContainers": [container(2, **SIDECAR)], "containers": [container(1)]}, 3, id="a sidecar stays beside the others"),
        pytest.param({"initContainers": [container(2, **SIDECAR), container(3)], "containers": [container(1)]}, 5, id="an init container after a sidecar runs beside it"),
        pytest.param({"initContainers": [container(3), container(2, **SIDECAR)], "containers": [container(1)]}, 3, id="one before it does not"),
        pytest.param({"containers": [container(1)], "overhead": {"nvidia.com/gpu": "1"}}, 2, id="what the runtime class takes comes on top"),
    ],
)  # fmt: skip
def test_other_peoples_pods_count_as_the_scheduler_counts_them(spec: dict[str, Any], gpus: int) -> None:
    assert claim(pod(spec=spec)).slot.gpus == gpus


def test_a_pod_that_is_not_bound_says_what_the_scheduler_says() -> None:
    told = [
        {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 3 Insufficient cpu."}
    ]
    waiting = facts(
        engine_pod(phase="Pending", ready=False, at="", spec=pinned("n1"), status={"conditions": told})
    )
    assert waiting.replica is not None
    assert waiting.replica.stage == "0/3 nodes are available: 3 Insufficient cpu."


def test_a_pod_that_does_not_start_says_what_its_kubelet_says() -> None:
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    status = {"containerStatuses": [{"name": "engine", "state": state}]}
    found = facts(engine_pod(phase="Pending", ready=False, status=status)).replica
    assert found is not None
    assert found.stage == "ImagePullBackOff: no such image"
    assert (found.fault, found.restarts) == ("ImagePullBackOff", 0)


@pytest.mark.parametrize(
    ("reason", "restarts", "fault"),
    [
        pytest.param("CrashLoopBackOff", 4, "CrashLoopBackOff", id="it crashes again and again"),
        pytest.param("ContainerCreating", 0, "", id="a stage of a start is no fault"),
        pytest.param(
            "CreateContainerConfigError", 0, "CreateContainerConfigError", id="a Secret that is missing"
        ),
    ],
)
def test_what_keeps_containers_from_running_is_a_fault(reason: str, restarts: int, fault: str) -> None:
    state = {"waiting": {"reason": reason, "message": "words"}}
    status = {"containerStatuses": [{"name": "engine", "state": state, "restartCount": restarts}]}
    found = facts(engine_pod(phase="Pending", ready=False, status=status)).replica
    assert found is not None
    assert (found.fault, found.restarts) == (fault, restarts)
