"""Exact selection: tables of small cases, and random ones against brute force."""

import itertools
import math
import random
import re

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.selection.checker import check
from placement.selection.mix import forced_objectives, runner_up, solve_mix, solve_ranked
from placement.selection.problem import MixProblem, MixSolution, SelectionInputError, VariantOption
from tests.placement.mixes import OPTIONS, brute_force, problem


@pytest.mark.parametrize(
    ("changes", "counts", "cost"),
    [
        pytest.param(
            {"headroom": False}, {"big": 1, "mid": 1, "small": 3}, 7.6, id="fractional routing fills a mix"
        ),
        pytest.param({"demand": (0.0, 0.0, 0.0)}, {}, 0.0, id="no demand, nothing runs"),
        pytest.param(
            {"demand": (0.0, 0.0, 0.0), "min_units": 2}, {"small": 2}, 1.4, id="a floor buys the cheapest"
        ),
        pytest.param(
            {"demand": (0.0, 0.0, 2.0), "headroom": False}, {"big": 1}, 4.0, id="only the big one can"
        ),
        pytest.param(
            {"demand": (2.0, 0.0, 0.0), "headroom": False, "max_units": 1},
            {"small": 1},
            0.7,
            id="a ceiling is kept",
        ),
        pytest.param(
            {"demand": (9.0, 0.0, 0.0), "headroom": False, "inventory": {"big": 4, "mid": 4, "small": 2}},
            {"mid": 1, "small": 2},
            2.9,
            id="scarce cheap GPUs are used first",
        ),
    ],
)
def test_small_cases(changes, counts, cost):
    task = problem(**changes)
    found = solve_mix(task)
    assert check(task, found) == ()
    assert found.counts == counts
    assert found.cost_per_hour == pytest.approx(cost)
    assert found.optimal
    assert found.bound == pytest.approx(found.objective_per_hour)


def test_headroom_costs_more_and_small_pools_most():
    off, on = solve_mix(problem(headroom=False)), solve_mix(problem(headroom=True))
    assert on.cost_per_hour > off.cost_per_hour
    many = tuple(rate * 100 for rate in problem().demand)
    ratio = (
        solve_mix(problem(demand=many)).cost_per_hour
        / solve_mix(problem(demand=many, headroom=False)).cost_per_hour
    )
    assert ratio < on.cost_per_hour / off.cost_per_hour


def test_scarcity_sheds_the_cheapest_load_and_says_what_binds():
    task = problem(
        inventory={"big": 1, "mid": 0, "small": 0},
        cell_unserved_dollars=(50.0, 500.0, 5000.0),
        headroom=False,
    )
    found = solve_mix(task)
    assert check(task, found) == ()
    assert found.counts == {"big": 1}
    assert found.binding == ("big",)
    assert found.unserved[2] == 0.0
    assert found.unserved[0] == 1.0
    assert found.unserved[1] == pytest.approx(1 - 0.5 * 5 / 4)
    assert [each.code for each in found.rejections] == ["NoInventory", "NoInventory"]


def test_dearer_than_its_price_load_is_left():
    task = problem(demand=(0.0, 0.0, 0.001), unserved_dollars=1.0)
    found = solve_mix(task)
    assert found.counts == {}
    assert found.objective_per_hour == pytest.approx(0.001)


@pytest.mark.parametrize("rate", [1e-6, 1e-8, 1e-10, 1e-13])
def test_load_within_the_solvers_tolerance_is_not_routed_to_a_variant_without_units(rate):
    task = problem(demand=(2.0, 0.0, rate))
    solution = solve_mix(task)
    assert check(task, solution) == ()
    assert solution.counts == {"small": 2}
    assert solution.unserved == pytest.approx((0.0, 0.0, 1.0))


def test_routing_balances_the_fill():
    task = problem(demand=(1.0, 1.0, 1.0), headroom=False, min_units=4, max_units=4)
    found = solve_mix(task)
    busy = {
        option.name: sum(
            rate * share / rate_of
            for rate, share, rate_of in zip(
                task.demand, found.routing[option.name], option.throughput, strict=True
            )
            if share
        )
        / found.counts[option.name]
        for option in OPTIONS
        if option.name in found.counts
    }
    assert max(busy.values()) == pytest.approx(found.demand_per_second / found.carried_per_second)
    assert found.carried_per_second > found.demand_per_second


@pytest.mark.parametrize(
    ("option", "code", "text"),
    [
        pytest.param(
            {"dollars_per_hour": 0.0},
            "PriceMissing",
            "price of odd is 0.0 .*set a positive price",
            id="price 0",
        ),
        pytest.param({"dollars_per_hour": math.nan}, "PriceMissing", "price of odd is nan", id="price NaN"),
        pytest.param(
            {"throughput": (1.0, math.nan, 1.0)},
            "ProfileHole",
            "odd in cell 1 is nan.*measure it again",
            id="NaN",
        ),
        pytest.param({"throughput": (1.0, -1.0, 1.0)}, "ProfileHole", "odd in cell 1 is -1", id="negative"),
        pytest.param({"throughput": (1.0,)}, "ProfileHole", "odd has 1 cells, the demand 3", id="wrong grid"),
        pytest.param(
            {"throughput": (0.0, 0.0, 0.0)}, "ProfileHole", "in none of the 3 request sizes", id="all zero"
        ),
        pytest.param(
            {"pool": "nowhere"}, "NoInventory", "pool 'nowhere' of odd is not in the inventory", id="no pool"
        ),
        pytest.param(
            {"gpus": 5}, "NoInventory", "odd takes 5 GPUs of pool 'odd', where 4 are free", id="no room"
        ),
        pytest.param({"gpus": 0}, "ProfileHole", "odd takes 0 GPUs", id="no GPU"),
        pytest.param({"concurrency": 0.0}, "ProfileHole", "concurrency of odd is 0.0", id="no concurrency"),
    ],
)
def test_a_bad_column_is_refused_by_name_and_the_rest_goes_on(option, code, text):
    odd = VariantOption(
        **{
            "name": "odd",
            "pool": "odd",
            "dollars_per_hour": 0.01,
            "throughput": (9.0, 9.0, 9.0),
            "concurrency": 9,
            **option,
        }
    )
    inventory = {"big": None, "mid": None, "small": None, "odd": 4}
    found = solve_mix(problem(variants=(*OPTIONS, odd), inventory=inventory))
    assert found.counts == solve_mix(problem()).counts
    (refused,) = found.rejections
    assert (refused.variant, refused.code) == ("odd", code)
    assert re.search(text, refused.sentence)
    assert refused.alternative().code == code


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param({"demand": (1.0, math.nan, 1.0)}, "demand of cell 1 is nan", id="NaN demand"),
        pytest.param({"demand": (1.0, 1.0, -1.0)}, "demand of cell 2 is -1", id="negative demand"),
        pytest.param({"demand": (math.inf, 1.0, 1.0)}, "demand of cell 0 is inf", id="infinite demand"),
        pytest.param(
            {"unserved_dollars": 0.0}, "unserved_dollars is 0.0; give a positive price", id="free shedding"
        ),
        pytest.param({"cell_unserved_dollars": (1.0,)}, "1 entries for 3 cells", id="too few prices"),
        pytest.param(
            {"inventory": {"big": -1, "mid": 1, "small": 1}}, "pool 'big' is -1 GPUs", id="negative inventory"
        ),
        pytest.param(
            {"min_units": 3, "max_units": 2}, "max_units 2 is below min_units 3", id="crossed bounds"
        ),
        pytest.param(
            {"variants": (msgspec.structs.replace(OPTIONS[0], min_units=2, max_units=1),)},
            "allows 1 units",
            id="crossed units",
        ),
        pytest.param({"variants": (OPTIONS[0], OPTIONS[0])}, "variant 'big' occurs twice", id="a name twice"),
    ],
)
def test_senseless_problems_are_refused_with_a_sentence(changes, text):
    with pytest.raises(SelectionInputError, match=text):
        solve_mix(problem(**changes))


def test_without_usable_variants_all_load_is_unserved_and_says_why():
    found, second = solve_ranked(problem(variants=(), inventory={}), 2)
    assert found.feasible
    assert found.unserved == (1.0, 1.0, 1.0)
    assert found.objective_per_hour == pytest.approx(13_000.0)
    assert "no variant can be used" in found.why
    assert not second.feasible


def test_a_floor_that_does_not_fit_is_stated():
    found = solve_mix(problem(min_units=5, inventory={"big": 1, "mid": 1, "small": 1}))
    assert not found.feasible
    assert "no mix of at least 5 replicas fits" in found.why


def test_the_runner_up_of_the_only_mix_does_not_exist():
    task = problem(variants=OPTIONS[:1], inventory={"big": 1}, min_units=1)
    best = solve_mix(task)
    assert best.counts == {"big": 1}
    second = runner_up(task, best)
    assert not second.feasible
    assert "besides the forbidden" in second.why


def test_order_of_columns_and_pools_does_not_matter():
    task = problem(variants=tuple(reversed(OPTIONS)), inventory={"small": None, "mid": None, "big": None})
    assert solve_ranked(task, 2) == solve_ranked(problem(), 2)


def test_problem_and_solution_survive_json():
    task = problem()
    found = solve_mix(task)
    assert msgspec.json.decode(msgspec.json.encode(task), type=MixProblem) == task
    assert msgspec.json.decode(msgspec.json.encode(found), type=MixSolution) == found


def test_out_of_work_keeps_the_incumbent_and_an_honest_bound():
    demand = tuple(rate * 20 for rate in problem().demand)
    full, short = solve_mix(problem(demand=demand)), solve_mix(problem(demand=demand, work_units=1))
    assert short.feasible
    assert check(problem(demand=demand), short) == ()
    assert not short.optimal
    assert short.bound <= full.objective_per_hour + 1e-9 <= short.objective_per_hour + 2e-9


def test_load_nobody_can_serve_does_not_blur_the_bounds():
    variants = tuple(
        msgspec.structs.replace(each, throughput=(*each.throughput[:2], 0.0)) for each in OPTIONS
    )
    demand = tuple(rate * 20 for rate in problem().demand)
    found = solve_mix(problem(demand=demand, variants=variants))
    assert found.unserved == (0.0, 0.0, 1.0)
    assert found.objective_per_hour == pytest.approx(found.cost_per_hour + 20_000)
    assert found.units_used <= 40


def test_a_gap_is_kept():
    demand = tuple(rate * 37 for rate in problem().demand)
    exact = solve_mix(problem(demand=demand)).objective_per_hour
    loose = solve_mix(problem(demand=demand, relative_gap=0.05))
    assert exact - 1e-9 <= loose.objective_per_hour <= exact * 1.05
    assert not loose.optimal


rates = st.one_of(st.just(0.0), st.floats(0.05, 6.0))
speeds = st.one_of(st.just(0.0), st.floats(0.3, 8.0))


@st.composite
def tasks(draw) -> MixProblem:
    cells = draw(st.integers(1, 4))
    variants, inventory = [], {}
    for v in range(draw(st.integers(1, 3))):
        pool = draw(st.sampled_from(["shared", f"own{v}"]))
        inventory[pool] = draw(st.integers(1, 4))
        variants.append(
            VariantOption(
                name=f"v{v}",
                pool=pool,
                gpus=draw(st.integers(1, 2)),
                dollars_per_hour=draw(st.floats(0.2, 8.0)),
                throughput=tuple(draw(st.lists(speeds, min_size=cells, max_size=cells))),
                concurrency=draw(st.floats(2, 100)),
                max_units=draw(st.one_of(st.none(), st.integers(1, 3))),
            )
        )
    return MixProblem(
        demand=tuple(draw(st.lists(rates, min_size=cells, max_size=cells))),
        variants=tuple(variants),
        inventory=inventory,
        unserved_dollars=draw(st.floats(1.0, 50.0)),
        headroom=draw(st.booleans()),
        min_units=draw(st.integers(0, 2)),
        max_units=draw(st.one_of(st.none(), st.integers(2, 4))),
    )


@settings(max_examples=40)
@given(task=tasks())
def test_random_cases_match_brute_force_and_so_does_the_runner_up(task):
    found, second = solve_ranked(task, 2)
    usable = {option.name for option in task.variants} - {each.variant for each in found.rejections}
    limited = msgspec.structs.replace(task, variants=tuple(v for v in task.variants if v.name in usable))
    expected = brute_force(limited, 4)
    for solution, reference in itertools.zip_longest((found, second), expected):
        assert solution.feasible == (reference is not None)
        if reference is not None:
            assert solution.objective_per_hour == pytest.approx(reference[0], rel=1e-6, abs=1e-6)
            assert check(task, solution) == ()
            assert solution.optimal
    if found.feasible:
        again = runner_up(task, found)
        assert again.feasible == second.feasible
        if again.feasible:
            assert again.counts != found.counts
            assert again.objective_per_hour == pytest.approx(second.objective_per_hour, rel=1e-6, abs=1e-6)


@settings(max_examples=30)
@given(task=tasks(), more=st.integers(1, 3))
def test_more_inventory_never_costs_more(task, more):
    wider = msgspec.structs.replace(
        task, inventory={pool: gpus + more for pool, gpus in task.inventory.items()}
    )
    found, better = solve_mix(task), solve_mix(wider)
    if found.feasible and found.rejections == better.rejections:
        assert better.objective_per_hour <= found.objective_per_hour + 1e-6


@settings(max_examples=30)
@given(task=tasks(), share=st.floats(0.1, 1.0))
def test_less_load_never_costs_more(task, share):
    lighter = msgspec.structs.replace(task, demand=tuple(rate * share for rate in task.demand))
    found, less = solve_mix(task), solve_mix(lighter)
    if found.feasible:
        assert less.objective_per_hour <= found.objective_per_hour + 1e-6


@settings(max_examples=20)
@given(task=tasks())
def test_forcing_a_variant_costs_what_a_solve_with_its_floor_costs(task):
    forced = forced_objectives(task, tuple(option.name for option in task.variants))
    refused = {each.variant for each in solve_mix(task).rejections}
    for option in task.variants:
        if option.name in refused:
            assert forced[option.name] is None
            continue
        asked = tuple(
            msgspec.structs.replace(each, min_units=1) if each is option else each for each in task.variants
        )
        alone = solve_mix(msgspec.structs.replace(task, variants=asked))
        assert alone.feasible == (forced[option.name] is not None)
        if alone.feasible:
            assert forced[option.name] == pytest.approx(alone.objective_per_hour, rel=1e-6, abs=1e-6)


def test_where_no_counts_keep_the_limits_no_forced_mix_does():
    shared = tuple(msgspec.structs.replace(option, pool="shared") for option in OPTIONS[:2])
    task = problem(min_units=2, variants=shared, inventory={"shared": 1})
    assert not solve_mix(task).feasible
    assert forced_objectives(task, ("big", "mid")) == {"big": None, "mid": None}


def test_large_random_cases_keep_their_checks_and_bounds():
    rng = random.Random(3)
    for _ in range(6):
        cells = 30
        variants = tuple(
            VariantOption(
                name=f"v{v}",
                pool=f"p{v % 4}",
                gpus=1 + v // 4,
                dollars_per_hour=rng.uniform(0.5, 9) * (1 + v // 4),
                throughput=tuple(
                    rng.uniform(0.5, 9) * (1 + v // 4) if rng.random() > 0.1 else 0.0 for _ in range(cells)
                ),
                concurrency=rng.uniform(8, 120),
            )
            for v in range(8)
        )
        task = MixProblem(
            demand=tuple(rng.uniform(0, 4) for _ in range(cells)),
            variants=variants,
            inventory={f"p{k}": rng.randint(4, 30) for k in range(4)},
            unserved_dollars=200.0,
        )
        found, second = solve_ranked(task, 2)
        assert check(task, found) == check(task, second) == ()
        assert found.objective_per_hour <= second.objective_per_hour
        assert runner_up(task, found).objective_per_hour == pytest.approx(second.objective_per_hour, rel=1e-6)


def test_with_headroom_types_that_are_each_best_for_some_sizes_are_planned_with_a_proof():
    rng = np.random.default_rng(1)
    demand = rng.dirichlet(np.ones(60)) * 5.0
    base = 3.0 / np.outer(np.arange(1, 11), np.arange(1, 7))
    options = []
    for number in range(12):
        price = round(float(rng.uniform(0.5, 8.0)), 2)
        rates = base * price**0.95 * np.exp(0.3 * rng.standard_normal((10, 6)))
        options.append(
            VariantOption(
                name=f"g{number}", pool=f"g{number}", dollars_per_hour=price,
                throughput=tuple(rates.ravel().tolist()), concurrency=10.0 + 15.0 * price,
            )
        )  # fmt: skip
    task = MixProblem(
        demand=tuple(demand.tolist()), variants=tuple(options), inventory={each.name: None for each in options},
        unserved_dollars=1e5, work_units=150,
    )  # fmt: skip
    solution = solve_mix(task)
    assert check(task, solution) == ()
    assert solution.optimal
    assert solution.objective_per_hour == pytest.approx(28.1)
