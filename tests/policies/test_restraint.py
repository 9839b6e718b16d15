"""Restraint in deciding: how many running replicas are moved by our own choice, and what is no move."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import actions as act
from cluster.base import Ref
from cluster.hardware import Offer
from cluster.plan import Plan
from cluster.reasons import render
from cluster.restraint import Hold, Moves, PodBudget
from cluster.serving import Objective, ReplicaPhase
from cluster.snapshot import Snapshot
from cluster.targets import Capacity
from policies.advice import buys_nothing
from policies.commit.by_priority import ByPriority
from policies.commit.settling import moved_units
from policies.planner import PlannerStates, run_planner
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context
from tests.policies.fitting import OLD, SERVICE, cluster, codes, of, place
from tests.policies.random_snapshots import random_snapshot


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


# ------------------------------------------------------------------------------------------ a better mix, by budget


def dear(left: int | None) -> Snapshot:
    """Four A100 stand where one would do, or some L4 for less."""
    made = a_cluster().with_pool("l4-od", "L4").with_pool("a100-od", "A100-80")
    made.with_nodes(1, "l4-od", gpus=8).with_nodes(2, "a100-od", gpus=4)
    made.with_service(SERVICE, "L4", "A100-80")
    made.with_capacity(SERVICE, 0.5, ("A100-80", "a100-od", 4), final=True)
    if left is not None:
        made.changing("services", SERVICE, moves=Moves(allowed=left))
    return made.build()


def mix_of(snapshot: Snapshot) -> tuple[dict[str, int], bool, list[str]]:
    """Counts of the committed mix, whether it took another's place, and what is said of a mix that waits."""
    policy = ByPriority()
    plan = policy.decide(snapshot, policy.initial(), context(loop="commit")).plan
    [capacity] = [t for t in plan.targets if isinstance(t, Capacity)]
    said = [render(r) for r in plan.reasons if r.code == "MixWaits"]
    return {part.variant: part.units for part in capacity.mix.parts}, capacity.exchanged, said


def test_without_a_budget_a_dear_mix_is_replaced() -> None:
    counts, exchanged, said = mix_of(dear(None))
    assert (counts, exchanged, said) == ({"L4x1-bf16": 1}, True, [])


def test_with_no_move_left_a_dear_mix_only_shrinks_and_the_better_one_is_named() -> None:
    counts, exchanged, said = mix_of(dear(0))
    assert set(counts) == {"A100-80x1-bf16"}
    assert counts["A100-80x1-bf16"] < 4, "what is not needed at all goes without a move"
    assert not exchanged
    [text] = said
    assert "it needs 4 moves, and 0 moves may be made now" in text


def test_a_budget_that_is_large_enough_changes_nothing() -> None:
    assert mix_of(dear(4)) == mix_of(dear(None))


@given(
    seed=st.integers(0, 400),
    own=st.none() | st.integers(0, 4),
    whole=st.none() | st.integers(0, 4),
)
@settings(max_examples=40, deadline=None)
def test_no_commitment_plans_more_moves_than_there_are(seed: int, own: int | None, whole: int | None) -> None:
    view = random_snapshot(seed)
    services = {
        name: msgspec.structs.replace(s, moves=None if own is None else Moves(allowed=own))
        for name, s in view.services.items()
    }
    cluster_moves = None if whole is None else Moves(allowed=whole)
    view = msgspec.structs.replace(view, services=services, moves=cluster_moves)
    policy = ByPriority()
    run = policy.commit(view, policy.initial(), context(loop="commit"))
    for made in run.commitments:
        if made.settled.wish is not None:
            standing = view.capacity(made.service.name)
            assert standing is not None
            before = {f"{p.variant}|{p.pool}": p.units for p in standing.mix.parts if p.units > 0}
            assert moved_units(before, made.settled.counts) <= made.limits.moves


# ---------------------------------------------------------------------------------------- what is left as it is


def held(hold: Hold) -> ClusterBuilder:
    made = replicas(3, 1)
    made.with_replica(SERVICE, "L4", "l4-od-0", ReplicaPhase.FAILED, ordinal=8)
    made.with_replica(SERVICE, "L4", "l4-od-1", ReplicaPhase.DRAINING, ordinal=9, age=900.0)
    return made.changing("services", SERVICE, held=hold)


@pytest.mark.parametrize("hold", [Hold.PAUSED, Hold.RECOMMEND, Hold.NOT_MANAGED])
def test_of_what_is_held_only_the_traffic_is_routed(hold: Hold) -> None:
    plan, _ = place(held(hold))
    assert {action.kind for action in plan.actions} <= {"SetRoutes"}
    made = held(hold)
    del made.parts["targets"]  # nobody remembers a capacity
    plan, _ = place(made)
    assert [sorted(routes.weights) for routes in of(plan, act.SetRoutes)] in (
        [],
        [[f"{SERVICE}-l4x1-bf16-{n}" for n in (1, 2, 3)]],
    )


@pytest.mark.parametrize("hold", list(Hold)[1:])
def test_a_whole_run_does_nothing_about_what_is_held(hold: Hold) -> None:
    for seed in range(12):
        view = random_snapshot(seed)
        services = {n: msgspec.structs.replace(s, held=hold) for n, s in view.services.items()}
        jobs = {n: msgspec.structs.replace(j, held=hold) for n, j in view.jobs.items()}
        view = msgspec.structs.replace(view, services=services, jobs=jobs)
        run = run_planner(view, PlannerStates(), context(loop="planner"))
        kinds = {action.kind for staged in run.stages for action in staged.actions}
        assert kinds <= {"SetRoutes", "Release"}, (seed, kinds)


def test_what_would_be_done_is_told_and_not_done() -> None:
    made = cluster().with_load(SERVICE, 5.0).changing("services", SERVICE, held=Hold.RECOMMEND)
    run = run_planner(made.build(), PlannerStates(), context(loop="planner"))
    assert run.actions == 0
    assert all(not staged.plan.actions for staged in run.stages)
    told = [render(r) for staged in run.stages for r in staged.plan.reasons]
    assert any(
        "would be done in mode Auto: CreateReplica shop/chat-l4x1-bf16-1 on l4-od-" in text for text in told
    )
    assert not any(isinstance(t, Capacity) for staged in run.stages for t in staged.targets)


def test_devices_of_what_is_held_are_nobodys_to_take() -> None:
    made = replicas(8, 8).changing("services", SERVICE, held=Hold.PAUSED)
    urgent = (Objective(ttft_seconds=2.0, tpot_seconds=0.1, priority=9),)
    made.with_service("shop/urgent", "L4", objectives=urgent).with_load("shop/urgent", 3.0)
    made.with_capacity("shop/urgent", 3.0, ("L4", "l4-od", 1), final=True)
    plan, _ = place(made)
    assert of(plan, act.Drain) == []
    assert of(plan, act.CreateReplica) == []


# ----------------------------------------------------------------------------------- annotations and others' budgets


def guard(allowed: int, healthy: int = 3, desired: int = 2) -> PodBudget:
    return PodBudget(
        ref=Ref("PodDisruptionBudget", "shop/keep"), allowed=allowed, healthy=healthy, desired=desired
    )


def guarded(made: ClusterBuilder, budget: PodBudget) -> Snapshot:
    view = made.build()
    under = {k: msgspec.structs.replace(r, budgets=("shop/keep",)) for k, r in view.replicas.items()}
    return msgspec.structs.replace(view, replicas=under, budgets={"shop/keep": budget})


@pytest.mark.parametrize(("allowed", "drained"), [(0, 0), (1, 1), (2, 2), (9, 4)])
def test_no_more_is_drained_than_a_pod_disruption_budget_allows(allowed: int, drained: int) -> None:
    plan, _ = place(guarded(replicas(6, 2), guard(allowed, 6)))
    assert len(of(plan, act.Drain)) == drained
    assert ("PodGuarded" in codes(plan)) is (drained < 4)


def test_what_drains_already_counts_against_the_budget() -> None:
    made = replicas(4, 2)
    made.with_replica(SERVICE, "L4", "l4-od-0", ReplicaPhase.DRAINING, ordinal=9, age=1.0)
    made.with_row(f"{SERVICE}-l4x1-bf16-9", running=1.0, waiting=0.0)
    plan, _ = place(guarded(made, guard(1, 5, 4)))
    assert of(plan, act.Drain) == []


def test_what_drained_and_may_not_go_serves_on() -> None:
    made = replicas(2, 1)
    made.with_replica(SERVICE, "L4", "l4-od-0", ReplicaPhase.DRAINING, ordinal=9, age=900.0)
    plan, _ = place(guarded(made, guard(0)))
    assert [resume.subject.name[-1] for resume in of(plan, act.Resume)] == ["9"]
    assert "EvictionRefused" in codes(plan)
    plan, _ = place(guarded(made, guard(1)))
    assert [delete.evict for delete in of(plan, act.DeleteReplica)] == [True]


def test_a_lost_node_asks_nobody() -> None:
    made = replicas(2, 2, kept_by="karpenter.sh/do-not-disrupt")
    made.changing("nodes", "l4-od-1", offer=Offer.RECLAIMING)
    plan, _ = place(guarded(made, guard(0)))
    assert len(of(plan, act.Drain)) == 1
    assert "ReplicaLeaving" in codes(plan)


def test_what_somebody_keeps_goes_last_and_only_by_its_users_word() -> None:
    made = replicas(3, 1)
    for number in (1, 2, 3):
        key = f"{SERVICE}-l4x1-bf16-{number}"
        made.changing("replicas", key, kept_by="karpenter.sh/do-not-disrupt" if number != 2 else "")
    plan, _ = place(made)
    assert [drain.subject.name[-1] for drain in of(plan, act.Drain)] == ["2"]
    assert "PodKept" in codes(plan)
    made.changing("targets", f"Capacity/{SERVICE}", owner="user")
    plan, _ = place(made)
    assert len(of(plan, act.Drain)) == 2, "who sizes by hand is asked no more"


def test_a_cluster_that_is_only_advised_buys_nothing_and_gives_nothing_back() -> None:
    bought = act.Provision(pool="l4-od", count=1, reason=0)
    given = act.ReleaseNode(node="l4-od-0", reason=0)
    routed = act.SetRoutes(service=SERVICE, weights={}, reason=0)
    assert buys_nothing((bought, given, routed)) == (routed,)
