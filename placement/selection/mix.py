"""The cheapest GPU mix for one model: counts per variant, fractional routing, and how much it is the best.

    minimise    sum dollars_v n_v + sum unserved_dollars lambda_b u_b
    subject to  sum_v x_bv + u_b = 1;   sum_b lambda_b / throughput_bv x_bv <= n_v rho(n_v)
                sum of gpus_v n_v in a pool <= its free GPUs;   n integer, x_bv = 0 where infeasible

`solve_mix` is exact (single model), `runner_up` is the exact optimum with the chosen count vector forbidden, and
`solve_ranked` finds both in one search. Pure: same problem, same answer, whatever the order of its columns.
"""

from __future__ import annotations

import msgspec
import numpy as np

from placement.selection.evaluated import Found
from placement.selection.instance import Floats, Instance, Ints, build
from placement.selection.linear import Routing
from placement.selection.problem import MixProblem, MixSolution, Screened, screen
from placement.selection.search import Outcome, Search


def solve_mix(problem: MixProblem) -> MixSolution:
    """The cheapest mix. SelectionInputError for demand or limits that make no sense."""
    return solve_ranked(problem, 1)[0]


def runner_up(problem: MixProblem, solution: MixSolution) -> MixSolution:
    """The optimum of ``problem`` among all count vectors but ``solution.counts``; not feasible when there is none."""
    forbidden = (*problem.forbidden, solution.counts)
    return solve_mix(msgspec.structs.replace(problem, forbidden=forbidden))


def solve_ranked(problem: MixProblem, rank: int = 2) -> tuple[MixSolution, ...]:
    """The ``rank`` cheapest mixes with different counts, cheapest first.

    Always ``rank`` entries; those that do not exist are not feasible and say why. Raises SelectionInputError.
    """
    screened = screen(problem)
    if not screened.options:
        return tuple(without_variants(problem, screened, place) for place in range(rank))
    instance = build(problem, screened.options, spare_units=rank - 1)
    search = Search(instance, problem.work_units, problem.relative_gap)
    outcome = search.run(rank)
    solutions = [_solution(problem, screened, instance, outcome, found, search) for found in outcome.best]
    missing = rank - len(solutions)
    none = _nothing(problem, screened, outcome)
    return (*solutions, *(none for _ in range(missing)))


def forced_objectives(problem: MixProblem, names: tuple[str, ...]) -> dict[str, float | None]:
    """Objective of the cheapest mix that holds at least one unit of each named variant, one at a time.

    None where no such mix keeps the limits. One search serves them all: what it learns of one helps the next.
    Raises SelectionInputError.
    """
    screened = screen(problem)
    found: dict[str, float | None] = dict.fromkeys(names)
    if not screened.options:
        return found
    instance = build(problem, screened.options, spare_units=1)
    search = Search(instance, problem.work_units, problem.relative_gap)
    search.run()
    for v, name in enumerate(instance.names):
        if name in found:
            low = instance.low.copy()
            low[v] = max(1, int(low[v]))
            outcome = search.run(low=low)
            found[name] = outcome.best[0].objective if outcome.best else None
    return found


def _solution(
    problem: MixProblem,
    screened: Screened,
    instance: Instance,
    outcome: Outcome,
    found: Found,
    search: Search,
) -> MixSolution:
    """A found vector as the answer of a search, with how good it is."""
    solution = solution_of(problem, screened, instance, found.counts, search)
    objective = solution.objective_per_hour
    return msgspec.structs.replace(
        solution,
        bound=objective if outcome.complete else min(objective, outcome.bound),
        optimal=outcome.complete and problem.relative_gap <= 0.0,
        units_used=outcome.units_used,
        binding=_binding(problem, screened, dict(zip(instance.names, found.counts, strict=True))),
    )


def solution_of(
    problem: MixProblem, screened: Screened, instance: Instance, vector: tuple[int, ...], search: Search
) -> MixSolution:
    """A count vector and its routing, in the problem's own names and cells; nothing is said of how good it is.

    ``search`` is one over ``instance``, at its own prices.
    """
    counts = np.array(vector, dtype=np.int64)
    routing = search.programme.routing(counts)
    shares, unserved = _clean(routing, counts)
    cost = float(np.array([option.dollars_per_hour for option in screened.options]) @ counts)
    risk = float(np.array([option.risk_dollars for option in screened.options]) @ counts)
    startup = float(instance.startup @ np.maximum(counts - instance.standing, 0))
    exposed = search.losses.worst(counts).dollars if search.losses is not None else 0.0
    rates = np.array(problem.demand, dtype=np.float64)
    left = _spread(instance, unserved, len(rates))
    demand, short = float(rates.sum()), float(rates @ left)
    return MixSolution(
        feasible=True,
        counts={name: n for name, n in zip(instance.names, vector, strict=True) if n},
        routing={
            name: tuple(_spread(instance, shares[:, v], len(rates)).tolist())
            for v, name in enumerate(instance.names)
            if vector[v]
        },
        unserved=tuple(left.tolist()),
        cost_per_hour=cost,
        objective_per_hour=cost + float(instance.penalty @ unserved) + startup + risk + exposed,
        startup_per_hour=startup,
        risk_per_hour=risk,
        exposed_per_hour=exposed,
        unserved_per_second=short,
        demand_per_second=demand,
        carried_per_second=demand / routing.fill if routing.fill > 0.0 and short <= 0.0 else demand - short,
        rejections=(*problem.excluded, *screened.rejections),
    )


def _clean(routing: Routing, counts: Ints) -> tuple[Floats, Floats]:
    """Shares without the solver's dust, which may also lie on variants without units; each cell sums to 1 with its unserved share."""
    shares = np.where((routing.shares > 1e-9) & (counts > 0), routing.shares, 0.0)
    unserved = np.where(routing.unserved > 1e-9, routing.unserved, 0.0)
    total = shares.sum(axis=1) + unserved
    total = np.where(total > 0.0, total, 1.0)
    return shares / total[:, None], unserved / total


def _spread(instance: Instance, values: Floats, cells: int) -> Floats:
    """Values of the cells with demand, put back among all cells (0 elsewhere)."""
    spread = np.zeros(cells)
    spread[instance.cells] = values
    return spread


def _binding(problem: MixProblem, screened: Screened, counts: dict[str, int]) -> tuple[str, ...]:
    """Pools where not one more unit of any variant fits."""
    used: dict[str, int] = {}
    smallest: dict[str, int] = {}
    for option in screened.options:
        used[option.pool] = used.get(option.pool, 0) + option.gpus * counts[option.name]
        smallest[option.pool] = min(smallest.get(option.pool, option.gpus), option.gpus)
    found = []
    for pool in sorted(used):
        free = problem.inventory[pool]
        if free is not None and used[pool] + smallest[pool] > free:
            found.append(pool)
    return tuple(found)


def _nothing(problem: MixProblem, screened: Screened, outcome: Outcome) -> MixSolution:
    """No (further) count vector keeps the limits."""
    why = f"no other mix of at least {problem.min_units} replicas fits the free inventory"
    if not outcome.best:
        why = (
            f"no mix of at least {problem.min_units} replicas fits the free inventory"
            f"{' besides the forbidden ones' if problem.forbidden else ''}; add nodes or lower min_units"
        )
        floors = sum(option.min_units for option in screened.options)
        if problem.max_units is not None and floors > problem.max_units:
            why = (
                f"variants ask for {floors} replicas at least and max_units allows {problem.max_units} in all; raise max_units or "
                "lower the variants' min_units"
            )
    demand = float(sum(problem.demand))
    return MixSolution(
        feasible=False,
        why=why,
        unserved=tuple(1.0 if rate > 0.0 else 0.0 for rate in problem.demand),
        unserved_per_second=demand,
        demand_per_second=demand,
        units_used=outcome.units_used,
        rejections=(*problem.excluded, *screened.rejections),
    )


def without_variants(problem: MixProblem, screened: Screened, place: int = 0) -> MixSolution:
    """Every column was refused: nothing runs, all demand is unserved. Only the first place can hold that answer."""
    nothing = _nothing(problem, screened, Outcome((), np.inf, True, 0))
    refused = ", ".join(each.variant for each in nothing.rejections) or "none was given"
    why = f"no variant can be used ({refused}); each rejection says what would cure it"
    empty_forbidden = any(not any(vector.values()) for vector in problem.forbidden)
    if place > 0 or problem.min_units > 0 or empty_forbidden:
        return msgspec.structs.replace(nothing, why=why)
    price = sum(
        rate * dollars for rate, dollars in zip(problem.demand, problem.unserved_prices(), strict=True)
    )
    surviving = {cell for each in problem.classes if each.survives_loss for cell in each.cells}
    exposed = sum(problem.demand[cell] * problem.unserved_prices()[cell] for cell in sorted(surviving))
    return msgspec.structs.replace(
        nothing,
        feasible=True,
        why=why,
        exposed_per_hour=exposed,
        objective_per_hour=price + exposed,
        bound=price + exposed,
        optimal=True,
    )
