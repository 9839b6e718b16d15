"""Dispatch by size: where a plan sends a request, and when it goes elsewhere."""

import msgspec
import numpy as np
import pytest

from cluster.actions import Dispatch, Reject
from cluster.reasons import render
from cluster.size_plan import ClassPlan, SizePlan
from cluster.tables import InstanceTable
from cluster.views import DispatchView, Request
from policies.dispatch.least_outstanding import explain
from policies.dispatch.size_aware import SizeAware, fills_of
from policies.registry import PolicyConfigError, config_of
from tests.policies.builders import NOW, context
from tests.policies.size_plans import BIG, CHAT, PLAN, SMALL


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


COLUMNS = {"s": "small|od", "b": "big|od"}


def decide(
    rows: InstanceTable, prompt: int, output: int, plan: SizePlan | None = PLAN, request_class="chat", most=0
):
    request = Request(
        id="r", service="shop/chat", request_class=request_class, prompt_tokens=prompt, expected_output_tokens=output,
        most_output_tokens=most, arrived_seconds=NOW, deadline_seconds=NOW + 9,
    )  # fmt: skip
    policy = SizeAware()
    columns = tuple(COLUMNS.get(key[0], "old|od") for key in rows.keys)
    view = DispatchView(request=request, instances=rows, hold_limit=5, plan=plan, columns=columns)
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
    assert isinstance(decide(table(s0=IDLE, b0=IDLE), 100, 10, most=9_999), Reject)
    busy = table(s0=IDLE, b0=(5, 0, 0))
    for column in ("ready", "route_weight"):
        shut = msgspec.structs.replace(busy, **{column: np.array([0.0, 1.0])})
        assert decide(shut, 100, 10).instance == "b0"


@pytest.mark.parametrize(
    ("rows", "plan"),
    [
        pytest.param({"s0": (4, 0, 0), "s1": (1, 0, 0)}, None, id="a route without a plan, as an older operator sends"),
        pytest.param({"x": (4, 0, 0), "y": (1, 0, 0)}, PLAN, id="a plan for none of the rows that there are"),
    ],
)  # fmt: skip
def test_without_a_plan_for_any_row_it_is_least_outstanding(rows, plan):
    action = decide(table(**rows), 100, 10, plan)
    assert (action.instance, action.code) == (list(rows)[1], "LeastOutstanding")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param({"s0": (50, 500, 0), "x0": IDLE}, "s0", id="while a planned row keeps the promise it is taken"),
        pytest.param({"s0": (95, 500, 0), "x0": (0, 6_000, 0)}, "x0",
                     id="all planned rows behind: a row of no plan with room is better"),
        pytest.param({"s0": (95, 500, 0), "x0": (0, 9_950, 0)}, "s0", id="but not one that is full itself"),
        pytest.param({"s0": (95, 500, 0), "x0": (0, 6_000, 0), "x1": (0, 5_000, 0)}, "x1",
                     id="of rows of no plan the one with most room"),
    ],
)  # fmt: skip
def test_rows_that_the_plan_does_not_know_take_what_planned_ones_cannot(rows, expected):
    assert decide(table(**rows), 100, 10).instance == expected


def test_planned_rows_that_are_not_there_leave_the_others_to_do_it():
    assert decide(table(b0=(5, 0, 0)), 100, 10).instance == "b0"
    assert decide(table(s0=(5, 0, 0)), 1_000, 10).instance == "s0"


QUICK = ClassPlan(
    request_class="quick", ttft_seconds=0.5, tpot_seconds=0.05, shares=((0.0,) * 4, (1.0,) * 4), able=((False,) * 4, (True,) * 4)
)  # fmt: skip
TWO = msgspec.structs.replace(
    PLAN, classes=(CHAT, QUICK), columns=(SMALL, msgspec.structs.replace(BIG, tpot_seconds=0.05))
)


@pytest.mark.parametrize(
    ("request_class", "rows", "expected"),
    [
        pytest.param("quick", {"s0": IDLE, "b0": (9, 0, 0)}, "b0", id="each class by its own shares"),
        pytest.param("chat", {"s0": IDLE, "b0": IDLE}, "s0", id="the other class goes elsewhere"),
        pytest.param("unheard-of", {"s0": IDLE, "b0": IDLE}, "s0", id="an unknown class goes by the first one's plan"),
        pytest.param("", {"s0": IDLE, "b0": IDLE}, "s0", id="and so does none"),
        pytest.param("chat", {"s0": (95, 0, 0), "b0": (20, 0, 0)}, "b0",
                     id="chat is behind on small ones and may use big ones, at 41 ms a step for the 50 promised there"),
        pytest.param("chat", {"s0": (81, 0, 0), "b0": (45, 0, 0)}, "s0",
                     id="a class that could wait longer does not overfill rows of one that cannot"),
    ],
)  # fmt: skip
def test_classes_of_one_service(request_class, rows, expected):
    assert decide(table(**rows), 100, 10, TWO, request_class).instance == expected


def test_buckets_named_by_their_upper_edge_are_not_blended():
    hard = msgspec.structs.replace(PLAN, blend=False)
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
    found = fills_of(CHAT, SMALL, rows, np.array([0]), float(prompt), float(output))
    assert found == pytest.approx([fill], rel=1e-4)


def test_prompts_of_those_that_follow_count_with_each_running_request():
    rows, row = table(s0=(39, 0, 0)), np.array([0])
    busy = msgspec.structs.replace(SMALL, refill_seconds=0.0005)
    assert fills_of(CHAT, SMALL, rows, row, 20.0, 0.0) == pytest.approx([0.6002], rel=1e-4)
    assert fills_of(CHAT, busy, rows, row, 20.0, 0.0) == pytest.approx([0.8002], rel=1e-4)


def test_a_plan_is_no_setting_of_the_policy():
    with pytest.raises(PolicyConfigError, match="pools"):
        config_of("dispatch", "size_aware", {"pools": []})
