"""The selection problem of one model by another road: a plain mixed-integer programme, as slow as it is independent.

Each replica has a binary of its own, in order (the k-th only with the one before it), and brings Cap(k) - Cap(k-1)
of capacity; routing is continuous. Solved by scipy's MILP with no gap allowed. It shares no code with the solver but
the problem's type.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix, lil_matrix

from placement.selection.checker import usable
from placement.selection.problem import MixProblem, VariantOption


class Exact(msgspec.Struct, frozen=True):
    """The optimum where the search was ``closed``, and a proven lower bound in any case."""

    objective: float
    bound: float
    closed: bool


def ordered_binaries(problem: MixProblem, seconds: float) -> Exact:
    """Optimum of a problem without side constraints (no inventory, no limits on replicas)."""
    cells = [cell for cell, rate in enumerate(problem.demand) if rate > 0.0]
    most = [_most(problem, option) for option in problem.variants]
    shares = [
        (b, v)
        for b, cell in enumerate(cells)
        for v, option in enumerate(problem.variants)
        if option.throughput[cell] > 0.0
    ]
    first = np.concatenate([[0], np.cumsum(most)]).astype(int)
    binaries, unserved = int(first[-1]), len(cells)
    prices = problem.unserved_prices()
    cost = np.concatenate(
        [
            np.repeat([option.dollars_per_hour for option in problem.variants], most),
            [prices[cell] * problem.demand[cell] for cell in cells],
            np.zeros(len(shares)),
        ]
    )
    constraints = _constraints(problem, cells, first, shares, len(cost))
    integral = np.concatenate([np.ones(binaries), np.zeros(unserved + len(shares))])
    found = milp(
        cost,
        constraints=constraints,
        integrality=integral,
        bounds=Bounds(0.0, 1.0),
        options={"time_limit": seconds, "mip_rel_gap": 0.0},
    )
    bound = -math.inf if found.mip_dual_bound is None else float(found.mip_dual_bound)
    objective = math.inf if found.x is None else float(found.fun)
    return Exact(objective, bound, found.status == 0 and objective - bound <= 1e-6 * max(1.0, objective))


def _most(problem: MixProblem, option: VariantOption) -> int:
    """Replicas that carry everything the variant can serve, alone."""
    load = sum(rate / t for rate, t in zip(problem.demand, option.throughput, strict=True) if t > 0.0)
    units = 1
    while usable(units, option.concurrency, problem.headroom) < load:
        units += 1
    return units


def _constraints(
    problem: MixProblem,
    cells: list[int],
    first: NDArray[np.int64],
    shares: list[tuple[int, int]],
    columns: int,
) -> list[LinearConstraint]:
    """Each cell served or left; each variant within its capacity; each replica after the one before it."""
    variants, binaries = problem.variants, int(first[-1])
    served = lil_matrix((len(cells), columns))
    busy = lil_matrix((len(variants), columns))
    for b in range(len(cells)):
        served[b, binaries + b] = 1.0
    for k, (b, v) in enumerate(shares, start=binaries + len(cells)):
        served[b, k] = 1.0
        busy[v, k] = problem.demand[cells[b]] / variants[v].throughput[cells[b]]
    order = lil_matrix((binaries, columns))
    for v, option in enumerate(variants):
        for unit, column in enumerate(range(first[v], first[v + 1]), start=1):
            room = usable(unit, option.concurrency, problem.headroom)
            busy[v, column] = usable(unit - 1, option.concurrency, problem.headroom) - room
            if unit > 1:
                order[column, column], order[column, column - 1] = 1.0, -1.0
    return [
        LinearConstraint(csr_matrix(served), 1.0, 1.0),
        LinearConstraint(csr_matrix(busy), -np.inf, 0.0),
        LinearConstraint(csr_matrix(order), -np.inf, 0.0),
    ]
