"""GPU selection for many models on one inventory: reference instances, and generated ones of 20 and 100 models.

Data (`--data DIR`): reference_multi_model_inventory.json, with any number of instances; those without a
`reference.best_known` are compared with the proven bound. Generated instances (`--seed`) have the shape of the
reference ones: each model is one of theirs with the load of two of them mixed and another rate, and GPUs per model
are what the reference instances have. A separate checker recomputes inventory, capacity, routing, shed load and
cost. The proven bound is that of column generation, which lies above the plain linear relaxation's.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.base import Arguments, BenchmarkError, Result, Row, at_most, data_folder
from benchmarks.selection_data import check_instance, read_json
from placement.selection.fleet import FleetPlan, FleetProblem, ModelNeed
from placement.selection.fleet_checker import check_plan
from placement.selection.linear import SolverError
from placement.selection.many import Memory, solve_fleet
from placement.selection.problem import MixProblem, SelectionInputError, VariantOption

FILE = "reference_multi_model_inventory.json"
GENERATED = (20, 100)
ALLOWED_SECONDS = {20: 5.0, 100: 30.0}


class Solved(msgspec.Struct, frozen=True):
    """One instance: sizes, gap to the reference and to the bound, seconds, seconds after a pool was lost, faults."""

    name: str
    models: int
    objective: float
    bound: float
    gap: float
    over_best_known: float | None
    seconds: float
    cpu_seconds: float
    replan_seconds: float
    short: int
    faults: tuple[str, ...]


def run(args: Arguments) -> Result:
    """Solves every instance, and again after its largest pool is lost. Raises BenchmarkError without data."""
    path = data_folder(args, "gpu-selection") / FILE
    instances = _load(path)
    counts = (4, 6) if args.quick else GENERATED
    instances += [generated(instances, count, args.seed) for count in counts]
    solved = [_solve(each) for each in instances]
    largest = solved[-1]
    figures: dict[str, Any] = {
        "rel_gap_by_instance": {each.name: each.gap for each in solved},
        "seconds_by_instance": {each.name: each.seconds for each in solved},
        "seconds_100": largest.seconds,
        "failures": sum(1 for each in solved if each.faults),
    }
    faults = [f"{each.name}: {fault}" for each in solved for fault in each.faults]
    remark = "Every plan passed the checker." if not faults else "Faults: " + "; ".join(faults[:10])
    return Result(rows=_table(solved), figures=figures, remark=remark)


def _load(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(path, list)
    if not found:
        raise BenchmarkError(f"{path} has no instances; give a list with at least one.")
    for place, each in enumerate(found):
        check_instance(f"{path}, instance {place + 1}", each)
    names = [each["name"] for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BenchmarkError(f"{path}: two instances are named {twice!r}; give each a name of its own.")
    return found


def generated(references: list[dict[str, Any]], count: int, seed: int) -> dict[str, Any]:
    """An instance of ``count`` models in the shape of the references."""
    rng = np.random.default_rng((seed, count))
    pool = [model for each in references for model in each["models"]]
    total = sum(len(each["models"]) for each in references)
    name = f"generated-{count}"
    while any(each["name"] == name for each in references):
        name += "-own"
    gpus = sorted({gpu for each in references for gpu in each["available_gpus"]})
    models = []
    for number in range(count):
        base, one, other = (pool[int(rng.integers(len(pool)))] for _ in range(3))
        share = float(rng.uniform())
        one, other = (each if _sizes(each) == _sizes(base) else base for each in (one, other))
        load = share * np.array(one["workload"]) + (1.0 - share) * np.array(other["workload"])
        rate = float(base["rate_rps"]) * float(rng.lognormal(0.0, 0.5))
        models.append(
            {
                **base,
                "name": f"g{number}",
                "rate_rps": rate,
                "workload": (load / max(load.sum(), 1e-12)).tolist(),
            }
        )
    return {
        **references[-1],
        "name": name,
        "models": models,
        "available_gpus": {
            gpu: math.ceil(sum(each["available_gpus"].get(gpu, 0) for each in references) * count / total)
            for gpu in gpus
        },
        "reference": {},
    }


def _sizes(model: dict[str, Any]) -> tuple[int, ...]:
    """Shape of a model's histogram."""
    return np.array(model["workload"]).shape


def fleet(instance: dict[str, Any]) -> FleetProblem:
    """The joint problem of an instance; utilisation is taken off every throughput."""
    needs = []
    for model in instance["models"]:
        rates = np.array(model["workload"]) * float(model["rate_rps"])
        options = tuple(
            _option(name, each, float(instance["max_utilisation"]))
            for name, each in model["variants"].items()
        )
        needs.append(
            ModelNeed(
                name=model["name"],
                problem=MixProblem(
                    demand=tuple(rates.ravel().tolist()),
                    variants=options,
                    inventory={},
                    unserved_dollars=float(instance["shed_penalty_usd_h_per_rps"]),
                    headroom=False,
                ),
            )
        )
    unknown = {variant["gpu"] for model in instance["models"] for variant in model["variants"].values()}
    return FleetProblem(
        models=tuple(needs), inventory={**dict.fromkeys(sorted(unknown), 0), **instance["available_gpus"]}
    )


def _option(name: str, variant: dict[str, Any], utilisation: float) -> VariantOption:
    return VariantOption(
        name=name,
        pool=variant["gpu"],
        gpus=int(variant["gpus_per_replica"]),
        dollars_per_hour=float(variant["cost_usd_h"]),
        throughput=tuple((np.array(variant["tputs"]) * utilisation).ravel().tolist()),
    )


def _solve(instance: dict[str, Any]) -> Solved:
    try:
        problem = fleet(instance)
        memory = Memory()
        started, worked = time.perf_counter(), time.process_time()
        plan = solve_fleet(problem, memory)
        seconds, cpu = time.perf_counter() - started, time.process_time() - worked
        faults = (*check_plan(problem, plan), *raw_faults(instance, plan))
        replan, lost_faults = _after_a_loss(problem, plan, memory)
    except (SelectionInputError, SolverError, KeyError, ValueError) as error:
        nothing = (f"{type(error).__name__}: {error}",)
        return Solved(
            str(instance.get("name")),
            0,
            math.inf,
            0.0,
            math.inf,
            None,
            math.inf,
            math.inf,
            math.inf,
            0,
            nothing,
        )
    faults = (*faults, *lost_faults)
    best_known = (instance.get("reference") or {}).get("best_known")
    reference = plan.bound if best_known is None else float(best_known)
    return Solved(
        name=instance["name"],
        models=len(problem.models),
        objective=plan.objective_per_hour,
        bound=plan.bound,
        gap=math.inf if faults else (plan.objective_per_hour - reference) / max(abs(reference), 1e-9),
        over_best_known=None if best_known is None else plan.objective_per_hour - float(best_known),
        seconds=seconds,
        cpu_seconds=cpu,
        replan_seconds=replan,
        short=len(plan.shortages),
        faults=faults,
    )


def _after_a_loss(problem: FleetProblem, plan: FleetPlan, memory: Memory) -> tuple[float, tuple[str, ...]]:
    """Seconds to plan again when the pool that carries the most GPUs is gone, by the clock `REPLAN_SECONDS`; and faults."""
    used = dict.fromkeys(problem.inventory, 0)
    for need in problem.models:
        for option in need.problem.variants:
            used[option.pool] += option.gpus * plan.solutions[need.name].counts.get(option.name, 0)
    if not used:
        return 0.0, ()
    lost = max(sorted(used), key=lambda pool: used[pool])
    less = msgspec.structs.replace(problem, inventory={**problem.inventory, lost: 0})
    started = time.perf_counter()
    again = solve_fleet(less, memory, interrupted=lambda: time.perf_counter() - started > REPLAN_SECONDS)
    return time.perf_counter() - started, check_plan(less, again)


REPLAN_SECONDS = 0.5
"""Clock of a plan after a loss."""


def raw_faults(instance: dict[str, Any], plan: FleetPlan) -> tuple[str, ...]:
    """Inventory, capacity and objective once more, from the file's own figures."""
    used: dict[str, int] = {}
    objective, faults = 0.0, []
    for model in instance["models"]:
        solution = plan.solutions[model["name"]]
        rates = np.array(model["workload"]).ravel() * float(model["rate_rps"])
        shed = float(rates @ np.array(solution.unserved))
        objective += shed * float(instance["shed_penalty_usd_h_per_rps"])
        for name, count in solution.counts.items():
            variant = model["variants"][name]
            used[variant["gpu"]] = used.get(variant["gpu"], 0) + count * int(variant["gpus_per_replica"])
            objective += count * float(variant["cost_usd_h"])
            speed, share = np.array(variant["tputs"]).ravel(), np.array(solution.routing[name])
            routed = rates * share > 0.0
            busy = (
                float((rates[routed] * share[routed] / speed[routed]).sum())
                if (speed[routed] > 0).all()
                else math.inf
            )
            if busy > count * float(instance["max_utilisation"]) * (1.0 + 1e-6):
                faults.append(f"{model['name']}: {name} is kept busy on {busy} of {count} replicas")
    faults += [
        f"{gpus} {gpu} are used, {instance['available_gpus'].get(gpu, 0)} are there"
        for gpu, gpus in used.items()
        if gpus > instance["available_gpus"].get(gpu, 0)
    ]
    if abs(objective - plan.objective_per_hour) > 1e-6 * max(1.0, objective):
        faults.append(f"the objective is {objective}, stated is {plan.objective_per_hour}")
    return tuple(faults)


def _table(solved: list[Solved]) -> tuple[Row, ...]:
    rows = [at_most("failures (checker)", float(sum(1 for each in solved if each.faults)), 0)]
    for each in solved:
        if each.over_best_known is not None:
            rows.append(at_most(f"{each.name}: objective over best known", each.over_best_known, 0.01, "$/h"))
        above = (
            (each.objective - each.bound) / max(abs(each.bound), 1e-9)
            if math.isfinite(each.objective)
            else math.inf
        )
        rows.append(at_most(f"{each.name}: objective above the bound", above * 100.0, 1.0, "%"))
        limit = ALLOWED_SECONDS.get(each.models)
        text = f"{each.seconds:.2f} s wall, {each.cpu_seconds:.2f} s CPU"
        goal = "" if limit is None else f"≤ {limit:g} s"
        rows.append(Row(f"{each.name}: time", text, goal, None if limit is None else each.seconds <= limit))
        rows.append(
            at_most(
                f"{each.name}: planned again after losing its largest pool", each.replan_seconds, 1.0, "s"
            )
        )
        rows.append(
            Row(
                f"{each.name}: objective, bound, classes short",
                f"{each.objective:.3f}, {each.bound:.3f}, {each.short}",
            )
        )
    return tuple(rows)
