"""The dispatch baseline: weights, pending, gaps in the table, and what it says when nobody is ready."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.actions import Dispatch, Hold, Reject
from cluster.plan import Context, Plan
from cluster.tables import InstanceTable
from cluster.views import DispatchView, Request
from policies.dispatch.least_outstanding import LeastOutstanding, LeastOutstandingConfig, explain

NAN = math.nan


def table(**columns: Sequence[float]) -> InstanceTable:
    size = len(next(iter(columns.values())))
    full: dict[str, Sequence[float]] = {
        "ready": [1] * size, "route_weight": [1.0] * size, "running": [0] * size, "waiting": [0] * size,
        "pending": [0] * size, "kv_capacity_tokens": [100_000] * size,
    }  # fmt: skip
    return InstanceTable.build([f"shop/{chr(97 + k)}" for k in range(size)], full | columns)


def decide(
    instances: InstanceTable,
    tokens: int = 100,
    held: int = 0,
    hold_limit: int = 10,
    now: float = 5.0,
    **more: float,
) -> Plan:
    request = Request(
        id="7", service="shop/chat", prompt_tokens=tokens, expected_output_tokens=10, arrived_seconds=4.0,
        deadline_seconds=64.0,
    )  # fmt: skip
    view = DispatchView(request=request, instances=instances, held=held, hold_limit=hold_limit, **more)
    digest = instances.digest()
    policy = LeastOutstanding(LeastOutstandingConfig(retry_after_seconds=9.0))
    decision = policy.decide(view, policy.initial(), Context(now_seconds=now))
    assert instances.digest() == digest
    assert decision == policy.decide(view, policy.initial(), Context(now_seconds=now, scratch={"warm": 1}))
    return decision.plan


@pytest.mark.parametrize(
    ("columns", "chosen", "runner_up"),
    [
        ({"running": [3, 1, 2]}, "shop/b", "shop/c"),
        ({"waiting": [0, 4, 4], "running": [3, 0, 1]}, "shop/a", "shop/b"),
        ({"pending": [2, 1, 0], "running": [0, 0, 3]}, "shop/b", "shop/a"),
        ({"running": [2, 0], "route_weight": [0.8, 0.2]}, "shop/a", "shop/b"),
        ({"running": [5, 0], "route_weight": [0.8, 0.2]}, "shop/b", "shop/a"),
        ({"running": [1, 1]}, "shop/a", "shop/b"),
        ({"running": [0, 9, 9], "ready": [0, 1, 1], "waiting": [0, 1, 0]}, "shop/c", "shop/b"),
        ({"running": [0, 9], "route_weight": [0, 1]}, "shop/b", ""),
        ({"running": [0, 9], "kv_capacity_tokens": [109, 110]}, "shop/b", ""),
        ({"running": [NAN, 0, 0], "pending": [1, 0, 2]}, "shop/b", "shop/a"),
        ({"running": [5, 5], "kv_capacity_tokens": [NAN, 100]}, "shop/a", ""),
        ({"running": [5, 0], "route_weight": [1, NAN]}, "shop/a", ""),
        ({"running": [5, 0], "ready": [1, NAN]}, "shop/a", ""),
    ],
    ids=[
        "fewest running", "waiting counts", "pending counts", "a heavier row may have more",
        "but not any number more", "equals: the first", "not ready is passed over", "weight zero is passed over",
        "too small a KV cache is passed over", "unreported load counts as what is pending",
        "an unreported KV cache is trusted", "no weight, no request", "readiness unknown, no request",
    ],
)  # fmt: skip
def test_choice_and_runner_up(columns: dict[str, Sequence[float]], chosen: str, runner_up: str) -> None:
    (action,) = decide(table(**columns)).actions
    assert isinstance(action, Dispatch)
    assert (action.instance, action.runner_up, action.code) == (chosen, runner_up, "LeastOutstanding")
    assert math.isfinite(action.score)
    if runner_up:
        assert action.runner_up_score >= action.score
        sentence = explain(action, "shop/chat").against[0]
        assert sentence.choice == runner_up
    else:
        assert explain(action, "shop/chat").against == ()


@given(st.integers(2, 6), st.data())
def test_the_runner_up_is_the_choice_once_the_choice_is_forbidden(size: int, data: st.DataObject) -> None:
    counts = st.lists(st.integers(0, 9), min_size=size, max_size=size)
    columns = {
        "running": data.draw(counts),
        "pending": data.draw(counts),
        "route_weight": data.draw(st.lists(st.sampled_from([0.1, 0.5, 1.0]), min_size=size, max_size=size)),
    }
    (first,) = decide(table(**columns)).actions
    assert isinstance(first, Dispatch)
    ready = [float(f"shop/{chr(97 + k)}" != first.instance) for k in range(size)]
    (second,) = decide(table(**columns, ready=ready)).actions
    assert isinstance(second, Dispatch)
    assert (second.instance, second.score) == (first.runner_up, first.runner_up_score)


@pytest.mark.parametrize(
    ("columns", "more", "code", "retry_after", "numbers"),
    [
        ({"ready": [0, 0]}, {}, "HoldNoInstance", None, [1, 0, 10]),
        ({"ready": []}, {"held": 4}, "HoldNoInstance", None, [1, 4, 10]),
        ({"ready": [0]}, {"held": 10}, "RejectCap", 9.0, [9, 10, 10]),
        ({"ready": [0]}, {"held": 10, "wake_seconds": 33.0}, "RejectCap", 33.0, [33, 10, 10]),
        ({"ready": [0]}, {"now": 64.0}, "RejectDeadline", 9.0, [1, 60, 60]),
        ({"kv_capacity_tokens": [90, 109]}, {}, "RejectTooLong", 0.0, [110, 2, 109]),
    ],
    ids=[
        "none ready",
        "none at all",
        "queue full",
        "queue full, start known",
        "too late",
        "too long for all",
    ],
)
def test_when_nobody_can_take_it(
    columns: dict[str, Sequence[float]],
    more: dict[str, float],
    code: str,
    retry_after: float | None,
    numbers: list[float],
) -> None:
    plan = decide(table(**columns), **more)  # type: ignore[arg-type]
    (action,) = plan.actions
    (reason,) = plan.reasons
    assert action.reason == 0
    assert reason.code == code
    assert all(quantity is not None for quantity in (reason.need, reason.have, reason.limit))
    assert [quantity.value for quantity in (reason.need, reason.have, reason.limit)] == numbers
    if retry_after is None:
        assert isinstance(action, Hold)
    else:
        assert isinstance(action, Reject)
        assert (action.code, action.retry_after_seconds) == (code, retry_after)
