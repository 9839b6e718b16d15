"""An independent judge of a fleet's plan: each model by `checker.check`, then what they share, from counts alone.

Shares no code with the solver.
"""

from __future__ import annotations

import math

import msgspec

from placement.selection.checker import SHARE_TOLERANCE, check
from placement.selection.fleet import FleetPlan, FleetProblem


def check_plan(problem: FleetProblem, plan: FleetPlan) -> tuple[str, ...]:
    """Every way in which ``plan`` breaks ``problem``, as sentences; empty when it is sound."""
    names = [need.name for need in problem.models]
    if sorted(names) != sorted(plan.solutions):
        return (f"the plan has models {sorted(plan.solutions)}, the problem {sorted(names)}",)
    faults: list[str] = []
    for need in problem.models:
        own = msgspec.structs.replace(need.problem, inventory=problem.inventory, budget_watts={})
        if need.name in plan.relaxed:
            variants = tuple(msgspec.structs.replace(each, min_units=0) for each in own.variants)
            own = msgspec.structs.replace(own, variants=variants, min_units=0)
        faults += [f"{need.name}: {fault}" for fault in check(own, plan.solutions[need.name])]
    return (*faults, *_shared(problem, plan), *_costs(problem, plan), *_stated(problem, plan))


def _shared(problem: FleetProblem, plan: FleetPlan) -> list[str]:
    """Pools, power domains, and nodes bought."""
    gpus: dict[str, int] = {}
    watts: dict[str, float] = {}
    for need in problem.models:
        for option in need.problem.variants:
            count = plan.solutions[need.name].counts.get(option.name, 0)
            gpus[option.pool] = gpus.get(option.pool, 0) + option.gpus * count
            watts[option.domain] = watts.get(option.domain, 0.0) + option.watts * count
    faults = []
    for pool, used in sorted(gpus.items()):
        free = problem.inventory.get(pool, 0)
        if free is not None and used > free:
            faults.append(f"{used} GPUs of pool {pool} are used in all, {free} are free")
        offer = problem.whole_nodes.get(pool)
        if offer is not None and used > offer.gpus * plan.nodes.get(pool, 0):
            faults.append(
                f"{used} GPUs of pool {pool} are used on {plan.nodes.get(pool, 0)} nodes of {offer.gpus}"
            )
        if offer is not None and free is not None and offer.gpus * plan.nodes.get(pool, 0) > free:
            faults.append(f"{plan.nodes.get(pool, 0)} nodes of pool {pool} are bought, there are {free} GPUs")
    for domain, budget in problem.budget_watts.items():
        if watts.get(domain, 0.0) > budget * (1.0 + SHARE_TOLERANCE):
            faults.append(f"power domain {domain} draws {watts[domain]} W of {budget} W")
    return faults


def _costs(problem: FleetProblem, plan: FleetPlan) -> list[str]:
    cost, other = 0.0, 0.0
    for need in problem.models:
        solution = plan.solutions[need.name]
        for option in need.problem.variants:
            if option.pool not in problem.whole_nodes:
                cost += option.dollars_per_hour * solution.counts.get(option.name, 0)
        other += solution.objective_per_hour - solution.cost_per_hour
    cost += math.fsum(
        problem.whole_nodes[pool].dollars_per_hour * count for pool, count in plan.nodes.items()
    )
    faults = []
    for name, stated, found in (
        ("cost_per_hour", plan.cost_per_hour, cost),
        ("objective_per_hour", plan.objective_per_hour, cost + other),
    ):
        if abs(stated - found) > SHARE_TOLERANCE * max(1.0, abs(found)):
            faults.append(f"{name} of the plan is stated as {stated} and is {found}")
    if plan.bound > plan.objective_per_hour + SHARE_TOLERANCE * max(1.0, abs(plan.objective_per_hour)):
        faults.append(f"bound {plan.bound} lies above the objective {plan.objective_per_hour}")
    return faults


def _stated(problem: FleetProblem, plan: FleetPlan) -> list[str]:
    """Whatever is left unserved is told, to the request."""
    faults = []
    for need in problem.models:
        told = math.fsum(
            each.requests_per_second
            for each in plan.shortages
            if each.model == need.name and not each.exposed
        )
        lost = math.fsum(
            rate * share
            for rate, share in zip(need.problem.demand, plan.solutions[need.name].unserved, strict=True)
        )
        if abs(told - lost) > SHARE_TOLERANCE * max(1.0, math.fsum(need.problem.demand)):
            faults.append(f"{need.name} leaves {lost} requests/s unserved and tells of {told}")
    return faults
