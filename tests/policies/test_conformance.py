"""What every registered policy must be, whatever it decides (SEAMS §6, §8)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import msgspec
import numpy as np
import pytest

from cluster.actions import Dispatch, Stamped
from cluster.beliefs import Beliefs
from cluster.checks import OWNERS, check
from cluster.codec import from_json, to_json
from cluster.overlay import Overlay
from cluster.owners import TARGET_OWNERS
from cluster.plan import Decision, Plan
from cluster.reasons import render
from cluster.snapshot import Snapshot
from cluster.tables import InstanceTable, SequenceTable, Table
from cluster.views import DispatchView, MigrationView, PowerView, Request
from policies.planner import PlannerStates, run_planner
from policies.registry import TABLES, PolicyConfigError, Row, build, config_of
from tests.policies.builders import NOW, a_cluster, context, power_view_of, powered
from tests.policies.random_snapshots import random_snapshot

SEEDS = range(8)
ROWS = [
    pytest.param(loop, name, row, id=f"{loop}/{name}")
    for loop, rows in TABLES.items()
    for name, row in rows.items()
]


@cache
def rich_snapshot(seed: int) -> Snapshot:
    """A random cluster that already has menus, capacities, shares and warmth standing."""
    snapshot = random_snapshot(seed)
    return run_planner(snapshot, PlannerStates(), context()).snapshot


@cache
def power_view(seed: int) -> PowerView:
    rng = np.random.default_rng(seed)
    made = a_cluster().with_pool("h100-od", "H100").with_nodes(8, "h100-od")
    nodes = sorted(made.parts["nodes"])
    made.with_domain("row", int(rng.integers(3_000, 7_000)), (nodes[0],))
    made.with_domain("rack-a", int(rng.integers(1_000, 4_000)), tuple(nodes[1:5]), parent="row")
    made.with_domain("rack-b", int(rng.integers(800, 4_000)), tuple(nodes[5:]), parent="row")
    powered(made, nodes)
    made.with_job("lab/job").with_gang("lab/job", (nodes[2], nodes[6]))
    for node in nodes:
        if rng.random() < 0.6:
            held = int(rng.integers(300, 1_000))
            made.with_lease(node, held, charged=held + int(rng.integers(0, 200)))
    return power_view_of(made.build(), "row")


@cache
def dispatch_view(seed: int) -> DispatchView:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    table = InstanceTable.build(
        [f"replica-{i}" for i in range(count)],
        {
            "observed_seconds": [NOW] * count,
            "running": rng.integers(0, 9, count),
            "waiting": rng.integers(0, 3, count),
            "pending": rng.integers(0, 3, count),
            "pending_tokens": rng.integers(0, 999, count),
            "route_weight": rng.random(count),
            "ready": rng.integers(0, 2, count),
            "kv_capacity_tokens": [50_000.0] * count,
            "kv_free_tokens": [20_000.0] * count,
        },
    )
    asked = Request(
        id="r", service="shop/chat", prompt_tokens=100, arrived_seconds=NOW, deadline_seconds=NOW + 9
    )
    return DispatchView(request=asked, instances=table, hold_limit=5)


@cache
def migration_view(seed: int) -> MigrationView:
    rng = np.random.default_rng(seed)
    table = dispatch_view(seed).instances
    count, rows = len(table.keys), int(rng.integers(0, 30))
    short = rng.integers(0, 2, count)
    table = msgspec.structs.replace(
        table,
        kv_free_tokens=np.where(short, 20.0, 20_000.0),
        ready=np.ones(count),
        running=np.full(count, 6.0),
    ).freeze()
    return MigrationView(
        instances=table,
        sequences=SequenceTable.build(
            [f"request-{i}" for i in range(rows)],
            {
                "instance": rng.integers(0, count, rows),
                "context_tokens": rng.integers(1, 4_000, rows),
                "unique_tokens": rng.integers(1, 4_000, rows),
                "priority": rng.integers(0, 2, rows),
                "resident_seconds": rng.random(rows),
            },
        ),
        bytes_per_second=np.full((count, count), 1e10),
    )


VIEWS: dict[type, Callable[[int], Any]] = {
    Snapshot: rich_snapshot,
    PowerView: power_view,
    DispatchView: dispatch_view,
    MigrationView: migration_view,
}
EMPTY: dict[type, Callable[[], Any]] = {
    Snapshot: Snapshot,
    PowerView: lambda: power_view_of(a_cluster().build(), "none"),
    DispatchView: lambda: msgspec.structs.replace(dispatch_view(0), instances=InstanceTable.empty()),
    MigrationView: lambda: MigrationView(
        instances=InstanceTable.empty(), sequences=SequenceTable.empty(), bytes_per_second=np.zeros((0, 0))
    ),
}


def decide(
    loop: str, row: Row, view: Any, state: Any = None, scratch: dict[str, Any] | None = None
) -> Decision[Any]:
    policy = row.policy(row.config())
    ctx = context(loop=loop, scratch={} if scratch is None else scratch)
    return policy.decide(view, policy.initial() if state is None else state, ctx)


def checked(loop: str, plan: Plan) -> None:
    """Ownership, and a rendered reason with every number for every action."""
    for action in plan.actions:
        assert loop in OWNERS[type(action)], f"{loop} emits {action.kind}"
        if not isinstance(action, Dispatch):
            assert 0 <= action.reason < len(plan.reasons), f"{action.kind} has no reason"
    for target in plan.targets:
        assert loop in TARGET_OWNERS[type(target)], f"{loop} aims {type(target).__name__}"
    for reason in plan.reasons:
        assert render(reason)
    assert len({reason.key for reason in plan.reasons}) == len(plan.reasons)


@pytest.mark.parametrize(("loop", "name", "row"), ROWS)
def test_view_state_config_and_plan_survive_json(loop: str, name: str, row: Row):
    config = row.config()
    assert from_json(to_json(config), row.config) == config
    for seed in SEEDS:
        view = VIEWS[row.view](seed)
        assert to_json(from_json(to_json(view), row.view)) == to_json(view)
        decision = decide(loop, row, view)
        assert from_json(to_json(decision.plan), Plan) == decision.plan
        assert from_json(to_json(decision.state), row.state) == decision.state
        assert hasattr(decision.state, "schema")


@pytest.mark.parametrize(("loop", "name", "row"), ROWS)
def test_the_same_view_after_json_gives_the_same_plan(loop: str, name: str, row: Row):
    for seed in SEEDS:
        view = VIEWS[row.view](seed)
        again = from_json(to_json(view), row.view)
        assert to_json(decide(loop, row, view).plan) == to_json(decide(loop, row, again).plan)


@pytest.mark.parametrize(("loop", "name", "row"), ROWS)
def test_deciding_touches_nothing(loop: str, name: str, row: Row, monkeypatch: pytest.MonkeyPatch):
    def forbidden(*_: Any, **__: Any) -> float:
        raise AssertionError("a decision reads the clock or throws global dice")

    view = VIEWS[row.view](3)
    before = to_json(view)
    policy = row.policy(row.config())
    attributes = repr(sorted(vars(policy).items()))
    dice = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global generator must stay untouched
    with monkeypatch.context() as patch:
        for module, names in ((time, ("time", "monotonic", "perf_counter")), (random, ("random", "randint"))):
            for each in names:
                patch.setattr(module, each, forbidden)
        policy.decide(view, policy.initial(), context(loop=loop))
    assert to_json(view) == before
    assert repr(sorted(vars(policy).items())) == attributes
    assert np.random.get_state()[1].tolist() == dice  # noqa: NPY002


@pytest.mark.parametrize(("loop", "name", "row"), ROWS)
def test_order_of_mappings_means_nothing(loop: str, name: str, row: Row):
    for seed in SEEDS:
        view = VIEWS[row.view](seed)
        plain = decide(loop, row, view)
        for turn in range(3):
            mixed = decide(loop, row, shuffled(view, random.Random(seed * 10 + turn)))
            assert to_json(mixed.plan) == to_json(plain.plan)
            assert to_json(mixed.state) == to_json(plain.state)


def shuffled(view: Any, dice: random.Random) -> Any:
    """The view with the entries of every mapping in another order."""
    changes = {}
    for field in view.__struct_fields__:
        value = getattr(view, field)
        if isinstance(value, Mapping):
            items = list(value.items())
            dice.shuffle(items)
            changes[field] = dict(items)
        elif isinstance(value, Beliefs):
            changes[field] = shuffled(value, dice)
    return msgspec.structs.replace(view, **changes)


@pytest.mark.parametrize(("loop", "name", "row"), ROWS)
def test_a_warm_scratch_changes_no_decision(loop: str, name: str, row: Row):
    warm: dict[str, Any] = {}
    for seed in SEEDS:
        decide(loop, row, VIEWS[row.view](seed), scratch=warm)
    for seed in SEEDS:
        view = VIEWS[row.view](seed)
        cold = decide(loop, row, view)
        for _ in range(2):
            again = decide(loop, row, view, scratch=warm)
            assert to_json(again.plan) == to_json(cold.plan)


@pytest.mark.parametrize(("loop", "name", "row"), ROWS)
def test_an_empty_view_is_no_error(loop: str, name: str, row: Row):
    decision = decide(loop, row, EMPTY[row.view]())
    checked(loop, decision.plan)
    assert decision.plan.actions == () or loop == "dispatch"


@pytest.mark.parametrize("spoil", ["nan", "stale"])
@pytest.mark.parametrize(("loop", "name", "row"), ROWS)
def test_missing_numbers_and_old_rows_are_no_error(loop: str, name: str, row: Row, spoil: str):
    for seed in SEEDS:
        view = spoilt(VIEWS[row.view](seed), spoil)
        decision = decide(loop, row, view)
        checked(loop, decision.plan)
        from_json(to_json(decision.plan), Plan)


def spoilt(view: Any, how: str) -> Any:
    """The view with every float column NaN, or with every observation a day old."""
    changes: dict[str, Any] = {}
    for field in view.__struct_fields__:
        value = getattr(view, field)
        if isinstance(value, Table):
            columns = {}
            for name in value.columns():
                column = getattr(value, name).copy()
                if how == "nan" and column.dtype.kind == "f" and name != "observed_seconds":
                    column[:] = np.nan
                if how == "stale" and name == "observed_seconds":
                    column -= 86_400.0
                columns[name] = column
            changes[field] = type(value)(keys=value.keys, **columns).freeze()
        elif field == "loads" and how == "stale":
            changes[field] = {
                key: msgspec.structs.replace(load, observed_seconds=NOW - 86_400.0)
                for key, load in value.items()
            }
    return msgspec.structs.replace(view, **changes)


@pytest.mark.parametrize(("loop", "name", "row"), ROWS)
def test_every_action_is_owned_explained_and_legal_now(loop: str, name: str, row: Row):
    for seed in SEEDS:
        view = VIEWS[row.view](seed)
        plan = decide(loop, row, view).plan
        checked(loop, plan)
        if row.view is not Snapshot:
            continue
        overlay = Overlay(view)
        for index, action in enumerate(plan.actions):
            stamped = Stamped(
                id=f"1/{loop}/1/{index}",
                action=action,
                loop=loop,
                epoch=1,
                issued_seconds=NOW,
                deadline_seconds=NOW + 30,
            )
            drop = check(overlay, stamped, NOW)
            assert drop is None or "last ready replica" in drop.what, drop
            if drop is None:
                overlay.apply(action)


@pytest.mark.parametrize(("loop", "name", "row"), ROWS)
def test_an_unknown_setting_is_refused_with_its_path(loop: str, name: str, row: Row):
    with pytest.raises(PolicyConfigError, match=r"(?s)no_such_setting.*its fields are"):
        config_of(loop, name, {"no_such_setting": 1})
    assert build(loop, name).initial() == row.policy(row.config()).initial()


BAD_CHOICES = [
    pytest.param("sail", "hpa", {}, "no loop is called 'sail'", id="a loop nobody runs"),
    pytest.param(
        "scale", "magic", {}, "no scale policy is called 'magic'; use one of hpa", id="a policy nobody wrote"
    ),
    pytest.param("scale", "hpa", {"target": "lots"}, r"config\.target", id="a word for a number"),
    pytest.param("scale", "hpa", {"target": 0}, r"config\.target", id="a target of nothing"),
    pytest.param("place", "best_fit", {"bind_seconds": -1}, r"config\.bind_seconds", id="a negative time"),
]


@pytest.mark.parametrize(("loop", "name", "config", "told"), BAD_CHOICES)
def test_a_wrong_choice_says_what_there_is(loop: str, name: str, config: dict[str, Any], told: str):
    with pytest.raises(PolicyConfigError, match=told) as caught:
        build(loop, name, config)
    subject = next(iter(random_snapshot(0).services.values())).ref
    assert render(caught.value.reason(subject))
