"""Many models on one inventory: against enumeration, after losses, interrupted, and what is told of shortages."""

import itertools
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.selection.checker import exposed_dollars
from placement.selection.fleet import FleetPlan, FleetProblem, ModelNeed, NodeOffer
from placement.selection.fleet_checker import check_plan
from placement.selection.many import Memory, solve_fleet
from placement.selection.mix import solve_mix
from placement.selection.problem import MixProblem, RequestClass, SelectionInputError, VariantOption
from tests.placement.mixes import OPTIONS, unserved_penalty

SHARED = {"big": 3, "mid": 4, "small": 5}


def need(name: str, demand=(8.0, 4.0, 1.0), priority: int = 0, **changes) -> ModelNeed:
    task = MixProblem(demand=demand, variants=OPTIONS, inventory={}, unserved_dollars=50.0, headroom=False)
    return ModelNeed(name=name, priority=priority, problem=msgspec.structs.replace(task, **changes))


def fleet(*models: ModelNeed, **changes) -> FleetProblem:
    return FleetProblem(**{"models": models, "inventory": SHARED, **changes})


def enumerated(problem: FleetProblem, most: int) -> float:
    """Least objective over all joint count vectors: each model's by enumeration, combined by shared use."""
    states: dict[tuple[float, ...], float] = {}
    pools = sorted(problem.inventory)
    domains = sorted(problem.budget_watts)
    states[(0.0,) * (len(pools) + len(domains))] = 0.0
    for model in problem.models:
        task = model.problem
        own: dict[tuple[float, ...], float] = {}
        for counts in itertools.product(range(most + 1), repeat=len(task.variants)):
            named = {option.name: n for option, n in zip(task.variants, counts, strict=True)}
            paired = list(zip(counts, task.variants, strict=True))
            use = tuple(sum(n * o.gpus for n, o in paired if o.pool == pool) for pool in pools)
            use += tuple(sum(n * o.watts for n, o in paired if o.domain == domain) for domain in domains)
            if not _fits(problem, use):
                continue
            cost = sum(0.0 if o.pool in problem.whole_nodes else n * o.dollars_per_hour for n, o in paired)
            cost += sum(o.startup_dollars * max(0, n - o.standing_units) for n, o in paired)
            cost += unserved_penalty(task, counts) + exposed_dollars(task, named)
            own[use] = min(cost, own.get(use, math.inf))
        joined: dict[tuple[float, ...], float] = {}
        for (one, cost), (other, more) in itertools.product(states.items(), own.items()):
            use = tuple(a + b for a, b in zip(one, other, strict=True))
            if _fits(problem, use):
                joined[use] = min(cost + more, joined.get(use, math.inf))
        states = joined
    return min(cost + _nodes(problem, dict(zip(pools, use, strict=False))) for use, cost in states.items())


def _fits(problem: FleetProblem, use: tuple[float, ...]) -> bool:
    limits = [*(problem.inventory[p] for p in sorted(problem.inventory))]
    limits += [problem.budget_watts[d] for d in sorted(problem.budget_watts)]
    return all(limit is None or used <= limit + 1e-9 for used, limit in zip(use, limits, strict=True))


def _nodes(problem: FleetProblem, used: dict[str, float]) -> float:
    total = 0.0
    for pool, offer in problem.whole_nodes.items():
        nodes = math.ceil(used[pool] / offer.gpus)
        if nodes * offer.gpus > (problem.inventory[pool] or math.inf):
            return math.inf
        total += nodes * offer.dollars_per_hour
    return total


def sound(problem: FleetProblem, plan: FleetPlan) -> None:
    assert check_plan(problem, plan) == ()
    assert plan.bound <= plan.objective_per_hour + 1e-6


def test_alone_on_plenty_each_model_has_its_own_optimum():
    roomy = fleet(need("a"), need("b", (1.0, 2.0, 0.5)), inventory=dict.fromkeys(SHARED))
    plan = solve_fleet(roomy)
    sound(roomy, plan)
    for model in roomy.models:
        alone = solve_mix(msgspec.structs.replace(model.problem, inventory=roomy.inventory))
        assert plan.solutions[model.name].objective_per_hour == pytest.approx(alone.objective_per_hour)
    assert (plan.shortages, plan.optimal) == ((), True)


def test_scarce_pools_go_where_they_save_most():
    tight = fleet(need("a"), need("b", (1.0, 2.0, 3.0)), need("c", (9.0, 1.0, 0.0)))
    plan = solve_fleet(tight)
    sound(tight, plan)
    assert plan.optimal
    assert plan.objective_per_hour == pytest.approx(enumerated(tight, 5))
    assert plan.prices["big"] > 0.0  # only the big one serves the last size well


@pytest.mark.parametrize("pool", sorted(SHARED))
def test_more_of_a_pool_never_costs_more(pool):
    tight = fleet(need("a"), need("b", (1.0, 2.0, 3.0)), need("c", (9.0, 1.0, 0.0)))
    more = msgspec.structs.replace(tight, inventory={**SHARED, pool: SHARED[pool] + 1})
    assert solve_fleet(more).objective_per_hour <= solve_fleet(tight).objective_per_hour + 1e-9


@pytest.mark.parametrize("lost", sorted(SHARED))
def test_a_lost_pool_leaves_a_sound_plan_that_states_what_is_short(lost):
    tight = fleet(need("a"), need("b", (1.0, 2.0, 3.0)), need("c", (9.0, 1.0, 0.0)))
    memory = Memory()
    solve_fleet(tight, memory)
    less = msgspec.structs.replace(tight, inventory={**SHARED, lost: 0})
    warm, cold = solve_fleet(less, memory), solve_fleet(less)
    sound(less, warm)
    assert warm.objective_per_hour == pytest.approx(cold.objective_per_hour)
    assert warm.objective_per_hour == pytest.approx(enumerated(less, 5))
    assert all(each.sentence and each.requests_per_second > 0.0 for each in warm.shortages)
    assert warm.shortages


def test_the_stated_cure_cures():
    tight = fleet(need("a"), need("b", (1.0, 2.0, 3.0)), inventory={"big": 1, "mid": 1, "small": 1})
    plan = solve_fleet(tight)
    assert plan.shortages
    more = dict(tight.inventory)
    for short in plan.shortages:
        for pool, gpus in short.cure.items():
            more[pool] += gpus
    cured = solve_fleet(msgspec.structs.replace(tight, inventory=more))
    assert cured.shortages == ()


def test_a_size_that_nobody_serves_is_told_as_such_and_the_rest_is_served():
    only_small = need("a", (3.0, 0.0, 2.0), variants=OPTIONS[2:])
    plan = solve_fleet(fleet(only_small))
    assert [each.cure for each in plan.shortages] == [{}]
    assert "2 of them are of sizes that no variant serves" in plan.shortages[0].sentence
    assert plan.solutions["a"].counts == {"small": 1}


def test_load_worth_less_than_a_gpu_is_shed_with_free_gpus_said():
    cheap = need("a", (0.1, 0.0, 0.0), unserved_dollars=1.0)
    plan = solve_fleet(fleet(cheap))
    assert plan.solutions["a"].counts == {}
    assert "GPUs are free, but cost more than the load is worth" in plan.shortages[0].sentence


def test_interrupted_at_once_everybody_keeps_the_floor_and_the_rest_is_stated():
    small = tuple(msgspec.structs.replace(each, min_units=1 if each.name == "mid" else 0) for each in OPTIONS)
    tight = fleet(need("a", variants=small), need("b"))
    plan = solve_fleet(tight, interrupted=lambda: True)
    sound(tight, plan)
    assert plan.solutions["a"].counts.get("mid", 0) >= 1
    assert not plan.optimal
    assert {each.model for each in plan.shortages} >= {"b"}


def test_work_units_end_the_search_with_what_there_is():
    tight = fleet(*(need(f"m{k}", (1.0 + k, 2.0, 0.3 * k)) for k in range(6)), work_units=8)
    plan = solve_fleet(tight)
    sound(tight, plan)
    assert plan.units_used <= 8 + 60
    better = solve_fleet(msgspec.structs.replace(tight, work_units=60_000))
    assert better.objective_per_hour <= plan.objective_per_hour + 1e-9


def test_floors_that_do_not_fit_are_kept_for_the_more_important():
    floor = tuple(msgspec.structs.replace(each, min_units=2 if each.name == "big" else 0) for each in OPTIONS)
    tight = fleet(need("a", variants=floor), need("b", variants=floor, priority=5))
    plan = solve_fleet(tight)
    sound(tight, plan)
    assert plan.relaxed == ("a",)
    assert plan.solutions["b"].counts["big"] >= 2


def test_nodes_are_bought_whole_where_a_pool_is_sold_by_the_node():
    tight = fleet(
        need("a"),
        need("b", (1.0, 2.0, 3.0)),
        inventory={"big": 8, "mid": 4, "small": 5},
        whole_nodes={"big": NodeOffer(gpus=4, dollars_per_hour=12.0)},
    )
    plan = solve_fleet(tight)
    sound(tight, plan)
    assert plan.objective_per_hour == pytest.approx(enumerated(tight, 5))
    used = sum(each.counts.get("big", 0) for each in plan.solutions.values())
    assert plan.nodes.get("big", 0) == math.ceil(used / 4)


def test_watts_of_a_domain_are_shared():
    hot = tuple(
        msgspec.structs.replace(each, watts=700.0 if each.name == "big" else 150.0, domain="row")
        for each in OPTIONS
    )
    tight = fleet(
        need("a", variants=hot), need("b", (1.0, 2.0, 3.0), variants=hot), budget_watts={"row": 2000.0}
    )
    plan = solve_fleet(tight)
    sound(tight, plan)
    assert plan.objective_per_hour == pytest.approx(enumerated(tight, 5))
    assert plan.watt_prices["row"] > 0.0


def test_promises_hold_among_many():
    sure = (RequestClass(name="x", cells=(0,), survives_loss=True),)
    tight = fleet(
        need("a", (3.0, 1.0, 0.0), classes=sure),
        need("b", (2.0, 1.0, 0.5)),
        inventory={"big": 2, "mid": 2, "small": 2},
    )
    plan = solve_fleet(tight)
    sound(tight, plan)
    assert plan.objective_per_hour == pytest.approx(enumerated(tight, 2))


def test_the_order_of_models_pools_and_variants_does_not_matter():
    one = fleet(need("a"), need("b", (1.0, 2.0, 3.0)), need("c", (9.0, 1.0, 0.0)))
    other = fleet(
        *(
            msgspec.structs.replace(
                each, problem=msgspec.structs.replace(each.problem, variants=each.problem.variants[::-1])
            )
            for each in one.models[::-1]
        ),
        inventory=dict(reversed(SHARED.items())),
    )
    first, second = solve_fleet(one), solve_fleet(other)
    assert first.objective_per_hour == pytest.approx(second.objective_per_hour)


def test_a_model_without_any_usable_variant_is_stated_not_dropped():
    odd = need("odd", variants=(msgspec.structs.replace(OPTIONS[0], dollars_per_hour=0.0),))
    both = fleet(odd, need("a", (1.0, 0.0, 0.0)))
    plan = solve_fleet(both)
    assert [each.code for each in plan.solutions["odd"].rejections] == ["PriceMissing"]
    assert {each.model for each in plan.shortages} == {"odd"}
    assert sum(plan.solutions["a"].counts.values()) == 1
    assert check_plan(both, plan) == ()


def test_no_models_is_an_empty_plan():
    assert solve_fleet(fleet()).objective_per_hour == 0.0


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        pytest.param(fleet(need("a"), need("a")), "model 'a' occurs twice", id="two of a name"),
        pytest.param(fleet(inventory={"big": -1}), "inventory of pool 'big' is -1 GPUs", id="less than nothing"),
        pytest.param(fleet(budget_watts={"row": math.inf}), "budget of power domain 'row' is inf", id="endless watts"),
        pytest.param(fleet(whole_nodes={"big": NodeOffer(gpus=0, dollars_per_hour=1.0)}), "nodes of pool 'big' have 0 GPUs", id="empty nodes"),
        pytest.param(fleet(need("a", (math.nan, 1.0, 1.0))), "demand of cell 0 is nan", id="no number"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said(problem, sentence):
    with pytest.raises(SelectionInputError, match=sentence):
        solve_fleet(problem)


@st.composite
def fleets(draw):
    speeds = st.sampled_from([0.0, 0.8, 2.0, 5.0])
    models = []
    for name in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        options = tuple(
            VariantOption(
                name=kind,
                pool=pool,
                gpus=gpus,
                dollars_per_hour=draw(st.sampled_from([0.7, 2.0, 3.9])) * gpus,
                throughput=tuple(draw(speeds) for _ in range(2)),
                concurrency=20.0,
                standing_units=draw(st.integers(0, 1)),
                startup_dollars=draw(st.sampled_from([0.0, 0.4])),
            )
            for kind, pool, gpus in (("x1", "x", 1), ("x2", "x", 2), ("y1", "y", 1))
        )
        task = MixProblem(
            demand=tuple(draw(st.sampled_from([0.0, 1.0, 3.0])) for _ in range(2)),
            variants=options,
            inventory={},
            unserved_dollars=draw(st.sampled_from([2.0, 30.0])),
            headroom=draw(st.booleans()),
        )
        models.append(ModelNeed(name=name, problem=task))
    inventory = {"x": draw(st.integers(0, 4)), "y": draw(st.integers(0, 3))}
    return FleetProblem(models=tuple(models), inventory=inventory)


@settings(max_examples=30, deadline=None)
@given(problem=fleets())
def test_random_fleets_match_enumeration(problem):
    plan = solve_fleet(problem)
    sound(problem, plan)
    best = enumerated(problem, 4)
    assert plan.bound <= best + 1e-6
    assert plan.objective_per_hour == pytest.approx(best, rel=1e-6, abs=1e-6)


def dearer_now(share: float, lost: float = 0.0) -> tuple[FleetPlan, FleetPlan]:
    """The best plan on plenty, and that of a fleet that runs one spare unit each, when a pool may have lost some."""
    names = ("a", "b")
    plenty = {pool: 20 * gpus for pool, gpus in SHARED.items()}
    best = solve_fleet(fleet(*(need(name) for name in names), inventory=plenty))
    standing = []
    for name in names:
        counts = best.solutions[name].counts
        first = min(counts)
        options = tuple(
            msgspec.structs.replace(o, standing_units=counts.get(o.name, 0) + (o.name == first))
            for o in need(name).problem.variants
        )
        demand = tuple((1.0 + lost) * rate for rate in need(name).problem.demand)
        standing.append(need(name, demand=demand, variants=options))
    again = solve_fleet(fleet(*standing, keep_share=share, inventory=plenty))
    return best, again


@pytest.mark.parametrize(("share", "kept"), [(0.0, False), (0.01, False), (10.0, True)])
def test_what_runs_stays_while_it_costs_little_more(share, kept):
    best, again = dearer_now(share)
    units = [sum(plan.solutions[name].counts.values()) for plan in (best, again) for name in ("a", "b")]
    assert (units[2:] == [n + 1 for n in units[:2]]) is kept
    assert (again.objective_per_hour > best.objective_per_hour + 1e-6) is kept


def test_what_runs_does_not_stay_where_it_leaves_more_unserved():
    _, again = dearer_now(0.1, lost=3.0)
    assert again.shortages == ()
