"""An independent judge of a mix: recomputes cost, routing, feasibility, capacity and inventory from n and x alone.

Shares no code with the solver, on purpose: plain Python over the problem's own numbers, and scipy's linear programmes
for what would be left unserved after a loss.
"""

from __future__ import annotations

import math

from scipy.optimize import linprog

from placement.selection.problem import MixProblem, MixSolution, VariantOption

SHARE_TOLERANCE = 1e-6
"""Largest deviation of routing sums, and relative excess of capacities and costs, that counts as rounding."""


def check(problem: MixProblem, solution: MixSolution) -> tuple[str, ...]:
    """Every way in which ``solution`` breaks ``problem``, as sentences; empty when it is sound."""
    if not solution.feasible:
        return ("the solution is not feasible, there is nothing to check",)
    options = {option.name: option for option in problem.variants}
    unknown = sorted((set(solution.counts) | set(solution.routing)) - set(options))
    if unknown:
        return (f"variants {', '.join(unknown)} are not in the problem",)
    return (
        *_counts(problem, solution, options),
        *_inventory(problem, solution, options),
        *_routing(problem, solution, options),
        *_capacity(problem, solution, options),
        *_spot(problem, solution, options),
        *_costs(problem, solution, options),
    )


def usable(units: int, concurrency: float, headroom: bool) -> float:
    """Capacity of a pool in units of one replica: n (1 - 2 / sqrt(n B)), never below 0.35 n."""
    if not headroom or units == 0:
        return float(units)
    return units * min(1.0, max(0.35, 1.0 - 2.0 / math.sqrt(units * concurrency)))


def recomputed_cost(problem: MixProblem, solution: MixSolution) -> float:
    """Dollars per hour of the counts alone."""
    prices = {option.name: option.dollars_per_hour for option in problem.variants}
    return math.fsum(prices[name] * count for name, count in solution.counts.items())


def _counts(problem: MixProblem, solution: MixSolution, options: dict[str, VariantOption]) -> list[str]:
    faults = []
    refused = {each.variant for each in solution.rejections}
    for name, option in options.items():
        count = solution.counts.get(name, 0)
        most = math.inf if option.max_units is None else option.max_units
        if count < 0 or count > most or count != int(count):
            faults.append(f"count of {name} is {count}, allowed are 0 to {most}")
        elif name not in refused and count < option.min_units:
            faults.append(f"count of {name} is {count}, at least {option.min_units} are wanted")
    total = sum(solution.counts.values())
    if total < problem.min_units or (problem.max_units is not None and total > problem.max_units):
        faults.append(f"{total} replicas in all, allowed are {problem.min_units} to {problem.max_units}")
    chosen = {name: count for name, count in solution.counts.items() if count}
    if any(
        chosen == {name: count for name, count in vector.items() if count} for vector in problem.forbidden
    ):
        faults.append(f"the count vector {chosen} is forbidden")
    return faults


def _inventory(problem: MixProblem, solution: MixSolution, options: dict[str, VariantOption]) -> list[str]:
    used: dict[str, int] = {}
    for name, count in solution.counts.items():
        used[options[name].pool] = used.get(options[name].pool, 0) + options[name].gpus * count
    faults = []
    for pool, gpus in used.items():
        free = problem.inventory.get(pool, 0)
        if free is not None and gpus > free:
            faults.append(f"{gpus} GPUs of pool {pool} are used, {free} are free")
    for domain, budget in problem.budget_watts.items():
        watts = math.fsum(
            options[name].watts * count
            for name, count in solution.counts.items()
            if options[name].domain == domain
        )
        if watts > budget * (1.0 + SHARE_TOLERANCE):
            faults.append(f"power domain {domain} draws {watts} W of {budget} W")
    return faults


def _spot(problem: MixProblem, solution: MixSolution, options: dict[str, VariantOption]) -> list[str]:
    faults = []
    for each in problem.classes:
        rate = math.fsum(problem.demand[cell] for cell in each.cells)
        routed = math.fsum(
            problem.demand[cell] * row[cell]
            for name, row in solution.routing.items()
            if options[name].spot
            for cell in each.cells
        )
        if routed > rate * (each.spot_share + SHARE_TOLERANCE):
            faults.append(
                f"class {each.name} has {routed} of {rate} requests/s on spot, allowed is a share of {each.spot_share}"
            )
    return faults


def exposed_dollars(problem: MixProblem, counts: dict[str, int]) -> float:
    """Price of what the loss of one replica would leave unserved, of the classes that survive it: the worst case."""
    asked = [cell for each in problem.classes if each.survives_loss for cell in each.cells]
    asked = [cell for cell in asked if problem.demand[cell] > 0.0]
    if not asked:
        return 0.0
    used = [name for name, count in counts.items() if count]
    cases = [{**counts, name: counts[name] - 1} for name in used] or [{}]
    return max(_left_unserved(problem, case, asked) for case in cases)


def _left_unserved(problem: MixProblem, counts: dict[str, int], asked: list[int]) -> float:
    """Least price of unserved load of some cells at fixed counts."""
    prices = problem.unserved_prices()
    pairs = [
        (i, v)
        for i, cell in enumerate(asked)
        for v, option in enumerate(problem.variants)
        if counts.get(option.name) and option.throughput[cell] > 0.0
    ]
    width = len(asked) + len(pairs)
    served = [[0.0] * width for _ in asked]
    busy = [[0.0] * width for _ in problem.variants]
    for i in range(len(asked)):
        served[i][i] = 1.0
    for column, (i, v) in enumerate(pairs, start=len(asked)):
        served[i][column] = 1.0
        busy[v][column] = problem.demand[asked[i]] / problem.variants[v].throughput[asked[i]]
    room = [usable(counts.get(each.name, 0), each.concurrency, problem.headroom) for each in problem.variants]
    cost = [prices[cell] * problem.demand[cell] for cell in asked] + [0.0] * len(pairs)
    found = linprog(cost, A_ub=busy, b_ub=room, A_eq=served, b_eq=[1.0] * len(asked), method="highs")
    return float(found.fun)


def _routing(problem: MixProblem, solution: MixSolution, options: dict[str, VariantOption]) -> list[str]:
    faults = []
    for cell, rate in enumerate(problem.demand):
        shares = {name: row[cell] for name, row in solution.routing.items()}
        left = solution.unserved[cell]
        if not all(0.0 <= share <= 1.0 + SHARE_TOLERANCE for share in (*shares.values(), left)):
            faults.append(f"cell {cell} has a share outside 0 to 1: {shares}, unserved {left}")
        if rate > 0.0 and abs(math.fsum(shares.values()) + left - 1.0) > SHARE_TOLERANCE:
            faults.append(f"shares of cell {cell} sum to {math.fsum(shares.values()) + left}")
        for name, share in shares.items():
            if share > 0.0 and not options[name].throughput[cell] > 0.0:
                faults.append(f"cell {cell} is routed to {name}, which cannot serve it")
    return faults


def _capacity(problem: MixProblem, solution: MixSolution, options: dict[str, VariantOption]) -> list[str]:
    faults = []
    for name, row in solution.routing.items():
        option = options[name]
        busy = math.fsum(
            rate * share / throughput
            for rate, share, throughput in zip(problem.demand, row, option.throughput, strict=True)
            if rate * share > 0.0 and throughput > 0.0
        )
        room = usable(solution.counts.get(name, 0), option.concurrency, problem.headroom)
        if busy > room * (1.0 + SHARE_TOLERANCE) + 1e-9:
            faults.append(f"{name} is kept busy on {busy} units, {room} are usable")
    return faults


def _costs(problem: MixProblem, solution: MixSolution, options: dict[str, VariantOption]) -> list[str]:
    faults = []
    cost = math.fsum(options[name].dollars_per_hour * count for name, count in solution.counts.items())
    left = [rate * share for rate, share in zip(problem.demand, solution.unserved, strict=True)]
    prices = problem.unserved_prices()
    startup = math.fsum(
        options[name].startup_dollars * max(0, count - options[name].standing_units)
        for name, count in solution.counts.items()
    )
    risk = math.fsum(options[name].risk_dollars * count for name, count in solution.counts.items())
    exposed = exposed_dollars(problem, solution.counts)
    unserved = math.fsum(price * rate for price, rate in zip(prices, left, strict=True))
    objective = cost + unserved + startup + risk + exposed
    for name, stated, found in (
        ("cost_per_hour", solution.cost_per_hour, cost),
        ("startup_per_hour", solution.startup_per_hour, startup),
        ("risk_per_hour", solution.risk_per_hour, risk),
        ("exposed_per_hour", solution.exposed_per_hour, exposed),
        ("objective_per_hour", solution.objective_per_hour, objective),
        ("unserved_per_second", solution.unserved_per_second, math.fsum(left)),
    ):
        if abs(stated - found) > SHARE_TOLERANCE * max(1.0, abs(found)):
            faults.append(f"{name} is stated as {stated} and is {found}")
    if solution.bound > objective + SHARE_TOLERANCE * max(1.0, abs(objective)):
        faults.append(f"bound {solution.bound} lies above the objective {objective}")
    return faults
