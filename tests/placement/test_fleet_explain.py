"""Reasons of a plan of many models: runner-up, variants that are out, and what a GPU more is worth."""

import msgspec
import pytest

from placement.selection.fleet_explain import pool_savings, rejected, runner_up
from placement.selection.many import Memory, solve_fleet
from tests.placement.mixes import OPTIONS
from tests.placement.test_many import SHARED, enumerated, fleet, need

TIGHT = fleet(need("a"), need("b", (1.0, 2.0, 3.0)))
SCARCE = {"big": 1, "mid": 1, "small": 1}


def test_the_runner_ups_regret_is_what_the_plan_would_cost_more():
    plan = solve_fleet(TIGHT)
    other = runner_up(TIGHT, plan, "a")
    assert other is not None
    assert other.counts != plan.solutions["a"].counts
    assert other.regret_per_hour >= -1e-9
    pinned = tuple(
        msgspec.structs.replace(
            each, min_units=other.counts.get(each.name, 0), max_units=other.counts.get(each.name, 0)
        )
        for each in OPTIONS
    )
    rest = tuple(
        msgspec.structs.replace(
            each,
            min_units=plan.solutions["b"].counts.get(each.name, 0),
            max_units=plan.solutions["b"].counts.get(each.name, 0),
        )
        for each in OPTIONS
    )
    forced = solve_fleet(fleet(need("a", variants=pinned), need("b", (1.0, 2.0, 3.0), variants=rest)))
    assert forced.objective_per_hour == pytest.approx(plan.objective_per_hour + other.regret_per_hour)


def test_each_variant_that_is_out_has_a_reason_with_numbers():
    odd = msgspec.structs.replace(OPTIONS[0], name="odd", dollars_per_hour=0.0)
    task = fleet(need("a", variants=(*OPTIONS, odd)), need("b", (1.0, 2.0, 3.0)))
    plan = solve_fleet(task)
    reasons = {each.variant: each for each in rejected(task, plan, "a")}
    used = {name for name, count in plan.solutions["a"].counts.items() if count}
    assert set(reasons) == {"big", "mid", "small", "odd"} - used
    assert reasons["odd"].code == "PriceMissing"
    for reason in reasons.values():
        assert reason.sentence
        if reason.code == "PriceTooHigh":
            assert reason.cost_per_hour >= plan.solutions["a"].objective_per_hour - 1e-9


def test_a_variant_whose_gpus_others_need_more_says_so():
    task = fleet(
        need("a", (0.1, 0.0, 0.0)), need("b", (0.0, 0.0, 20.0), priority=1), inventory={**SHARED, "big": 2}
    )
    plan = solve_fleet(task)
    assert plan.solutions["b"].counts.get("big") == 2
    reason = next(each for each in rejected(task, plan, "a") if each.variant == "big")
    assert (reason.code, reason.have.value) == ("NoInventory", 0.0)
    assert "worth more to other models" in reason.sentence


def test_savings_of_a_gpu_are_planned_anew():
    memory = Memory()
    scarce = msgspec.structs.replace(TIGHT, inventory=SCARCE)
    plan = solve_fleet(scarce, memory)
    savings = pool_savings(scarce, plan, memory)
    assert savings
    for pool, saving in savings.items():
        more = msgspec.structs.replace(scarce, inventory={**SCARCE, pool: 2})
        assert plan.objective_per_hour - enumerated(more, 2) == pytest.approx(saving)


def test_an_unknown_model_is_said():
    with pytest.raises(KeyError, match="no model 'zz'"):
        runner_up(TIGHT, solve_fleet(TIGHT), "zz")


def test_a_model_that_nothing_serves_has_no_runner_up():
    task = fleet(need("odd", variants=(msgspec.structs.replace(OPTIONS[0], dollars_per_hour=0.0),)))
    assert runner_up(task, solve_fleet(task), "odd") is None
