"""Why this mix: what else was possible, and what each alternative would have cost.

Every figure is a solved problem, not an estimate: forcing one unit of a variant, adding one unit's GPUs to a pool,
or serving the same load with one variant alone.
"""

from __future__ import annotations

import msgspec

from cluster.base import Noun
from placement.selection.headroom import least_units
from placement.selection.mix import forced_objectives, solve_mix
from placement.selection.problem import MixProblem, MixSolution, Rejection, VariantOption, rejection, screen


class SinglePlan(Noun, kw_only=True, frozen=True):
    """The same load on one variant alone. ``within_inventory`` False: it needs more GPUs than are free."""

    variant: str
    units: int
    cost_per_hour: float
    within_inventory: bool


def single_plans(problem: MixProblem) -> tuple[SinglePlan, ...]:
    """Plans that carry all demand with one variant, cheapest first; those within the inventory come first.

    A variant that keeps the objective for some of the demand only is left out, and one on spot where a class may not be
    served on spot alone: they cannot attain the same. Where a class survives the loss of a replica, so does each plan.
    Raises SelectionInputError for demand or limits that make no sense.
    """
    unlimited: dict[str, int | None] = dict.fromkeys(problem.inventory, None)
    options = screen(msgspec.structs.replace(problem, inventory=unlimited)).options
    plans = [plan for plan in (_single(problem, option) for option in options) if plan is not None]
    return tuple(
        sorted(plans, key=lambda each: (not each.within_inventory, each.cost_per_hour, each.variant))
    )


def best_single(problem: MixProblem) -> SinglePlan | None:
    """The cheapest plan with one variant alone, or None when none carries all demand."""
    plans = single_plans(problem)
    return plans[0] if plans else None


def _single(problem: MixProblem, option: VariantOption) -> SinglePlan | None:
    pairs = [pair for pair in zip(problem.demand, option.throughput, strict=True) if pair[0] > 0.0]
    if any(not throughput > 0.0 for _, throughput in pairs):
        return None
    if option.spot and any(each.spot_share < 1.0 for each in problem.classes):
        return None
    busy = sum(rate / throughput for rate, throughput in pairs)
    units = max(problem.min_units, option.min_units, least_units(busy, option.concurrency, problem.headroom))
    surviving = [cell for each in problem.classes if each.survives_loss for cell in each.cells]
    if any(problem.demand[cell] > 0.0 for cell in surviving):
        rest = sum(problem.demand[c] / option.throughput[c] for c in surviving if problem.demand[c] > 0.0)
        units = max(units, least_units(rest, option.concurrency, problem.headroom) + 1)
    free = problem.inventory[option.pool]
    most = min(
        limit
        for limit in (
            option.max_units,
            problem.max_units,
            None if free is None else free // option.gpus,
            units,
        )
        if limit is not None
    )
    return SinglePlan(
        variant=option.name,
        units=units,
        cost_per_hour=units * option.dollars_per_hour,
        within_inventory=units <= most,
    )


def rejected(problem: MixProblem, solution: MixSolution) -> tuple[Rejection, ...]:
    """A reason for each variant that the mix does not use, in name order.

    Variants that could not be used keep the reason they have; the others get PriceTooHigh with what the plan would
    cost per hour (penalties included) if one unit of them were forced in.
    """
    known = {each.variant: each for each in solution.rejections}
    unused = [
        each for each in problem.variants if each.name not in known and not solution.counts.get(each.name)
    ]
    forced = forced_objectives(problem, tuple(each.name for each in unused))
    found = [*known.values(), *(_priced(solution, option, forced[option.name]) for option in unused)]
    return tuple(sorted(found, key=lambda each: each.variant))


def _priced(solution: MixSolution, option: VariantOption, need: float | None) -> Rejection:
    if need is None:
        text = (
            f"{option.name} fits into no mix of the replicas and GPUs allowed; raise max_units or free GPUs"
        )
        return rejection(option.name, "NoInventory", option.gpus, 0, "GPU", text)
    have = solution.objective_per_hour
    text = f"with one {option.name} the plan would cost {need:.2f} $/h instead of {have:.2f} $/h"
    reason = rejection(option.name, "PriceTooHigh", need, have, "$/h", text)
    return msgspec.structs.replace(reason, cost_per_hour=need)


def pool_savings(problem: MixProblem, solution: MixSolution) -> dict[str, float]:
    """Dollars per hour (penalties included) that GPUs for one more unit in each used-up pool would save.

    Pools whose extra GPUs save nothing are left out.
    """
    savings = {}
    smallest: dict[str, int] = {}
    for option in problem.variants:
        smallest[option.pool] = min(option.gpus, smallest.get(option.pool, option.gpus))
    for pool in sorted(smallest):
        free = problem.inventory.get(pool)
        if free is None or (pool not in solution.binding and free >= smallest[pool]):
            continue
        more = dict(problem.inventory)
        more[pool] = free + smallest[pool]
        relaxed = solve_mix(msgspec.structs.replace(problem, inventory=more))
        saving = solution.objective_per_hour - relaxed.objective_per_hour
        if relaxed.feasible and saving > 1e-9:
            savings[pool] = saving
    return savings
