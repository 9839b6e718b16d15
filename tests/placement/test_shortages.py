"""What a plan says would cure a shortage is true: applied and planned again, nothing is short; floors; money of any size."""

import msgspec
import numpy as np
import pytest

from placement.selection.cuts import CutPool, Multipliers
from placement.selection.fleet import FleetPlan, FleetProblem, ModelNeed, NodeOffer, Shortage
from placement.selection.fleet_checker import check_plan
from placement.selection.instance import HIGHEST_UNITS, build
from placement.selection.linear import BoxProgramme
from placement.selection.many import solve_fleet
from placement.selection.mix import solve_mix, solve_ranked
from placement.selection.problem import MixProblem, RequestClass, VariantOption
from tests.placement.mixes import OPTIONS, problem

ONE = VariantOption(
    name="one", pool="p", dollars_per_hour=2.0, throughput=(1.0,), gpus=2, watts=500.0, domain="row"
)
SPOT = VariantOption(name="spot", pool="s", dollars_per_hour=1.0, throughput=(1.0,), spot=True)
PROMISED = RequestClass(name="gold", cells=(0,), survives_loss=True)


def fleet(*variants: VariantOption, inventory: dict[str, int | None], **changes) -> FleetProblem:
    """One model of one size that asks for three units' worth."""
    shared = {
        key: changes.pop(key) for key in ("whole_nodes", "budget_watts", "work_units") if key in changes
    }
    task = MixProblem(
        demand=changes.pop("demand", (3.0,)), variants=variants, inventory={}, headroom=False, **changes
    )
    return FleetProblem(models=(ModelNeed(name="m", problem=task),), inventory=inventory, **shared)


def cured(tight: FleetProblem, shorts: tuple[Shortage, ...]) -> FleetPlan:
    """The plan with what the shortages ask for: their GPUs, 1,500 W for each, and no bound on replicas but theirs."""
    inventory = dict(tight.inventory)
    for short in shorts:
        for pool, gpus in short.cure.items():
            inventory[pool] = (inventory[pool] or 0) + gpus
    besides = " ".join(text for short in shorts for text in short.besides)
    (need,) = tight.models
    task = need.problem
    if "max_units of 3 for" in besides:
        task = msgspec.structs.replace(
            task, variants=tuple(msgspec.structs.replace(option, max_units=3) for option in task.variants)
        )
    if "max_units of 3 in all" in besides:
        task = msgspec.structs.replace(task, max_units=3)
    watts = {name: 1_500.0 if "W more" in besides else have for name, have in tight.budget_watts.items()}
    models = (msgspec.structs.replace(need, problem=task),)
    return solve_fleet(msgspec.structs.replace(tight, models=models, inventory=inventory, budget_watts=watts))


@pytest.mark.parametrize(
    ("tight", "cure", "besides"),
    [
        pytest.param(fleet(ONE, inventory={"p": 2}), {"p": 4}, (), id="a pool is too small"),
        pytest.param(
            fleet(ONE, inventory={"p": 11}, whole_nodes={"p": NodeOffer(gpus=8, dollars_per_hour=9.0)},
                  demand=(5.0,)),
            {"p": 5}, (), id="three GPUs of a node that is not whole are no node",
        ),
        pytest.param(
            fleet(ONE, inventory={"p": 8}, budget_watts={"row": 600.0}), {},
            ("900 W more in power domain row",), id="watts bind though GPUs are free",
        ),
        pytest.param(
            fleet(msgspec.structs.replace(ONE, max_units=1), inventory={"p": 2}), {"p": 4},
            ("a max_units of 3 for one",), id="a bound on the variant's replicas",
        ),
        pytest.param(
            fleet(ONE, inventory={"p": None}, max_units=2), {}, ("a max_units of 3 in all",),
            id="a bound on the model's replicas",
        ),
        pytest.param(
            fleet(ONE, inventory={"p": 2}, classes=(PROMISED,)), {"p": 6}, (),
            id="of a class that survives a loss, one more than it takes",
        ),
        pytest.param(
            fleet(ONE, inventory={"p": 6}, classes=(PROMISED,)), {"p": 2}, (), id="served, but by its last replica",
        ),
        pytest.param(
            fleet(ONE, SPOT, inventory={"p": 0, "s": 9}, classes=(RequestClass(name="c", cells=(0,), spot_share=0.0),)),
            {"p": 6}, (), id="spot is free, but the class may not use it",
        ),
    ],
)  # fmt: skip
def test_a_cure_cures(tight, cure, besides):
    plan = solve_fleet(tight)
    assert check_plan(tight, plan) == ()
    most = max(plan.shortages, key=lambda each: sum(each.cure.values()))
    assert (most.cure, most.besides) == (cure, besides)
    assert all(
        text in most.sentence for text in (*besides, *(f"{n} more GPUs of {p}" for p, n in cure.items()))
    )
    assert cured(tight, (most,)).shortages == ()


@pytest.mark.parametrize(
    ("tight", "told"),
    [
        pytest.param(
            fleet(SPOT, inventory={"s": 9}, classes=(RequestClass(name="c", cells=(0,), spot_share=0.5),)),
            "1.5 of them only spot variants serve, and the class may use those for 50%", id="nothing but spot",
        ),
        pytest.param(
            fleet(ONE, inventory={"p": 0}, unserved_dollars=1.0),
            "it would cost 6 $/h where the load is worth 3 $/h: raise its price (unserved_dollars) too",
            id="GPUs alone are no cure for load that is worth less",
        ),
        pytest.param(
            fleet(ONE, inventory={"p": 8}, work_units=0),
            "GPUs are free, but the search ended before it gave them away: allow more work_units", id="interrupted",
        ),
        pytest.param(
            fleet(msgspec.structs.replace(ONE, throughput=(1e-5,)), inventory={"p": None}),
            f"300,000 replicas of one, of which {HIGHEST_UNITS:,} are considered", id="a rate in another unit",
        ),
    ],
)  # fmt: skip
def test_what_gpus_alone_do_not_cure_is_told(tight, told):
    (short,) = solve_fleet(tight).shortages
    assert told in short.sentence


def test_a_floor_that_no_whole_node_can_hold_is_relaxed():
    tight = fleet(
        ONE, inventory={"p": 3}, whole_nodes={"p": NodeOffer(gpus=8, dollars_per_hour=9.0)}, min_units=1
    )
    plan = solve_fleet(tight)
    assert check_plan(tight, plan) == ()
    assert (plan.relaxed, plan.solutions["m"].counts) == (("m",), {})


def test_a_floor_without_any_variant_is_relaxed():
    tight = fleet(msgspec.structs.replace(ONE, dollars_per_hour=0.0), inventory={"p": 8}, min_units=1)
    plan = solve_fleet(tight)
    assert check_plan(tight, plan) == ()
    assert plan.relaxed == ("m",)


def test_a_floor_is_kept_in_another_pool_where_the_smallest_variant_has_none():
    small = msgspec.structs.replace(SPOT, name="small")
    tight = fleet(ONE, small, inventory={"p": 8, "s": 0}, min_units=2, demand=(0.0,))
    plan = solve_fleet(tight)
    assert (plan.relaxed, plan.solutions["m"].counts) == ((), {"one": 2})


@pytest.mark.parametrize("factor", [1e-8, 1e-5, 1e-2, 1e3, 1e6, 1e9])
def test_the_answer_does_not_depend_on_the_currency(factor):
    """The same prices in another money: the same two best mixes, and the same fleet."""
    dear = tuple(
        msgspec.structs.replace(
            each,
            dollars_per_hour=each.dollars_per_hour * factor,
            startup_dollars=0.3 * factor,
            standing_units=1,
        )
        for each in OPTIONS
    )
    plain = tuple(msgspec.structs.replace(each, startup_dollars=0.3, standing_units=1) for each in OPTIONS)
    here = solve_ranked(problem(variants=plain), 2)
    there = solve_ranked(problem(variants=dear, unserved_dollars=1_000.0 * factor), 2)
    assert [each.counts for each in there] == [each.counts for each in here]
    assert [each.objective_per_hour / factor for each in there] == pytest.approx(
        [each.objective_per_hour for each in here], rel=1e-9
    )
    scarce = {"big": 2, "mid": 2, "small": 3}
    task = problem(variants=dear, unserved_dollars=60.0 * factor)
    plan = solve_fleet(FleetProblem(models=(ModelNeed(name="m", problem=task),), inventory=scarce))
    alone = solve_mix(problem(variants=plain, unserved_dollars=60.0, inventory=scarce))
    assert plan.optimal
    assert plan.objective_per_hour / factor == pytest.approx(alone.objective_per_hour, rel=1e-8)


@pytest.mark.parametrize("standing", [0, 1, 3, 6])
def test_the_least_of_a_cut_over_a_range_is_that_of_all_its_counts(standing):
    """Ends and the kink where units begin to be started suffice, whatever the multipliers."""
    started = tuple(
        msgspec.structs.replace(each, startup_dollars=2.5, standing_units=standing) for each in OPTIONS
    )
    task = problem(variants=started)
    cuts = CutPool(build(task, started))
    rng = np.random.default_rng(standing)
    for _ in range(20):
        cuts.add(Multipliers(rng.uniform(0.0, 9.0, len(started)), np.zeros(0), np.zeros(0)))
    for v in range(len(started)):
        most = cuts.table(v).shape[1] - 1
        for low in range(most + 1):
            for high in range(low, most + 1):
                assert (cuts.least(v, low, high) == cuts.table(v)[:, low : high + 1].min(axis=1)).all()


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_multipliers_are_in_the_money_of_the_prices(factor):
    found = []
    for scale in (1.0, factor):
        dear = tuple(
            msgspec.structs.replace(each, dollars_per_hour=each.dollars_per_hour * scale) for each in OPTIONS
        )
        made = build(problem(variants=dear, unserved_dollars=1_000.0 * scale), dear)
        answer = BoxProgramme(made).solve(made.low, made.high)
        assert answer is not None
        found.append(answer.prices / scale)
    assert found[1] == pytest.approx(found[0], rel=1e-6)


def test_floors_of_variants_above_what_is_allowed_in_all_are_told_as_such():
    floored = tuple(msgspec.structs.replace(each, min_units=1) for each in OPTIONS)
    solution = solve_mix(problem(variants=floored, max_units=2))
    assert not solution.feasible
    assert solution.why.startswith(
        "variants ask for 3 replicas at least and max_units allows 2 in all; raise max_units"
    )
