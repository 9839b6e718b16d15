"""Restraint in deciding: how many running replicas are moved by our own choice, and what is no move."""

from __future__ import annotations

import msgspec
import pytest

from cluster import actions as act
from cluster.hardware import Offer
from cluster.plan import Plan
from cluster.reasons import render
from cluster.restraint import Moves
from cluster.serving import ReplicaPhase
from cluster.snapshot import Snapshot
from tests.policies.builders import NOW, ClusterBuilder
from tests.policies.fitting import OLD, SERVICE, cluster, codes, of, place


def replicas(count: int, wanted: int, **more: object) -> ClusterBuilder:
    made = cluster().with_capacity(SERVICE, 5.0, ("L4", "l4-od", wanted))
    for number in range(1, count + 1):
        made.with_replica(SERVICE, "L4", f"l4-od-{number % 2}", ordinal=number, **more)
        made.with_row(f"{SERVICE}-l4x1-bf16-{number}", running=0.0, waiting=0.0, route_weight=1.0 / count)
    return made


def limited(made: ClusterBuilder, own: Moves | None, whole: Moves | None = None) -> Snapshot:
    made.changing("services", SERVICE, moves=own)
    return msgspec.structs.replace(made.build(), moves=whole)


def exchanged(made: ClusterBuilder) -> ClusterBuilder:
    """The mix took another one's place."""
    return made.changing("targets", f"Capacity/{SERVICE}", exchanged=True)


def spent(plan: Plan) -> list[str]:
    return [render(reason) for reason in plan.reasons if reason.code == "MovesSpent"]


SPENT = Moves(allowed=3, made=3, next_seconds=NOW + 1140.0)


def test_of_a_better_mix_only_as_many_are_moved_as_the_budget_has_left() -> None:
    plan, _ = place(limited(exchanged(replicas(6, 2)), Moves(allowed=3, made=1, next_seconds=NOW + 600.0)))
    drains = of(plan, act.Drain)
    assert len(drains) == 2
    assert all(drain.voluntary for drain in drains)
    assert len(spent(plan)) == 2
    assert all(
        "3 moves of 3 moves an hour have been made, the next may be in 10 min" in s for s in spent(plan)
    )


@pytest.mark.parametrize(
    ("own", "whole", "whose"),
    [
        pytest.param(SPENT, None, "by its service's budget", id="its own budget"),
        pytest.param(None, SPENT, "by the cluster's budget", id="the cluster's budget"),
        pytest.param(SPENT, SPENT, "by its service's budget", id="both: its own is named"),
    ],
)
def test_a_budget_that_is_used_up_keeps_what_runs_and_says_so(
    own: Moves | None, whole: Moves | None, whose: str
) -> None:
    plan, _ = place(limited(exchanged(replicas(3, 2)), own, whole))
    assert of(plan, act.Drain) == []
    [text] = spent(plan)
    assert whose in text
    assert "in 20 min" in text


def test_an_old_revision_is_moved_within_the_budget() -> None:
    made = replicas(3, 2, revision=OLD)
    plan, _ = place(limited(made, SPENT))
    assert of(plan, act.Drain) == []
    assert spent(plan)
    plan, _ = place(limited(made, Moves(allowed=3, made=2, next_seconds=NOW + 60.0)))
    assert [drain.voluntary for drain in of(plan, act.Drain)] == [True]


def test_what_falling_load_no_longer_needs_goes_whatever_the_budget() -> None:
    plan, _ = place(limited(replicas(6, 2), SPENT, SPENT))
    assert [drain.voluntary for drain in of(plan, act.Drain)] == [False] * 4
    assert spent(plan) == []


def test_what_was_never_ready_is_no_running_pod() -> None:
    made = exchanged(replicas(2, 2))
    made.with_replica(SERVICE, "L4", "l4-od-0", ReplicaPhase.STARTING, ordinal=9)
    plan, _ = place(limited(made, SPENT))
    assert [delete.replica.name[-1] for delete in of(plan, act.DeleteReplica)] == ["9"]


def test_a_node_that_is_being_lost_is_left_whatever_the_budget() -> None:
    made = replicas(2, 2).changing("nodes", "l4-od-1", offer=Offer.RECLAIMING)
    plan, _ = place(limited(made, SPENT, SPENT))
    assert [drain.voluntary for drain in of(plan, act.Drain)] == [False]
    assert "ReplicaLeaving" in codes(plan)
