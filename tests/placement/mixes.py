"""Builders and an independent brute force shared by the tests of selection."""

import itertools
import math

import numpy as np
from scipy.optimize import linprog

from placement.selection.checker import usable
from placement.selection.problem import MixProblem, VariantOption

DEMAND = (8.0, 4.0, 1.0)
OPTIONS = (
    VariantOption(name="big", pool="big", dollars_per_hour=4.0, throughput=(10.0, 5.0, 2.0), concurrency=64),
    VariantOption(name="mid", pool="mid", dollars_per_hour=1.5, throughput=(5.0, 1.5, 0.3), concurrency=16),
    VariantOption(
        name="small", pool="small", dollars_per_hour=0.7, throughput=(3.0, 0.5, 0.0), concurrency=8
    ),
)


def problem(**changes) -> MixProblem:
    """Three sizes, three types, plenty of GPUs."""
    values = {
        "demand": DEMAND,
        "variants": OPTIONS,
        "inventory": {"big": None, "mid": None, "small": None},
        "unserved_dollars": 1000.0,
        **changes,
    }
    return MixProblem(**values)


def unserved_penalty(task: MixProblem, counts: tuple[int, ...]) -> float:
    """Least price of unserved load at fixed counts, by a linear programme of its own."""
    variants, cells = len(task.variants), [b for b, rate in enumerate(task.demand) if rate > 0]
    if not cells:
        return 0.0
    prices = task.unserved_prices()
    columns = [(b, v) for b in cells for v in range(variants) if task.variants[v].throughput[b] > 0]
    cost = [prices[b] * task.demand[b] for b in cells] + [0.0] * len(columns)
    equal = np.zeros((len(cells), len(cost)))
    below = np.zeros((variants, len(cost)))
    equal[:, : len(cells)] = np.eye(len(cells))
    for k, (b, v) in enumerate(columns, start=len(cells)):
        equal[cells.index(b), k] = 1.0
        below[v, k] = task.demand[b] / task.variants[v].throughput[b]
    room = [
        usable(n, option.concurrency, task.headroom) for n, option in zip(counts, task.variants, strict=True)
    ]
    found = linprog(cost, A_ub=below, b_ub=room, A_eq=equal, b_eq=np.ones(len(cells)), method="highs")
    assert found.success
    return float(found.fun)


def brute_force(task: MixProblem, most: int) -> list[tuple[float, dict[str, int]]]:
    """The two cheapest objectives over all count vectors with entries up to ``most`` that keep the limits."""
    names = [option.name for option in task.variants]
    candidates = []
    for counts in itertools.product(range(most + 1), repeat=len(names)):
        vector = {name: n for name, n in zip(names, counts, strict=True) if n}
        if keeps_limits(task, counts) and vector not in [
            {name: n for name, n in each.items() if n} for each in task.forbidden
        ]:
            cost = math.fsum(
                n * option.dollars_per_hour for n, option in zip(counts, task.variants, strict=True)
            )
            candidates.append((cost, counts, vector))
    candidates.sort(key=lambda each: each[:2])
    best: list[tuple[float, dict[str, int]]] = []
    for cost, counts, vector in candidates:
        if len(best) == 2 and cost >= best[1][0]:
            break
        best.append((cost + unserved_penalty(task, counts), vector))
        best = sorted(best, key=lambda each: each[0])[:2]
    return best


def keeps_limits(task: MixProblem, counts: tuple[int, ...]) -> bool:
    """Bounds of each variant, of the replicas in all, and of the pools."""
    used: dict[str, int] = {}
    for n, option in zip(counts, task.variants, strict=True):
        if n < option.min_units or (option.max_units is not None and n > option.max_units):
            return False
        used[option.pool] = used.get(option.pool, 0) + n * option.gpus
    if any(task.inventory[pool] is not None and gpus > task.inventory[pool] for pool, gpus in used.items()):
        return False
    total = sum(counts)
    return total >= task.min_units and (task.max_units is None or total <= task.max_units)
