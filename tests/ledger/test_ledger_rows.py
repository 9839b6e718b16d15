"""Rows from whatever the core decides, and back."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from cluster.base import Ref
from cluster.plan import Evidence
from cluster.reasons import Alternative, Quantity, Reason, Verdict
from controller.ledger import ActionId, PlanId, json_text, plan_row, reason_row


def test_a_reason_of_the_core_becomes_a_row_with_its_numbers_and_its_whole_json() -> None:
    reason = Reason(
        code="MixChosen",
        subject=Ref("ModelService", "shop/chat", uid="u1", version=12),
        verdict=Verdict.CHOSEN,
        choice="6 A100 + 2 L4",
        need=Quantity("demand", 41.2, "req/s"),
        have=Quantity("capacity", 43.0, "req/s"),
        against=(Alternative("4 H100", Quantity("cost", 3.9, "$/h")),),
        refs=(Ref("Pool", "h100-od"), Ref("Node", "n-7")),
        count=3,
    )
    row = reason_row(reason, "a sentence")
    assert (row.code, row.verdict, row.subject_kind, row.subject_name) == (
        "MixChosen",
        "chosen",
        "ModelService",
        "shop/chat",
    )
    assert (row.need, row.have, row.limit, row.count) == (41.2, 43.0, None, 3)
    assert row.refs == (("Pool", "h100-od"), ("Node", "n-7"))
    assert msgspec.json.decode(row.detail, type=Reason) == reason


def test_evidence_of_the_core_becomes_the_plan_s_numbers() -> None:
    plan = plan_row(
        PlanId(2, "planner", 7),
        5.0,
        Evidence(objective=22.2, bound=22.1, units_used=40, degraded=("demand",)),
        actions=3,
    )
    assert (plan.objective, plan.bound, plan.units_used, plan.degraded, plan.actions) == (
        22.2,
        22.1,
        40,
        True,
        3,
    )
    assert not plan_row(PlanId(2, "planner", 8), 6.0, Evidence()).degraded


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param({"b": 1, "a": np.float64(2.5)}, '{"a":2.5,"b":1}', id="a numpy scalar is a number"),
        pytest.param({"x": np.arange(3)}, '{"x":[0,1,2]}', id="a numpy array is a list"),
        pytest.param({"x": math.nan}, '{"x":null}', id="not a number is null"),
        pytest.param({"x": 1 + 2j}, '{"x":"(1+2j)"}', id="anything else is its text"),
    ],
)
def test_json_is_canonical_and_takes_what_numpy_leaves_behind(value: object, text: str) -> None:
    assert json_text(value) == text


@pytest.mark.parametrize("loop", ["planner", "power/row-1", "a b"])
def test_names_of_plans_and_actions_read_back(loop: str) -> None:
    action = ActionId(3, loop, 41, 5)
    assert ActionId.parse(str(action)) == action
    assert PlanId.parse(str(action.plan)) == PlanId(3, loop, 41)


@pytest.mark.parametrize("text", ["", "planner", "x/planner/1", "1/planner/x", "1//2", "1/2", "-1/planner/2"])
def test_a_name_that_is_none_is_refused_with_the_form_it_should_have(text: str) -> None:
    with pytest.raises(ValueError, match="EPOCH/LOOP/TICK"):
        PlanId.parse(text)


def test_ids_order_by_number_not_by_text() -> None:
    ids = [ActionId(1, "planner", 2, 10), ActionId(1, "planner", 2, 9), ActionId(1, "planner", 10, 0)]
    assert [str(i) for i in sorted(ids)] == ["1/planner/2/9", "1/planner/2/10", "1/planner/10/0"]
