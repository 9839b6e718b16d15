"""The published baselines of dispatch and migration: which row a request goes to, which request moves."""

import numpy as np
import pytest

from cluster.actions import Dispatch, Hold, Migrate, Reject
from cluster.base import Ref
from cluster.flight import InFlight
from cluster.reasons import render
from cluster.tables import InstanceTable, SequenceTable
from cluster.views import DispatchView, MigrationView, Request
from policies.dispatch.choices import dispatch_policies
from policies.dispatch.least_outstanding import explain
from policies.dispatch.memory_load import InfaasPlusPlus, LlumnixDispatch
from policies.dispatch.round_robin import RoundRobin
from policies.migration.llumnix import LlumnixMigration, LlumnixMigrationConfig
from policies.registry import TABLES
from tests.policies.builders import NOW, context


def table(**rows) -> InstanceTable:
    """Rows a, b, c …: (free, reserved by the queue, running, waiting, pending tokens) of 10,000 tokens each."""
    free, reserved, running, waiting, pending = zip(*rows.values(), strict=True)
    count = len(rows)
    return InstanceTable.build(
        list(rows),
        {
            "kv_capacity_tokens": [10_000.0] * count, "kv_free_tokens": free, "kv_reserved_tokens": reserved,
            "running": running, "waiting": waiting, "pending": [float(tokens > 0) for tokens in pending],
            "pending_tokens": pending, "ready": [1.0] * count, "route_weight": [1.0 / count] * count,
        },
    )  # fmt: skip


def asked(tokens: int = 100) -> Request:
    return Request(
        id="r", service="shop/chat", prompt_tokens=tokens, arrived_seconds=NOW, deadline_seconds=NOW + 9
    )


@pytest.mark.parametrize(
    ("rows", "infaas", "llumnix"),
    [
        pytest.param({"a": (4000, 0, 8, 0, 0), "b": (3000, 0, 2, 0, 0)}, "a", "b",
                     id="more free in all, or more for each that runs"),
        pytest.param({"a": (6000, 5000, 4, 2, 0), "b": (3000, 0, 4, 0, 0)}, "b", "b", id="the queue counts as used"),
        pytest.param({"a": (5000, 0, 4, 0, 4500), "b": (3000, 0, 4, 0, 0)}, "b", "b",
                     id="what was sent since the report counts"),
        pytest.param({"a": (9000, 0, 1, 0, 0), "b": (8000, 0, 0, 0, 0)}, "a", "b", id="an empty instance is freest"),
        pytest.param({"a": (np.nan, np.nan, np.nan, np.nan, 0), "b": (9999, 0, 1, 0, 0)}, "a", "a",
                     id="one that has not reported counts as empty"),
        pytest.param({"a": (5000, 0, 2, 0, 0), "b": (5000, 0, 2, 0, 0)}, "a", "a", id="a tie goes to the first"),
    ],
)  # fmt: skip
def test_memory_decides(rows, infaas, llumnix):
    view = DispatchView(request=asked(), instances=table(**rows), hold_limit=5)
    for policy, expected in ((InfaasPlusPlus(), infaas), (LlumnixDispatch(), llumnix)):
        (action,) = policy.decide(view, policy.initial(), context()).plan.actions
        assert isinstance(action, Dispatch)
        assert action.instance == expected
        assert {action.instance, action.runner_up} == set(rows)
        assert expected in render(explain(action, "shop/chat"))


def test_round_robin_takes_turns_and_keeps_them_when_rows_come_and_go():
    policy, state, turns = RoundRobin(), RoundRobin().initial(), []
    three = table(a=(1, 0, 9, 0, 0), b=(9000, 0, 0, 0, 0), c=(9000, 0, 0, 0, 0))
    two = table(a=(1, 0, 9, 0, 0), c=(9000, 0, 0, 0, 0))
    for instances in (three, three, two, two, three):
        view = DispatchView(request=asked(), instances=instances, hold_limit=5)
        decision = policy.decide(view, state, context())
        (action,), state = decision.plan.actions, decision.state
        turns.append(action.instance)
        assert "turn" in render(explain(action, "shop/chat"))
    assert turns == ["a", "b", "c", "a", "b"]


@pytest.mark.parametrize(
    "policy", [RoundRobin(), InfaasPlusPlus(), LlumnixDispatch()], ids=lambda p: type(p).__name__
)
@pytest.mark.parametrize(
    ("instances", "tokens", "kind"),
    [
        pytest.param(table(a=(9000, 0, 0, 0, 0)), 20_000, Reject, id="too long for every row"),
        pytest.param(InstanceTable.empty(), 100, Hold, id="nobody is ready"),
    ],
)
def test_what_cannot_be_dispatched_waits_or_is_refused(policy, instances, tokens, kind):
    view = DispatchView(request=asked(tokens), instances=instances, hold_limit=5)
    plan = policy.decide(view, policy.initial(), context()).plan
    assert [type(action) for action in plan.actions] == [kind]
    assert all(render(reason) for reason in plan.reasons)


def moving(
    instances: InstanceTable, sequences: list[tuple[int, float, float, float]], moves=()
) -> list[Migrate]:
    """What Llumnix moves; sequences are (instance, context, seconds there, priority), named 0, 1, 2 …"""
    rows = SequenceTable.build(
        [str(i) for i in range(len(sequences))],
        {
            "instance": [each[0] for each in sequences], "context_tokens": [each[1] for each in sequences],
            "resident_seconds": [each[2] for each in sequences], "priority": [each[3] for each in sequences],
        },
    )  # fmt: skip
    flights = {
        f"{n}": InFlight(id=f"{n}", kind="Migrate", subject=Ref("Replica", name), loop="migration",
                         issued_seconds=NOW, deadline_seconds=NOW + 9)
        for n, name in enumerate(moves)
    }  # fmt: skip
    count = len(instances.keys)
    view = MigrationView(
        instances=instances, sequences=rows, bytes_per_second=np.full((count, count), 1e9), moves=flights
    )
    policy = LlumnixMigration(LlumnixMigrationConfig())
    plan = policy.decide(view, policy.initial(), context()).plan
    assert all(render(reason) for reason in plan.reasons)
    return [action for action in plan.actions if isinstance(action, Migrate)]


FULL, ROOMY = (100, 0, 4, 0, 0), (8000, 0, 4, 0, 0)  # 25 and 2,000 tokens a request; 48 are wanted


@pytest.mark.parametrize(
    ("rows", "sequences", "moves", "expected"),
    [
        pytest.param({"a": FULL, "b": ROOMY}, [(0, 500, 9, 0), (0, 900, 1, 0)], (), [("1", "a", "b")],
                     id="the last that came moves to where there is room"),
        pytest.param({"a": FULL, "b": ROOMY}, [(0, 500, 9, 0), (0, 900, 1, 5)], (), [("0", "a", "b")],
                     id="a high priority stays"),
        pytest.param({"a": FULL, "b": FULL}, [(0, 500, 9, 0), (1, 500, 9, 0)], (), [], id="no room anywhere"),
        pytest.param({"a": ROOMY, "b": ROOMY}, [(0, 500, 9, 0)], (), [], id="nobody is short"),
        pytest.param({"a": (3000, 9000, 4, 1, 0), "b": ROOMY}, [(0, 500, 9, 0)], (), [("0", "a", "b")],
                     id="a large request waits: smaller ones make room for it"),
        pytest.param({"a": FULL, "b": ROOMY}, [(0, 500, 9, 0)], ("a",), [], id="one move at a time"),
        pytest.param({"a": FULL, "b": (20, 0, 4, 0, 0), "c": ROOMY, "d": (9000, 0, 4, 0, 0)},
                     [(0, 500, 9, 0), (1, 500, 9, 0)], (), [("1", "b", "d"), ("0", "a", "c")],
                     id="the shortest goes to the roomiest"),
        pytest.param({"a": FULL, "b": ROOMY}, [], (), [], id="nothing runs there that could move"),
    ],
)  # fmt: skip
def test_llumnix_moves(rows, sequences, moves, expected):
    found = moving(table(**rows), sequences, moves)
    assert [(each.sequence, each.source, each.target) for each in found] == expected


def test_a_gateway_is_offered_every_dispatch_policy_of_the_registry():
    offered = dispatch_policies()
    assert {name: type(policy) for name, policy in offered.items()} == {
        name: row.policy for name, row in TABLES["dispatch"].items()
    }
