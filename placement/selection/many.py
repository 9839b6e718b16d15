"""Many models on one inventory: column generation over exact single-model searches, with an incumbent at any time.

`solve_fleet` returns a feasible plan always: at worst every model's floor with all load unserved, stated as shortages.
Work is counted in linear programmes; a caller with a clock passes ``interrupted``. `Memory` keeps what was learnt for
the next call: a pool that is lost, a price or a load of some models that changed leaves the others' knowledge valid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from placement.selection.fleet import (
    Budget,
    FleetPlan,
    FleetProblem,
    ModelNeed,
    check_fleet,
    without_floors,
)
from placement.selection.generation import Generation
from placement.selection.instance import Floats, Ints
from placement.selection.mix import solution_of, without_variants
from placement.selection.oracle import Oracle, Resources
from placement.selection.problem import MixProblem, MixSolution, screen
from placement.selection.shortage import shortages

MEMORY_LIMIT = 2_000
"""Oracles kept."""


class Memory:
    """Oracles of earlier calls, by everything they depend on; it changes time, never what is allowed.

    ``prices`` are what GPUs of pools may cost, to begin with: where they are about right, less has to be asked.
    """

    def __init__(self, prices: Mapping[str, float] | None = None) -> None:
        self._oracles: dict[bytes, Oracle] = {}
        self._prices: dict[str, float] = {f"pool/{pool}": price for pool, price in (prices or {}).items()}

    def prices(self, resources: Resources) -> Floats | None:
        """What resources cost last time, 0 for new ones; None where nothing is known of any."""
        if not set(self._prices) & set(resources.names):
            return None
        return np.array([self._prices.get(name, 0.0) for name in resources.names])

    def learn(self, resources: Resources, prices: Floats) -> None:
        """Remembers what resources cost."""
        self._prices = dict(zip(resources.names, prices.tolist(), strict=True))

    def oracle(self, problem: MixProblem, resources: Resources) -> Oracle:
        """The oracle of a problem, made when there is none with tables that reach far enough."""
        plain = msgspec.structs.replace(problem, inventory={}, budget_watts={})
        shared = (plain, resources.names, sorted(resources.unlimited))
        key = hashlib.blake2b(msgspec.json.encode(shared, order="deterministic"), digest_size=16).digest()
        found = self._oracles.pop(key, None)
        if found is None or not found.roomy(resources):
            found = Oracle(problem, resources)
        self._oracles[key] = found
        while len(self._oracles) > MEMORY_LIMIT:
            del self._oracles[next(iter(self._oracles))]
        return found


def solve_fleet(
    problem: FleetProblem,
    memory: Memory | None = None,
    interrupted: Callable[[], bool] | None = None,
) -> FleetPlan:
    """The cheapest plan found for all models. Raises SelectionInputError for numbers that make no sense."""
    check_fleet(problem)
    resources = resources_of(problem)
    budget = Budget(problem.work_units, interrupted)
    memory = memory or Memory()
    needs, floors, relaxed = _with_floors_that_fit(problem, resources, memory)
    oracles = {need.name: memory.oracle(need.problem, resources) for need in needs}
    able = [need for need in needs if oracles[need.name].usable]
    chosen = [oracles[need.name] for need in able]
    generation = Generation(chosen, resources, problem.whole_nodes, problem.relative_gap, budget)
    if able:
        generation.start([floors[need.name] for need in able], [_standing(oracle) for oracle in chosen])
        _improve(generation, memory.prices(resources))
        generation.keep(problem.keep_share)
        memory.learn(resources, generation.prices)
    else:
        generation.nothing()
    vectors = {
        need.name: column.counts for need, column in zip(able, generation.incumbent.columns, strict=True)
    }
    solutions = {
        need.name: _solution(problem, need, oracles[need.name], vectors.get(need.name), resources.limits)
        for need in needs
    }
    return _plan(problem, solutions, generation, relaxed, budget, resources)


def resources_of(problem: FleetProblem) -> Resources:
    """What models share, with limits: of a pool sold by the node, no more than its whole nodes have."""
    bounded = {
        pool: gpus - gpus % problem.whole_nodes[pool].gpus if pool in problem.whole_nodes else gpus
        for pool, gpus in sorted(problem.inventory.items())
        if gpus is not None
    }
    watts = dict(sorted(problem.budget_watts.items()))
    names = (
        *(f"pool/{pool}" for pool in bounded),
        *(f"watts/{domain}" for domain in watts),
        *(f"nodes/{pool}" for pool in sorted(problem.whole_nodes)),
    )
    limits = [
        *map(float, bounded.values()),
        *map(float, watts.values()),
        *(np.inf for _ in problem.whole_nodes),
    ]
    unlimited = frozenset(pool for pool, gpus in problem.inventory.items() if gpus is None)
    return Resources(names, np.array(limits, dtype=np.float64), unlimited)


def _improve(generation: Generation, prices: Floats | None) -> None:
    """Everything that makes the plan better, in order; each step ends when the budget does."""
    relaxed = generation.root(prices)
    if relaxed is None:
        return
    generation.dive(relaxed)
    generation.combine(relaxed)
    generation.exchange()


def _standing(oracle: Oracle) -> list[tuple[int, ...]]:
    """What runs now: a plan that stays is always on offer."""
    counts = tuple(option.standing_units for option in oracle.options)
    return [counts] if any(counts) else []


def _with_floors_that_fit(
    problem: FleetProblem, resources: Resources, memory: Memory
) -> tuple[list[ModelNeed], dict[str, Ints], tuple[str, ...]]:
    """Models in their order, without the floors that do not fit beside those of higher priority; the floors; whose are dropped."""
    left = resources.limits.copy()
    kept: dict[str, ModelNeed] = {}
    floors: dict[str, Ints] = {}
    dropped = []
    for need in sorted(problem.models, key=lambda each: (-each.priority, each.name)):
        oracle = memory.oracle(need.problem, resources)
        least = oracle.least(left)
        if least is None:
            dropped.append(need.name)
            kept[need.name] = without_floors(need)
            least = np.zeros_like(oracle.instance.low)
        else:
            kept[need.name] = need
            left = left - least @ oracle.usage
        floors[need.name] = least
    return [kept[need.name] for need in problem.models], floors, tuple(dropped)


def _solution(
    problem: FleetProblem,
    need: ModelNeed,
    oracle: Oracle,
    vector: tuple[int, ...] | None,
    limits: Floats,
) -> MixSolution:
    """A model's part of the plan, with the reasons of variants that the inventory rules out."""
    inventory = {**problem.inventory}
    ruled_out = screen(msgspec.structs.replace(need.problem, inventory=inventory, budget_watts={})).rejections
    if vector is None:
        solution = without_variants(msgspec.structs.replace(need.problem, min_units=0), oracle.screened)
    else:
        oracle.charge(np.zeros(len(limits)), limits)
        solution = solution_of(need.problem, oracle.screened, oracle.instance, vector, oracle.search)
    return msgspec.structs.replace(solution, rejections=(*need.problem.excluded, *ruled_out), optimal=False)


def _plan(
    problem: FleetProblem,
    solutions: dict[str, MixSolution],
    generation: Generation,
    relaxed: tuple[str, ...],
    budget: Budget,
    resources: Resources,
) -> FleetPlan:
    nodes = generation.nodes_of(generation.incumbent.columns)
    by_name = {
        need.name: {option.name: option for option in need.problem.variants} for need in problem.models
    }
    paid_by_node = sum(
        by_name[model][name].dollars_per_hour * count
        for model, solution in solutions.items()
        for name, count in solution.counts.items()
        if by_name[model][name].pool in problem.whole_nodes
    )
    bought = sum(problem.whole_nodes[pool].dollars_per_hour * count for pool, count in nodes.items())
    cost = sum(each.cost_per_hour for each in solutions.values()) - paid_by_node + bought
    objective = sum(each.objective_per_hour for each in solutions.values()) - paid_by_node + bought
    unable = sum(each.objective_per_hour for each in solutions.values() if not each.counts and each.why)
    bound = min(objective, max(0.0, generation.bound) + unable)
    prices = dict(zip(resources.names, generation.prices.tolist(), strict=True))
    plan = FleetPlan(
        solutions=solutions,
        nodes={pool: count for pool, count in nodes.items() if count},
        cost_per_hour=cost,
        objective_per_hour=objective,
        bound=bound,
        optimal=objective - bound <= problem.relative_gap * max(generation.money_unit, abs(objective)),
        prices={name[5:]: price for name, price in prices.items() if name.startswith("pool/")},
        watt_prices={name[6:]: price for name, price in prices.items() if name.startswith("watts/")},
        relaxed=relaxed,
        units_used=budget.used,
    )
    return msgspec.structs.replace(plan, shortages=shortages(problem, plan))
