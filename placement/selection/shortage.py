"""What a fleet's plan leaves unserved or exposed: whose, how much, and what would cure it.

Each cure is a proof: with those GPUs the plan as it stands, its routing unchanged, carries the rest as well. For
unserved load each size goes to the variant where it is cheapest, and so many units are added that Cap grows by what
it keeps busy. For exposed load one more unit of each variant whose loss hurts: then losing one leaves what is there now.
"""

from __future__ import annotations

import math

from placement.selection.fleet import FleetPlan, FleetProblem, ModelNeed, Shortage
from placement.selection.headroom import capacity_table
from placement.selection.problem import MixProblem, MixSolution, VariantOption

NEGLIGIBLE = 1e-7
"""Share of a class's load whose loss is rounding."""


def shortages(problem: FleetProblem, plan: FleetPlan) -> tuple[Shortage, ...]:
    """One entry per model and class that goes short, dearest first."""
    free = free_gpus(problem, plan)
    found: list[Shortage] = []
    for need in problem.models:
        solution = plan.solutions[need.name]
        for name, cells in _classes(need.problem):
            short = _unserved(need, solution, name, cells, free)
            if short is not None:
                found.append(short)
        if solution.exposed_per_hour > 1e-6:
            found.append(_exposed(need, solution, free))
    return tuple(sorted(found, key=lambda each: (-each.dollars_per_hour, each.model, each.request_class)))


def free_gpus(problem: FleetProblem, plan: FleetPlan) -> dict[str, int | None]:
    """GPUs of each pool that the plan does not use."""
    left = dict(problem.inventory)
    for need in problem.models:
        options = {option.name: option for option in need.problem.variants}
        for name, count in plan.solutions[need.name].counts.items():
            free = left[options[name].pool]
            if free is not None:
                left[options[name].pool] = free - options[name].gpus * count
    return left


def _classes(problem: MixProblem) -> list[tuple[str, list[int]]]:
    """Classes with their cells; cells in none are one class without a name."""
    taken = {cell for each in problem.classes for cell in each.cells}
    rest = [cell for cell in range(len(problem.demand)) if cell not in taken]
    return [*((each.name, list(each.cells)) for each in problem.classes), *([("", rest)] if rest else [])]


def _unserved(
    need: ModelNeed, solution: MixSolution, name: str, cells: list[int], free: dict[str, int | None]
) -> Shortage | None:
    task = need.problem
    rates = {cell: task.demand[cell] * solution.unserved[cell] for cell in cells}
    lost, asked = math.fsum(rates.values()), math.fsum(task.demand[cell] for cell in cells)
    if lost <= NEGLIGIBLE * max(asked, 1e-9):
        return None
    prices = task.unserved_prices()
    units, hopeless = _units_for(
        task, solution, {cell: rate for cell, rate in rates.items() if rate > 0.0}, free
    )
    cure = _gpus_short(task, units, free)
    label = f"class {name!r} of {need.name}" if name else need.name
    text = f"{lost:.4g} of {asked:.4g} requests/s of {label} stay unserved"
    if hopeless:
        text += f"; {hopeless:.4g} of them are of sizes that no variant serves: relax the objective or allow other GPUs"
    if cure:
        text += (
            "; "
            + " and ".join(f"{gpus} more GPUs of {pool}" for pool, gpus in cure.items())
            + " would cure it"
        )
    elif units:
        text += "; GPUs are free, but cost more than the load is worth: raise its price (unserved_dollars)"
    return Shortage(
        model=need.name,
        request_class=name,
        requests_per_second=lost,
        of_requests_per_second=asked,
        dollars_per_hour=math.fsum(prices[cell] * rate for cell, rate in rates.items()),
        cure={} if hopeless else cure,
        sentence=text,
    )


def _units_for(
    task: MixProblem, solution: MixSolution, rates: dict[int, float], free: dict[str, int | None]
) -> tuple[dict[str, int], float]:
    """Further units by variant that carry ``rates`` beside the plan, and the rate that no variant serves."""
    busy: dict[str, float] = {}
    hopeless = 0.0
    options = {o.name: o for o in task.variants if o.pool in free and o.dollars_per_hour > 0.0}
    for cell, rate in rates.items():
        able = [o for o in options.values() if o.throughput[cell] > 0.0]
        if not able:
            hopeless += rate
            continue
        best = min(able, key=lambda o: (o.spot, o.dollars_per_hour / o.throughput[cell], o.name))
        busy[best.name] = busy.get(best.name, 0.0) + rate / best.throughput[cell]
    units = {
        name: _more(options[name], solution.counts.get(name, 0), load, task.headroom)
        for name, load in sorted(busy.items())
    }
    return units, hopeless


def _more(option: VariantOption, units: int, load: float, headroom: bool) -> int:
    """Units beyond ``units`` with which Cap grows by ``load``."""
    more = max(1, math.ceil(load * (1.0 - 1e-9)))
    while True:
        table = capacity_table(units + more, option.concurrency, headroom)
        if table[-1] - table[units] >= load * (1.0 - 1e-9):
            return more
        more += 1


def _gpus_short(task: MixProblem, units: dict[str, int], free: dict[str, int | None]) -> dict[str, int]:
    """GPUs beyond the free ones that units take, by pool."""
    options = {option.name: option for option in task.variants}
    wanted: dict[str, int] = {}
    for name, count in units.items():
        wanted[options[name].pool] = wanted.get(options[name].pool, 0) + count * options[name].gpus
    found = {}
    for pool, gpus in sorted(wanted.items()):
        there = free[pool]
        if there is not None and gpus > there:
            found[pool] = gpus - there
    return found


def _exposed(need: ModelNeed, solution: MixSolution, free: dict[str, int | None]) -> Shortage:
    task = need.problem
    surviving = [each for each in task.classes if each.survives_loss]
    rate = math.fsum(task.demand[cell] for each in surviving for cell in each.cells)
    dollars = math.fsum(
        task.demand[cell] * task.unserved_prices()[cell] for each in surviving for cell in each.cells
    )
    cure = _gpus_short(task, dict.fromkeys(solution.counts, 1), free)
    share = min(1.0, solution.exposed_per_hour / max(dollars, 1e-9))
    names = ", ".join(each.name for each in surviving)
    text = (
        f"losing one replica would leave about {share:.1%} of class {names} of {need.name} unserved; "
        "one more replica of each variant in its mix would cure it"
    )
    return Shortage(
        model=need.name,
        request_class=names,
        requests_per_second=share * rate,
        of_requests_per_second=rate,
        dollars_per_hour=solution.exposed_per_hour,
        cure=cure,
        exposed=True,
        sentence=text,
    )
