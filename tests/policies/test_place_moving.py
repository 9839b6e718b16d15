"""One move for a replica that fits nowhere in one piece: begun, ended when its successor is ready, bounded, and off by default."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster import actions as act
from cluster.reasons import render
from cluster.restraint import Moves
from cluster.serving import Objective, ReplicaPhase
from cluster.snapshot import Snapshot
from policies.place.priced_fgd import PricedFgd, PricedFgdConfig
from policies.place.run import BestFitState
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context
from tests.policies.test_shares import SMALL
from tests.policies.test_shares_priority import later, resized

PAIR, ONE, TWO = "shop/pair", "shop/one", "shop/two"


def scattered(
    *, pair: str = "L4x2", other: str = "L4", priority: int = 0, divided: bool = False
) -> ClusterBuilder:
    """Two nodes of two GPUs, one replica on each, and a service that wants what no node has in one piece."""
    made = a_cluster().with_pool("l4-od", "L4", 1.0)
    made.with_nodes(2, "l4-od", gpus=2, divisible={"memory": 24 * 2**30} if divided else {})
    for number, name in enumerate((ONE, TWO)):
        made.with_service(name, other, model=SMALL, objectives=promise(priority), drain_seconds=0.0)
        made.with_replica(name, other, f"l4-od-{number}", devices=(0,))
        made.with_capacity(name, 0.0, (other, "l4-od", 1), units=1, owner="user")
    made.with_service(PAIR, pair, model=SMALL, drain_seconds=0.0)
    return made.with_capacity(PAIR, 0.0, units=1, owner="user", final=False)


def promise(priority: int) -> tuple[Objective, ...]:
    return (Objective(ttft_seconds=2.0, tpot_seconds=0.1, priority=priority),)


def placed(view: Snapshot, state: BestFitState | None = None, now: float = NOW, **config: Any) -> Any:
    policy = PricedFgd(PricedFgdConfig(**{"moves_per_minute": 1, **config}))
    decision = policy.decide(view, state or policy.initial(), context(now=now, loop="place"))
    for reason in decision.plan.reasons:
        assert render(reason)
    return decision


def of(decision: Any, kind: type) -> list[Any]:
    return [action for action in decision.plan.actions if isinstance(action, kind)]


def begun(decision: Any) -> list[tuple[str, str]]:
    """(service, node) of every replica that was created."""
    return [(a.service, a.slots[0].node) for a in of(decision, act.CreateReplica)]


def ready(view: Snapshot, service: str) -> int:
    return sum(1 for r in view.replicas.values() if r.service == service and r.phase is ReplicaPhase.READY)


def test_it_is_off_by_default() -> None:
    assert PricedFgdConfig().moves_per_minute == 0
    assert begun(placed(resized(scattered().build()), moves_per_minute=0)) == []


def test_the_other_is_started_elsewhere_and_told() -> None:
    decision = placed(resized(scattered().build()))
    assert begun(decision) == [(ONE, "l4-od-1")]
    assert of(decision, act.Drain) == [], "nothing ends before its successor is ready"
    (reason,) = [r for r in decision.plan.reasons if r.code == "ReplicaMoves"]
    words = render(reason)
    assert "2 GPU fit nowhere in one piece though 2 GPU are free" in words
    assert f"to l4-od-1 for {PAIR}" in words
    assert list(decision.state.moves) == ["shop/one-l4x1-bf16-1"]


@pytest.mark.parametrize(
    "pace", [pytest.param(1, id="ready at once"), pytest.param(3, id="ready after a while")]
)
def test_a_move_ends_with_room_and_never_with_a_gap(pace: int) -> None:
    view, state, now = scattered().build(), None, NOW
    kinds: list[str] = []
    for step in range(12):
        view, now = resized(view), now + 5.0
        decision = placed(view, state, now)
        state = decision.state
        kinds += [a.kind for a in decision.plan.actions if a.kind in ("CreateReplica", "Drain")]
        view = view.after(decision.plan)
        starting = view
        view = later(view)
        if step % pace:
            unready = {
                key: msgspec.structs.replace(replica, phase=ReplicaPhase.STARTING)
                for key, replica in starting.replicas.items()
                if replica.phase in (ReplicaPhase.PENDING, ReplicaPhase.STARTING)
            }
            view = msgspec.structs.replace(view, replicas={**view.replicas, **unready})
        assert ready(view, ONE) >= 1
        assert ready(view, TWO) >= 1
    assert kinds == ["CreateReplica", "Drain", "CreateReplica"]
    assert (ready(view, PAIR), ready(view, ONE), ready(view, TWO)) == (1, 1, 1)
    assert state is not None
    assert not state.moves


def test_the_move_is_charged_and_waits_for_its_budget() -> None:
    view = resized(scattered().build())
    first = placed(view)
    moved = later(view.after(first.plan))
    (drain,) = of(placed(moved, first.state, NOW + 5.0), act.Drain)
    assert drain.voluntary
    assert drain.subject.name == "shop/one-l4x1-bf16-1"
    spent = Moves(allowed=1, made=1, next_seconds=NOW + 600.0)
    waits = placed(msgspec.structs.replace(moved, moves=spent), first.state, NOW + 5.0)
    assert of(waits, act.Drain) == []
    assert "MovesSpent" in [reason.code for reason in waits.plan.reasons]
    assert list(waits.state.moves) == list(first.state.moves), "and goes on when there is more"
    none = placed(msgspec.structs.replace(view, moves=spent))
    assert begun(none) == [], "and none is begun without a budget"


@pytest.mark.parametrize(
    ("made", "config"),
    [
        pytest.param(scattered(priority=1), {}, id="they are more important"),
        pytest.param(scattered().changing("replicas", "shop/one-l4x1-bf16-1", kept_by="keep").changing(
            "replicas", "shop/two-l4x1-bf16-2", kept_by="keep"), {}, id="their user keeps them"),
        pytest.param(scattered(pair="L4x4"), {}, id="no node is large enough"),
        pytest.param(scattered().with_claim("other/a", "l4-od-0", 1), {}, id="not enough is free in all"),
        pytest.param(scattered().changing("nodes", "l4-od-0", offer="cordoned"), {}, id="a node is closed"),
    ],
)  # fmt: skip
def test_nothing_moves_where_that_would_not_help_or_may_not_be(
    made: ClusterBuilder, config: dict[str, Any]
) -> None:
    decision = placed(resized(made.build()), **config)
    assert begun(decision) == []
    assert decision.state.moves == {}


def test_one_move_at_a_time_for_a_service_and_so_many_a_minute_for_all() -> None:
    view = resized(scattered().build())
    first = placed(view, moves_per_minute=5)
    again = placed(view.after(first.plan), first.state, NOW + 1.0, moves_per_minute=5)
    assert begun(again) == []
    spent = BestFitState(moved=(NOW - 30.0,))
    assert begun(placed(view, spent)) == []
    assert len(begun(placed(view, spent, NOW + 31.0))) == 1


def test_a_move_that_comes_to_nothing_is_forgotten_and_nobody_ends() -> None:
    view = resized(scattered().build())
    first = placed(view)
    moved = view.after(first.plan)
    (name,) = (a.name for a in of(first, act.CreateReplica))
    failed = {
        **moved.replicas,
        name: msgspec.structs.replace(moved.replicas[name], phase=ReplicaPhase.FAILED),
    }
    after = placed(msgspec.structs.replace(moved, replicas=failed), first.state, NOW + 5.0)
    assert of(after, act.Drain) == []
    assert "shop/one-l4x1-bf16-1" not in after.state.moves
    slow = placed(moved, first.state, NOW + 5.0, move_seconds=1.0)
    assert [a.replica.name for a in of(slow, act.DeleteReplica)] == [name], (
        "the successor goes, not who serves"
    )


def test_a_lost_memory_costs_the_move_and_no_replica_that_serves() -> None:
    view = resized(scattered().build())
    first = placed(view)
    after = placed(view.after(first.plan), None, NOW + 5.0, moves_per_minute=0)
    (name,) = (a.name for a in of(first, act.CreateReplica))
    assert of(after, act.Drain) == []
    assert [a.replica.name for a in of(after, act.DeleteReplica)] == [name]


def test_shares_move_together_for_a_larger_share() -> None:
    made = scattered(pair="L4", other="L4x0.5", divided=True)
    for node in ("l4-od-0", "l4-od-1"):
        made.with_claim(f"other/{node}", node, 1)
    decision = placed(resized(made.build()))
    assert begun(decision) == [(ONE, "l4-od-1")]
