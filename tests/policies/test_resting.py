"""What does not start is tried ever more rarely."""

from __future__ import annotations

import msgspec
import pytest

from cluster import actions as act
from cluster.serving import Replica, ReplicaPhase
from policies.place.best_fit import BestFitState
from policies.resting import LONGEST_SECONDS, Rest, after, pause_seconds
from policies.train.island_gang import IslandGangState
from tests.policies.builders import NOW
from tests.policies.fitting import SERVICE, cluster, codes, of, place


def test_the_first_failure_is_answered_at_once_and_the_pause_doubles_to_a_limit() -> None:
    assert [pause_seconds(n) for n in (0, 1, 2, 3, 4)] == [0.0, 0.0, 5.0, 10.0, 20.0]
    assert pause_seconds(50) == pause_seconds(5_000) == LONGEST_SECONDS


def failing(phase: ReplicaPhase, ordinal: int, age: float = 0.0):
    made = cluster().with_capacity(SERVICE, 5.0, ("L4", "l4-od", 1))
    return made.with_replica(SERVICE, "L4", "l4-od-0", phase, ordinal=ordinal, age=age)


@pytest.mark.parametrize(
    ("phase", "age", "code"),
    [
        pytest.param(ReplicaPhase.FAILED, 0.0, "ReplicaEnded", id="it crashed"),
        pytest.param(ReplicaPhase.PENDING, 11.0, "ReplicaStuck", id="it was never bound"),
        pytest.param(ReplicaPhase.STARTING, 1_801.0, "ReplicaNotStarted", id="it was bound and never ready"),
    ],
)
def test_a_second_failure_in_a_row_waits(phase: ReplicaPhase, age: float, code: str) -> None:
    plan, state = place(failing(phase, 1, age))
    assert code in codes(plan)
    assert len(of(plan, act.CreateReplica)) == len(of(plan, act.DeleteReplica)) == 1
    plan, state = place(failing(phase, 2, age), state)
    assert state.resting[SERVICE] == Rest(failures=2, counted=2, until_seconds=NOW + 5.0)
    assert of(plan, act.CreateReplica) == []
    assert "ReplicaHeldBack" in codes(plan)


def test_a_failure_that_is_seen_again_counts_once_and_a_ready_one_ends_it() -> None:
    _, state = place(failing(ReplicaPhase.FAILED, 1))
    _, again = place(failing(ReplicaPhase.FAILED, 1), state)
    assert again.resting[SERVICE].failures == 1
    _, over = place(failing(ReplicaPhase.READY, 2), again)
    assert over.resting == {}


def test_a_lost_node_is_nobodys_failure() -> None:
    _, state = place(failing(ReplicaPhase.LOST, 1), BestFitState(resting={}))
    assert state.resting == {}


def test_what_the_scheduler_says_stands_in_the_reason() -> None:
    made = failing(ReplicaPhase.PENDING, 1, 11.0)
    key = next(iter(made.build().replicas))
    made.changing("replicas", key, stage="0/3 nodes are available: 1 Insufficient cpu")
    plan, _ = place(made)
    stuck = next(r for r in plan.reasons if r.code == "ReplicaStuck")
    assert "Insufficient cpu" in stuck.choice


def test_rests_survive_a_restart_as_json() -> None:
    state = IslandGangState(resting={"lab/train": Rest(failures=3, counted=4, until_seconds=7.0)})
    assert msgspec.json.decode(msgspec.json.encode(state), type=IslandGangState) == state


def replica(ordinal: int, phase: ReplicaPhase) -> Replica:
    made = failing(phase, ordinal).build()
    return next(iter(made.replicas.values()))


def test_those_that_fail_together_count_as_one() -> None:
    failed = [replica(n, ReplicaPhase.FAILED) for n in (1, 2, 3)]
    rest = after(None, failed, failed, NOW)
    assert rest is not None
    assert (rest.failures, rest.counted) == (1, 3)
