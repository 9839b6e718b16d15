"""Why this plan of many models: what a GPU more would save, what each model could run instead, and why not other GPUs.

Every figure is a solved problem. A model's alternatives are weighed with everybody else's mix as it is: the regret of
its runner-up is what the whole plan would cost more.
"""

from __future__ import annotations

import msgspec
import numpy as np

from cluster.base import Noun
from placement.selection.fleet import FleetPlan, FleetProblem, ModelNeed
from placement.selection.instance import Floats
from placement.selection.many import Memory, resources_of, solve_fleet
from placement.selection.oracle import Oracle, Resources
from placement.selection.problem import Rejection, rejection
from placement.selection.shortage import free_gpus


class RunnerUp(Noun, kw_only=True, frozen=True):
    """The best other mix of a model beside everybody else's, and what the plan would cost more with it, $/h."""

    model: str
    counts: dict[str, int]
    regret_per_hour: float


def runner_up(
    problem: FleetProblem, plan: FleetPlan, model: str, memory: Memory | None = None
) -> RunnerUp | None:
    """What a model would run if not what the plan says; None where there is nothing else. KeyError: no such model.

    The regret can be negative only as far as the plan was not optimal.
    """
    return _runner_up(Beside(problem, plan, memory), plan, model)


def runners_up(
    problem: FleetProblem, plan: FleetPlan, memory: Memory | None = None
) -> dict[str, RunnerUp | None]:
    """The same of every model, by name."""
    beside = Beside(problem, plan, memory)
    return {need.name: _runner_up(beside, plan, need.name) for need in problem.models}


def _runner_up(beside: Beside, plan: FleetPlan, model: str) -> RunnerUp | None:
    need, oracle, room = beside.room(model)
    if not oracle.usable:
        return None
    outcome = oracle.ask(np.zeros(len(room)), room, rank=2)
    chosen = plan.solutions[model].counts
    for found in outcome.best:
        counts = {o.name: n for o, n in zip(oracle.options, found.counts, strict=True) if n}
        if counts != chosen:
            regret = found.objective - plan.solutions[model].objective_per_hour
            return RunnerUp(model=need.name, counts=counts, regret_per_hour=regret)
    return None


def rejected(
    problem: FleetProblem, plan: FleetPlan, model: str, memory: Memory | None = None
) -> tuple[Rejection, ...]:
    """A reason for each variant that a model's part of the plan does not use, in name order. KeyError: no such model.

    Variants that cannot be used keep the reason they have (memory, objective, price, profile, inventory). Of the
    others, those for which a unit is free cost the plan so much more; those for which none is free say so.
    """
    need, oracle, room = Beside(problem, plan, memory).room(model)
    solution = plan.solutions[model]
    found = {each.variant: each for each in solution.rejections}
    for v, option in enumerate(oracle.options):
        if option.name in found or solution.counts.get(option.name):
            continue
        low = oracle.instance.low.copy()
        low[v] = max(1, int(low[v]))
        fits = bool((oracle.usage[v] <= room + 1e-6).all())
        outcome = oracle.ask(np.zeros(len(room)), room, low=low) if fits else None
        if outcome is None or not outcome.best:
            free = free_gpus(problem, plan).get(option.pool)
            text = f"all GPUs of pool {option.pool!r} that {option.name} could have are worth more to other models"
            found[option.name] = rejection(option.name, "NoInventory", option.gpus, free or 0, "GPU", text)
            continue
        have, cost = solution.objective_per_hour, outcome.best[0].objective
        text = f"with one {option.name} the plan of {need.name} would cost {cost:.2f} $/h instead of {have:.2f} $/h"
        reason = rejection(option.name, "PriceTooHigh", cost, have, "$/h", text)
        found[option.name] = msgspec.structs.replace(reason, cost_per_hour=cost)
    return tuple(found[name] for name in sorted(found))


def pool_savings(problem: FleetProblem, plan: FleetPlan, memory: Memory | None = None) -> dict[str, float]:
    """Dollars per hour that one more GPU of each pool would save, as planned anew; pools where it saves nothing are
    left out. Only pools without free GPUs are asked about.
    """
    memory = memory or Memory()
    free = free_gpus(problem, plan)
    found = {}
    for pool, gpus in sorted(problem.inventory.items()):
        if gpus is None or free[pool]:
            continue
        more = msgspec.structs.replace(problem, inventory={**problem.inventory, pool: gpus + 1})
        saving = plan.objective_per_hour - solve_fleet(more, memory).objective_per_hour
        if saving > 1e-6:
            found[pool] = saving
    return found


class Beside:
    """What a plan's models use of shared resources, added up once for questions about many of them."""

    def __init__(self, problem: FleetProblem, plan: FleetPlan, memory: Memory | None = None) -> None:
        self.resources: Resources = resources_of(problem)
        self.memory = memory or Memory()
        self._needs = {need.name: need for need in problem.models}
        self._used = {need.name: self._usage(need, plan) for need in problem.models}
        self._left = self.resources.limits - sum(self._used.values(), np.zeros(len(self.resources.names)))

    def _usage(self, need: ModelNeed, plan: FleetPlan) -> Floats:
        used = np.zeros(len(self.resources.names))
        counts = plan.solutions[need.name].counts
        for option in need.problem.variants:
            if counts.get(option.name):
                used += np.array(self.resources.usage(option)) * counts[option.name]
        return used

    def room(self, model: str) -> tuple[ModelNeed, Oracle, Floats]:
        """A model, its oracle, and of each resource what everybody else leaves. KeyError: no such model."""
        need = self._needs.get(model)
        if need is None:
            raise KeyError(f"the plan has no model {model!r}")
        room = np.maximum(self._left + self._used[model], 0.0)
        return need, self.memory.oracle(need.problem, self.resources), room
