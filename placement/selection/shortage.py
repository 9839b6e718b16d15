"""What a fleet's plan leaves unserved or exposed: whose, how much, and what would cure it.

Each cure is a proof: with those GPUs (and what the sentence names besides) the plan as it stands, its routing unchanged,
carries the rest as well. For unserved load each size goes to the variant where it is cheapest, on spot only where nothing
else serves it and the class may, and so many units are added that Cap grows by what it keeps busy. For exposed load one
more unit of each variant that is then in the mix: losing one leaves what was there before.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from placement.selection.fleet import FleetPlan, FleetProblem, ModelNeed, Shortage
from placement.selection.headroom import RHO_FLOOR, capacity_table
from placement.selection.instance import HIGHEST_UNITS
from placement.selection.problem import MixProblem, MixSolution, RequestClass, VariantOption

NEGLIGIBLE = 1e-7
"""Share of a class's load whose loss is rounding."""


class _Left(NamedTuple):
    """What the plan does not use: GPUs by pool (None: without limit), watts by domain, and what a node has by pool."""

    gpus: dict[str, int | None]
    watts: dict[str, float]
    node_gpus: dict[str, int]
    used: dict[str, int]


class _Units(NamedTuple):
    """Further units by variant, and requests/s that no variant serves, or none but spot beyond the class's share."""

    units: dict[str, int]
    hopeless: float
    barred: float


def shortages(problem: FleetProblem, plan: FleetPlan) -> tuple[Shortage, ...]:
    """One entry per model and class that goes short, dearest first."""
    left = _left(problem, plan)
    found: list[Shortage] = []
    for need in problem.models:
        solution = plan.solutions[need.name]
        for each in _classes(need.problem):
            short = _unserved(need, solution, each, left, plan.optimal)
            if short is not None:
                found.append(short)
        exposed = _exposed(need, solution, left)
        if exposed is not None:
            found.append(exposed)
    return tuple(sorted(found, key=lambda each: (-each.dollars_per_hour, each.model, each.request_class)))


def free_gpus(problem: FleetProblem, plan: FleetPlan) -> dict[str, int | None]:
    """GPUs of each pool that the plan does not use."""
    return _left(problem, plan).gpus


def _left(problem: FleetProblem, plan: FleetPlan) -> _Left:
    used: Counter[str] = Counter()
    watts = dict(problem.budget_watts)
    for need in problem.models:
        options = {option.name: option for option in need.problem.variants}
        for name, count in plan.solutions[need.name].counts.items():
            used[options[name].pool] += options[name].gpus * count
            if options[name].domain in watts:
                watts[options[name].domain] -= options[name].watts * count
    gpus = {pool: None if free is None else free - used[pool] for pool, free in problem.inventory.items()}
    return _Left(gpus, watts, {pool: offer.gpus for pool, offer in problem.whole_nodes.items()}, dict(used))


def _classes(problem: MixProblem) -> list[RequestClass]:
    """Classes; cells in none are one class without a name."""
    taken = {cell for each in problem.classes for cell in each.cells}
    rest = tuple(cell for cell in range(len(problem.demand)) if cell not in taken)
    return [*problem.classes, *([RequestClass(name="", cells=rest)] if rest else [])]


def _unserved(
    need: ModelNeed, solution: MixSolution, each: RequestClass, left: _Left, optimal: bool
) -> Shortage | None:
    task = need.problem
    rates = {cell: task.demand[cell] * solution.unserved[cell] for cell in each.cells}
    lost, asked = math.fsum(rates.values()), math.fsum(task.demand[cell] for cell in each.cells)
    if lost <= NEGLIGIBLE * max(asked, 1e-9):
        return None
    prices = task.unserved_prices()
    worth = math.fsum(prices[cell] * rate for cell, rate in rates.items())
    found = _units_for(task, solution, each, rates, left)
    cure, besides = _gpus_short(task, found.units, left), _besides(task, solution, found.units, left)
    label = f"class {each.name!r} of {need.name}" if each.name else need.name
    parts = [f"{lost:.4g} of {asked:.4g} requests/s of {label} stay unserved", *_beyond_help(found, each)]
    price = math.fsum(option.dollars_per_hour * found.units.get(option.name, 0) for option in task.variants)
    if cure or besides:
        parts.append(_would_cure(cure, besides))
        if price > worth:
            parts.append(
                f"it would cost {price:.4g} $/h where the load is worth {worth:.4g} $/h: raise its price (unserved_dollars) too"
            )
    elif found.units and optimal:
        parts.append(
            "GPUs are free, but cost more than the load is worth: raise its price (unserved_dollars)"
        )
    elif found.units:
        parts.append("GPUs are free, but the search ended before it gave them away: allow more work_units")
    return Shortage(
        model=need.name,
        request_class=each.name,
        requests_per_second=lost,
        of_requests_per_second=asked,
        dollars_per_hour=worth,
        cure={} if found.hopeless or found.barred else cure,
        besides=besides,
        sentence="; ".join(parts),
    )


def _beyond_help(found: _Units, each: RequestClass) -> list[str]:
    """What no number of GPUs would serve."""
    told = []
    if found.hopeless:
        told.append(
            f"{found.hopeless:.4g} of them are of sizes that no variant serves: relax the objective or allow other GPUs"
        )
    if found.barred:
        told.append(
            f"{found.barred:.4g} of them only spot variants serve, and the class may use those for {each.spot_share:.0%}: raise "
            "spot_share or allow other GPUs"
        )
    return told


def _would_cure(cure: dict[str, int], besides: tuple[str, ...]) -> str:
    wanted = [*(f"{gpus} more GPUs of {pool}" for pool, gpus in cure.items()), *besides]
    return " and ".join(wanted) + " would cure it"


def _units_for(
    task: MixProblem, solution: MixSolution, each: RequestClass, rates: dict[int, float], left: _Left
) -> _Units:
    """Further units by variant that carry ``rates`` beside the plan, and the rates that none may carry."""
    refused = {found.variant for found in solution.rejections if found.code != "NoInventory"}
    options = {o.name: o for o in task.variants if o.pool in left.gpus and o.name not in refused}
    busy: dict[str, float] = {}
    hopeless, on_spot = 0.0, 0.0
    for cell, rate in rates.items():
        able = [o for o in options.values() if o.throughput[cell] > 0.0]
        if rate <= 0.0:
            continue
        if not able:
            hopeless += rate
            continue
        best = min(able, key=lambda o: (o.spot, o.dollars_per_hour / o.throughput[cell], o.name))
        on_spot += rate if best.spot else 0.0
        busy[best.name] = busy.get(best.name, 0.0) + rate / best.throughput[cell]
    barred = max(0.0, on_spot - _spot_allowance(task, solution, each))
    if barred <= NEGLIGIBLE * math.fsum(rates.values()):
        barred = 0.0
    units = {
        name: _more(options[name], solution.counts.get(name, 0), load, task.headroom)
        for name, load in sorted(busy.items())
        if not (barred and options[name].spot)
    }
    return _Units(units, hopeless, barred)


def _spot_allowance(task: MixProblem, solution: MixSolution, each: RequestClass) -> float:
    """Requests/s of a class that may still go to spot variants."""
    spot = {option.name for option in task.variants if option.spot}
    routed = math.fsum(
        task.demand[cell] * row[cell]
        for name, row in solution.routing.items()
        if name in spot
        for cell in each.cells
    )
    return each.spot_share * math.fsum(task.demand[cell] for cell in each.cells) - routed


def _more(option: VariantOption, units: int, load: float, headroom: bool) -> int:
    """Units beyond ``units`` with which Cap grows by ``load``: each adds at least RHO_FLOOR, for Cap is convex."""
    table = capacity_table(units + math.ceil(load / RHO_FLOOR) + 1, option.concurrency, headroom)
    return max(1, int(table.searchsorted(table[units] + load * (1.0 - 1e-9))) - units)


def _gpus_short(task: MixProblem, units: dict[str, int], left: _Left) -> dict[str, int]:
    """GPUs beyond the free ones that units take, by pool; of pools sold by the node as many as make the last one whole."""
    options = {option.name: option for option in task.variants}
    wanted: Counter[str] = Counter()
    for name, count in units.items():
        wanted[options[name].pool] += count * options[name].gpus
    found = {}
    for pool, gpus in sorted(wanted.items()):
        free = left.gpus[pool]
        if free is None:
            continue
        node, used = left.node_gpus.get(pool, 1), left.used.get(pool, 0)
        short = math.ceil((used + gpus) / node) * node - (free + used)
        if short > 0:
            found[pool] = short
    return found


def _besides(task: MixProblem, solution: MixSolution, units: dict[str, int], left: _Left) -> tuple[str, ...]:
    """What else stands in the way of units: watts, and bounds on replicas."""
    watts: dict[str, float] = {}
    found = []
    for option in task.variants:
        more, have = units.get(option.name, 0), solution.counts.get(option.name, 0)
        watts[option.domain] = watts.get(option.domain, 0.0) + option.watts * more
        if more and option.max_units is not None and have + more > option.max_units:
            found.append(f"a max_units of {have + more} for {option.name}")
        elif have + more > HIGHEST_UNITS:
            found.append(
                f"{have + more:,} replicas of {option.name}, of which {HIGHEST_UNITS:,} are considered (is the load in requests/s?)"
            )
    total = sum(units.values()) + sum(solution.counts.values())
    if units and task.max_units is not None and total > task.max_units:
        found.append(f"a max_units of {total} in all")
    for domain, asked in sorted(watts.items()):
        if domain in left.watts and asked > left.watts[domain] + 1e-6:
            found.append(f"{math.ceil(asked - left.watts[domain] - 1e-6)} W more in power domain {domain}")
    return tuple(found)


def _exposed(need: ModelNeed, solution: MixSolution, left: _Left) -> Shortage | None:
    task = need.problem
    surviving = [each for each in task.classes if each.survives_loss]
    rate = math.fsum(task.demand[cell] for each in surviving for cell in each.cells)
    dollars = math.fsum(
        task.demand[cell] * task.unserved_prices()[cell] for each in surviving for cell in each.cells
    )
    if solution.exposed_per_hour <= NEGLIGIBLE * dollars:
        return None
    units, beyond = _units_to_survive(task, solution, surviving, left)
    cure, besides = _gpus_short(task, units, left), _besides(task, solution, units, left)
    share = min(1.0, solution.exposed_per_hour / dollars)
    names = ", ".join(each.name for each in surviving)
    more = " and ".join(f"{count} more of {name}" for name, count in sorted(units.items()))
    parts = [
        f"losing one replica would leave about {share:.1%} of class {names} of {need.name} unserved",
        *beyond,
    ]
    if cure or besides:
        parts.append(_would_cure(cure, besides) + f" ({more})")
    elif more:
        parts.append(f"{more} would cure it, for which GPUs are free")
    return Shortage(
        model=need.name,
        request_class=names,
        requests_per_second=share * rate,
        of_requests_per_second=rate,
        dollars_per_hour=solution.exposed_per_hour,
        cure={} if beyond else cure,
        besides=besides,
        exposed=True,
        sentence="; ".join(parts),
    )


def _units_to_survive(
    task: MixProblem, solution: MixSolution, surviving: list[RequestClass], left: _Left
) -> tuple[dict[str, int], list[str]]:
    """Further units with which classes are served and stay so when one is lost; and what no units would do."""
    units: Counter[str] = Counter()
    beyond: list[str] = []
    for each in surviving:
        rates = {cell: task.demand[cell] * solution.unserved[cell] for cell in each.cells}
        if math.fsum(rates.values()) > NEGLIGIBLE * math.fsum(task.demand[cell] for cell in each.cells):
            found = _units_for(task, solution, each, rates, left)
            units.update(found.units)
            beyond += _beyond_help(found, each)
    units.update(dict.fromkeys({*solution.counts, *units}, 1))
    return dict(units), beyond
