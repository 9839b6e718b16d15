"""Gangs out of their pods: half created, formed, verified, broken, restarted, done."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.base import Ref
from cluster.codec import from_json
from cluster.launch import RankLaunch
from cluster.training import Gang, GangPhase, Layout
from controller.observe import labels
from controller.observe.gangs import Member, Memory, Progress, gang, merge_progress
from controller.resources import core
from tests.observe.objects import NOW, rank_pod, slot

LEAVING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
FORMED = Memory(GangPhase.FORMING, NOW - 50, complete=True)
NOTHING = Progress()
RAN = Memory(GangPhase.RUNNING, NOW - 50, complete=True)


def member(pod: core.Pod) -> Member:
    return Member(pod, from_json(pod.metadata.annotations[labels.LAUNCH], RankLaunch))


def pods(*phases: str, **more: Any) -> list[Member]:
    """One pod a phase, in order of rank."""
    return [member(rank_pod(rank, phase=phase, **more)) for rank, phase in enumerate(phases)]


def project(
    members: list[Member], progress: Progress = NOTHING, memory: Memory | None = None, *, lost: str = "", newest: int = 1
) -> tuple[Gang, Memory]:  # fmt: skip
    return gang(
        members, frozenset(filter(None, [lost])), progress, memory, newest_attempt=newest, now_seconds=NOW
    )


def leaving(rank: int, phase: str = "Running") -> Member:
    kept = rank_pod(rank).metadata
    return member(
        rank_pod(
            rank, phase=phase, metadata={**LEAVING, "labels": kept.labels, "annotations": kept.annotations}
        )
    )


def test_a_whole_gang() -> None:
    noun, memory = project(pods("Running", "Running"), Progress(8, 30, 20), FORMED)
    assert noun == Gang(
        key="shop/train-a1",
        ref=Ref("Gang", "shop/train-a1", "uid-train-a1"),
        job="shop/train",
        attempt=1,
        rendezvous="uid-train-a1",
        layout=Layout(
            tensor=4,
            data=2,
            micro_batch=2,
            network="roce",
            slots=(slot("n1", 0, 1, 2, 3), slot("n2", 0, 1, 2, 3)),
        ),
        phase=GangPhase.RUNNING,
        phase_since_seconds=NOW,
        members=("shop/train-a1-r0#uid-train-a1-r0", "shop/train-a1-r1#uid-train-a1-r1"),
        members_up=2,
        ran=True,
        step=30,
        checkpoint_step=20,
    )
    assert memory == Memory(GangPhase.RUNNING, NOW, complete=True, ran=True)


@pytest.mark.parametrize(
    ("members", "progress", "memory", "phase"),
    [
        pytest.param(pods("Pending"), Progress(), None, GangPhase.FORMING, id="the first of two pods was created"),
        pytest.param(pods("Running"), Progress(4), None, GangPhase.FORMING, id="half a gang runs and waits for the other half"),
        pytest.param(pods("Pending", "Running"), Progress(4), None, GangPhase.FORMING, id="one pod still starts"),
        pytest.param(pods("Running", "Running"), Progress(), FORMED, GangPhase.VERIFYING, id="all up, nobody has joined"),
        pytest.param(pods("Running", "Running"), Progress(7), FORMED, GangPhase.VERIFYING, id="one rank is missing"),
        pytest.param(pods("Running", "Running"), Progress(8), FORMED, GangPhase.RUNNING, id="every rank has joined"),
        pytest.param(pods("Running", "Running"), Progress(0, 1), FORMED, GangPhase.RUNNING, id="a step was done"),
        pytest.param(pods("Running", "Running", restore_step=40), Progress(0, 40), FORMED, GangPhase.VERIFYING, id="the step it was restored from is not one it did"),
        pytest.param(pods("Running", "Running", restore_step=40), Progress(0, 41), FORMED, GangPhase.RUNNING, id="one step beyond the restore point"),
        pytest.param(pods("Succeeded", "Running"), Progress(8, 99), RAN, GangPhase.RUNNING, id="one node is done before the other"),
        pytest.param(pods("Succeeded", "Succeeded"), Progress(), RAN, GangPhase.DONE, id="all done"),
        pytest.param(pods("Succeeded", "Succeeded"), Progress(), None, GangPhase.DONE, id="done before anybody looked"),
        pytest.param(pods("Succeeded"), Progress(), None, GangPhase.FORMING, id="one of two done, the other never seen"),
        pytest.param(pods("Failed", "Running"), Progress(8), RAN, GangPhase.FAILED, id="one rank crashed"),
        pytest.param(pods("Failed"), Progress(), None, GangPhase.FAILED, id="half a gang crashed while it formed"),
        pytest.param(pods("Running"), Progress(8), RAN, GangPhase.FAILED, id="a pod of a complete gang is gone"),
        pytest.param([member(rank_pod(0)), leaving(1)], Progress(8), RAN, GangPhase.FAILED, id="one pod is being deleted"),
        pytest.param([leaving(0), leaving(1)], Progress(8), RAN, GangPhase.STOPPING, id="all pods are being deleted"),
        pytest.param([leaving(0)], Progress(8), RAN, GangPhase.STOPPING, id="the last pod is being deleted"),
        pytest.param([leaving(0, "Succeeded"), leaving(1, "Succeeded")], Progress(), RAN, GangPhase.DONE, id="done, then deleted"),
        pytest.param(pods("Running"), Progress(), Memory(GangPhase.STOPPING, NOW), GangPhase.STOPPING, id="a pod that comes when the others are gone"),
        pytest.param(pods("Pending", "Running"), Progress(8), RAN, GangPhase.FAILED, id="a rank that starts again inside an attempt"),
        pytest.param(pods("Running", "Unknown"), Progress(8), RAN, GangPhase.FAILED, id="a pod nobody hears of"),
    ],
)  # fmt: skip
def test_the_phase_of_an_attempt(
    members: list[Member], progress: Progress, memory: Memory | None, phase: GangPhase
) -> None:
    noun, kept = project(members, progress, memory)
    assert noun.phase is phase
    assert kept.phase is phase


@pytest.mark.parametrize(
    ("lost", "phase"), [("n2", GangPhase.FAILED), ("n3", GangPhase.RUNNING)], ids=["its node", "another node"]
)
def test_a_gang_fails_with_a_node_it_runs_on(lost: str, phase: GangPhase) -> None:
    assert project(pods("Running", "Running"), Progress(8), RAN, lost=lost)[0].phase is phase


def test_an_attempt_older_than_the_newest_is_on_its_way_out() -> None:
    assert project(pods("Running", "Running"), Progress(8), RAN, newest=2)[0].phase is GangPhase.STOPPING
    assert project(pods("Failed", "Running"), Progress(8), RAN, newest=2)[0].phase is GangPhase.STOPPING
    assert project(pods("Succeeded", "Succeeded"), Progress(8), RAN, newest=2)[0].phase is GangPhase.DONE


def test_what_was_once_complete_stays_known_as_such() -> None:
    _, memory = project(pods("Pending", "Pending"))
    assert memory.complete
    assert not project(pods("Pending"))[1].complete
    assert project(pods("Pending"), memory=memory)[0].phase is GangPhase.FAILED


def test_a_phase_keeps_its_time_until_it_changes() -> None:
    assert project(pods("Pending"))[0].phase_since_seconds == NOW, "never seen before"
    still, memory = project(pods("Running", "Running"), Progress(8), RAN)
    assert (still.phase_since_seconds, memory.since_seconds) == (NOW - 50, NOW - 50)
    assert project(pods("Failed", "Running"), Progress(8), RAN)[0].phase_since_seconds == NOW


def test_a_restored_attempt_starts_at_its_restore_point() -> None:
    noun, _ = project(pods("Running", "Running", restore_step=40), Progress())
    assert (noun.step, noun.checkpoint_step) == (40, 40)
    later, _ = project(pods("Running", "Running", restore_step=40), Progress(8, 77, 60))
    assert (later.step, later.checkpoint_step) == (77, 60)


def test_ranks_sit_in_order_whatever_the_order_of_their_pods() -> None:
    noun, _ = project(list(reversed(pods("Running", "Pending"))))
    assert [s.node for s in noun.layout.slots] == ["n1", "n2"]
    assert noun.members_up == 1


@pytest.mark.parametrize(
    ("rows", "whole"),
    [
        pytest.param({}, Progress(), id="nobody has told anything"),
        pytest.param({"n1": Progress(4, 12, 10, "running")}, Progress(4, 12, 10, "running"), id="one node"),
        pytest.param({"n1": Progress(4, 12, 10, "a"), "n2": Progress(3, 11, 5, "b")}, Progress(7, 11, 5, "b"), id="joins add up, a step counts when all have done it"),
    ],
)  # fmt: skip
def test_progress_of_a_gang_is_that_of_its_slowest_node(rows: dict[str, Progress], whole: Progress) -> None:
    assert merge_progress(rows) == whole
