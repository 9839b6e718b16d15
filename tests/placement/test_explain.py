"""Explanations: each alternative's cost is a solved problem, each refusal keeps its reason."""

import msgspec
import numpy as np
import pytest

from placement.selection.explain import best_single, pool_savings, rejected, single_plans
from placement.selection.headroom import capacity_table, least_units
from placement.selection.mix import solve_mix
from placement.selection.problem import VariantOption, rejection
from tests.placement.mixes import OPTIONS, problem


def test_the_best_single_type_carries_everything_alone():
    plans = single_plans(problem(headroom=False))
    assert [(plan.variant, plan.units) for plan in plans] == [("big", 3), ("mid", 8)]
    assert plans[0].cost_per_hour == pytest.approx(12.0)
    assert best_single(problem(headroom=False)) == plans[0]


def test_headroom_needs_more_of_a_single_type():
    task = problem()
    (big, *_) = (plan for plan in single_plans(task) if plan.variant == "big")
    alone = solve_mix(problem(variants=OPTIONS[:1]))
    assert {"big": big.units} == alone.counts
    assert big.cost_per_hour == pytest.approx(alone.cost_per_hour)


def test_no_mix_costs_more_than_the_best_single_type():
    for scale in (0.1, 0.5, 1.0, 3.0, 11.0):
        task = problem(demand=tuple(rate * scale for rate in problem().demand))
        plan = best_single(task)
        assert plan is not None
        assert solve_mix(task).cost_per_hour <= plan.cost_per_hour + 1e-9


def test_a_single_type_beyond_the_inventory_is_marked_and_comes_last():
    plans = single_plans(problem(inventory={"big": 1, "mid": 50, "small": 5}))
    assert [(plan.variant, plan.within_inventory) for plan in plans] == [("mid", True), ("big", False)]


def test_nobody_alone():
    assert best_single(problem(variants=OPTIONS[2:])) is None


def test_floors_and_ceilings_bind_a_single_type_too():
    (plan, *_) = single_plans(problem(demand=(0.1, 0.0, 0.0), min_units=3))
    assert (plan.variant, plan.units) == ("small", 3)
    assert not any(plan.within_inventory for plan in single_plans(problem(max_units=1)))


def test_unused_variants_say_what_forcing_them_costs():
    task = problem(demand=(2.0, 0.0, 0.0), headroom=False)
    found = solve_mix(task)
    assert found.counts == {"small": 1}
    big, mid = rejected(task, found)
    assert (big.variant, big.code, big.cost_per_hour) == ("big", "PriceTooHigh", pytest.approx(4.0))
    assert (mid.variant, mid.cost_per_hour) == ("mid", pytest.approx(1.5))
    assert big.need.value == pytest.approx(4.0)
    assert big.have.value == pytest.approx(0.7)
    assert big.sentence == "with one big the plan would cost 4.00 $/h instead of 0.70 $/h"


def test_refused_variants_keep_their_reason():
    floor = rejection("slow", "TpotFloor", 40.0, 44.9, "ms", "slow reads its weights in 45 ms a token")
    free = VariantOption(name="free", pool="big", dollars_per_hour=0.0, throughput=(1.0, 1.0, 1.0))
    task = problem(variants=(*OPTIONS, free), excluded=(floor,))
    reasons = {each.variant: each for each in rejected(task, solve_mix(task))}
    assert reasons["slow"] == floor
    assert reasons["free"].code == "PriceMissing"
    assert reasons["slow"].alternative().facts[0].text == "40 ms"


def test_a_variant_that_no_mix_can_hold_says_so():
    task = problem(demand=(0.0, 0.0, 0.5), max_units=1, unserved_dollars=1e6)
    task = msgspec.structs.replace(
        task, variants=(OPTIONS[0], msgspec.structs.replace(OPTIONS[1], min_units=0, max_units=0))
    )
    found = solve_mix(task)
    (mid,) = rejected(task, found)
    assert (mid.code, mid.cost_per_hour) == ("NoInventory", None)


def test_one_more_gpu_saves_what_a_new_solve_saves():
    task = problem(inventory={"big": 1, "mid": 9, "small": 0}, headroom=False)
    found = solve_mix(task)
    assert found.binding == ("big",)
    richer = solve_mix(problem(inventory={"big": 1, "mid": 9, "small": 1}, headroom=False))
    assert pool_savings(task, found) == {"small": pytest.approx(0.8)}
    assert found.objective_per_hour - richer.objective_per_hour == pytest.approx(0.8)
    assert pool_savings(problem(), solve_mix(problem())) == {}


def test_a_short_pool_saves_the_shed_load_it_would_carry():
    task = problem(inventory={"big": 1, "mid": 0, "small": 0}, headroom=False)
    found = solve_mix(task)
    assert found.unserved_per_second > 0
    savings = pool_savings(task, found)
    assert set(savings) == {"big", "mid", "small"}
    assert savings["big"] > 1000


@pytest.mark.parametrize("headroom", [True, False])
@pytest.mark.parametrize("concurrency", [0.02, 1.0, 37.5])
def test_the_fewest_units_are_the_first_whose_capacity_is_enough(concurrency: float, headroom: bool) -> None:
    table = capacity_table(400, concurrency, headroom)
    for busy in (0.0, 1e-9, 0.35, 1.0, 7.3, 20.0, 99.9, 140.0):
        assert least_units(busy, concurrency, headroom) == np.searchsorted(table, busy * (1.0 - 1e-12))
    least = least_units(1e9, concurrency, headroom)
    assert 1e9 <= least <= 1e9 / 0.35 + 1
