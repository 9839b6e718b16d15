"""Dispatch by size: where a plan sends a request, and when it goes elsewhere."""

import msgspec
import numpy as np
import pytest

from cluster.actions import Dispatch, Reject
from cluster.reasons import render
from cluster.tables import InstanceTable
from cluster.views import DispatchView, Request
from policies.dispatch.least_outstanding import explain
from policies.dispatch.size_aware import SizeAware, SizeAwareConfig, SizedPool, fills_of
from policies.registry import PolicyConfigError, config_of
from tests.policies.builders import NOW, context

STEPS = {"base_seconds": 0.02, "request_seconds": 0.001, "context_seconds": 1e-6, "prompt_seconds": 1e-4}
SMALL = SizedPool(
    name="small", rows=("s0", "s1"), shares=(1.0, 0.5, 0.0, 0.0), able=(True, True, False, True), **STEPS
)
BIG = SizedPool(name="big", rows=("b0",), shares=(0.0, 0.5, 1.0, 1.0), able=(True, True, True, True), **STEPS)
CONFIG = SizeAwareConfig(
    input_edges=(100.0, 1_000.0), output_edges=(10.0, 200.0), pools=(SMALL, BIG), tpot_seconds=0.1
)


def table(**rows) -> InstanceTable:
    """Rows: (running, held tokens, queued tokens); 10,000 tokens of room each."""
    running, held, queued = zip(*rows.values(), strict=True)
    count = len(rows)
    return InstanceTable.build(
        list(rows),
        {
            "kv_capacity_tokens": [10_000.0] * count, "kv_free_tokens": 10_000.0 - np.array(held, dtype=float),
            "kv_reserved_tokens": queued, "running": running, "waiting": [0.0] * count, "pending": [0.0] * count,
            "pending_tokens": [0.0] * count, "ready": [1.0] * count, "route_weight": [1.0 / count] * count,
        },
    )  # fmt: skip


def decide(rows: InstanceTable, prompt: int, output: int, config: SizeAwareConfig = CONFIG):
    request = Request(
        id="r", service="shop/chat", prompt_tokens=prompt, expected_output_tokens=output,
        arrived_seconds=NOW, deadline_seconds=NOW + 9,
    )  # fmt: skip
    policy = SizeAware(config)
    view = DispatchView(request=request, instances=rows, hold_limit=5)
    decision = policy.decide(view, policy.initial(), context())
    again = policy.decide(view, decision.state, context())
    assert again.plan == decision.plan
    (action,) = decision.plan.actions
    return action


IDLE = (0, 0, 0)


@pytest.mark.parametrize(
    ("rows", "prompt", "output", "expected"),
    [
        pytest.param({"s0": (3, 500, 0), "s1": IDLE, "b0": IDLE}, 100, 10, "s1",
                     id="a small request goes to the idler small row, though the big one is idle"),
        pytest.param({"s0": (90, 500, 0), "s1": (95, 500, 0), "b0": (9, 500, 0)}, 100, 10, "b0",
                     id="small rows too slow for one more: it spills over"),
        pytest.param({"s0": (2, 9_950, 0), "s1": (2, 9_950, 0), "b0": (9, 500, 0)}, 100, 10, "b0",
                     id="small rows without room: it spills over"),
        pytest.param({"s0": (2, 0, 18_000), "s1": (2, 0, 18_000), "b0": (9, 500, 0)}, 100, 10, "b0",
                     id="prompts queued there for two seconds: it spills over"),
        pytest.param({"s0": (2, 0, 0), "s1": (2, 0, 0), "b0": (99, 500, 0)}, 1_000, 10, "b0",
                     id="a size the small ones cannot serve waits for the big one"),
        pytest.param({"s0": (0, 0, 0), "s1": (0, 0, 0), "b0": (99, 500, 0)}, 1_000, 200, "s0",
                     id="a size meant for the big one, which is behind, goes to small ones that are able"),
        pytest.param({"s0": (9, 0, 0), "s1": (9, 0, 0), "b0": IDLE}, 100, 105, "b0",
                     id="a size shared by both goes to the emptier"),
        pytest.param({"s0": (9, 0, 0), "s1": (np.nan, 0, 0), "b0": IDLE}, 100, 10, "s1",
                     id="a row that has not reported is empty"),
        pytest.param({"s0": (9, 0, 0)}, 1_000, 10, "s0",
                     id="only rows that are late for it are left: late is better than never"),
    ],
)  # fmt: skip
def test_where_a_request_goes(rows, prompt, output, expected):
    action = decide(table(**rows), prompt, output)
    assert isinstance(action, Dispatch)
    assert action.instance == expected
    assert action.code == "SizePlanned"
    assert expected in render(explain(action, "shop/chat"))


def test_a_request_larger_than_every_cache_is_refused_and_rows_that_are_shut_get_nothing():
    assert isinstance(decide(table(s0=IDLE, b0=IDLE), 9_999, 10), Reject)
    shut = msgspec.structs.replace(table(s0=IDLE, b0=(5, 0, 0)), ready=np.array([0.0, 1.0]))
    assert decide(shut, 100, 10).instance == "b0"


def test_without_a_plan_for_any_row_it_is_least_outstanding():
    rows = table(x=(4, 0, 0), y=(1, 0, 0))
    for config in (CONFIG, SizeAwareConfig()):
        action = decide(rows, 100, 10, config)
        assert (action.instance, action.code) == ("y", "LeastOutstanding")


def test_buckets_named_by_their_upper_edge_are_not_blended():
    hard = msgspec.structs.replace(CONFIG, blend=False)
    rows = {"s0": IDLE, "s1": IDLE, "b0": (1, 0, 0)}
    assert decide(table(**rows), 101, 10).instance == "b0"  # its upper corner is what small ones cannot serve
    assert decide(table(**rows), 90, 9, hard).instance == "s0"
    assert decide(table(**rows), 90, 100, hard).instance == "s0"  # bucket (100, 200), half meant for each
    assert decide(table(**rows), 500, 10, hard).instance == "b0"


@pytest.mark.parametrize(
    ("row", "prompt", "output", "fill"),
    [
        pytest.param((0, 6_000, 0), 100, 1_800, 0.7, id="room: 6,000 held, 100 + 900 to come, of 10,000"),
        pytest.param((59, 0, 0), 20, 0, 0.80020, id="step: 20 + 60 + 0.02 ms of 100"),
        pytest.param((0, 0, 10_000), 5_000, 0, 0.899836, id="first token: 1.5 s of arithmetic and 8.3 steps of 36 ms"),
    ],
)  # fmt: skip
def test_how_full_a_row_would_be(row, prompt, output, fill):
    capacity = np.array([1e6 if row[2] else 1e4])
    rows = msgspec.structs.replace(
        table(s0=row), kv_capacity_tokens=capacity, kv_free_tokens=capacity - row[1]
    )
    found = fills_of(CONFIG, SMALL, rows, np.array([0]), float(prompt), float(output))
    assert found == pytest.approx([fill], rel=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"input_edges": [100.0, 50.0]}, "rise", id="edges that fall"),
        pytest.param({"output_edges": [10.0]}, "4 shares", id="shares that do not cover the grid"),
        pytest.param({"tpot_seconds": 0.0}, "tpot_seconds", id="no promise"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_with_its_fault(change, said):
    with pytest.raises(PolicyConfigError, match=said):
        config_of("dispatch", "size_aware", {**msgspec.to_builtins(CONFIG), **change})
