"""Mélange's published selection rule, as an anchor beside ours: whole slices of sizes onto GPU types filled to the brim.

    minimise    sum dollars_v n_v
    subject to  sum_v z_bv = slices                                            each size's slices all go somewhere
                sum_b z_bv lambda_b / (slices throughput_bv) <= n_v            a type is filled to 100 %
                n, z whole numbers, z_bv = 0 where the profile says infeasible

The release (tyler-griggs/melange-release, described in research/gpu-selection.md §1.1) has a binary for each slice; slices of
one size are alike, so counting them is the same programme with far fewer symmetric answers. The load is its own too:
`upper_edge_histogram` rounds each request up to the next profiled size. It throws its assignment away; we keep it as
routing, which can only help it.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

from placement.selection.instance import Floats, Instance, Ints, build
from placement.selection.problem import MixProblem, MixSolution, screen

SLICES = 4
"""Slices a size is cut into, as its README recommends."""

RELATIVE_GAP = 1e-4
"""Gap at which the search ends; its own ends at CBC's 1e-4 of the objective as well."""

MOST_NODES = 20_000
"""Most nodes of the search. The incumbent is kept then."""


def melange(problem: MixProblem, slices: int = SLICES) -> MixSolution:
    """What Mélange buys for the load of ``problem``; its headroom and its price of unserved load are not looked at.

    Pools bound the counts where they are finite (Mélange itself knows no inventory). Not feasible, with ``why``, when a
    size fits no variant or the inventory is too small. Raises SelectionInputError, and ValueError for ``slices`` < 1.
    """
    if slices < 1:
        raise ValueError(f"slices is {slices}; cut each size into at least 1")
    screened = screen(problem)
    demand = float(sum(problem.demand))
    if not screened.options or demand <= 0.0:
        why = "" if demand <= 0.0 else "no variant can be used"
        return MixSolution(feasible=demand <= 0.0, why=why, demand_per_second=demand)
    instance = build(problem, screened.options)
    nowhere = ~np.isfinite(instance.load).any(axis=1)
    if nowhere.any():
        cell = int(instance.cells[int(np.flatnonzero(nowhere)[0])])
        return MixSolution(
            feasible=False,
            why=f"no variant serves cell {cell}; Melange needs one for each size",
            demand_per_second=demand,
        )
    return _solution(problem, instance, _counted(instance, slices), slices, demand)


def _counted(instance: Instance, slices: int) -> tuple[Ints, Floats] | None:
    """Counts [v] and slices [b, v] at the optimum; None when there is none."""
    cells, variants = instance.load.shape
    cell, variant = np.nonzero(np.isfinite(instance.load))
    pairs = len(cell)
    column = np.arange(pairs) + variants
    whole = coo_array((np.ones(pairs), (cell, column)), shape=(cells, variants + pairs))
    filled = coo_array(
        (
            np.concatenate([instance.load[cell, variant] / slices, -np.ones(variants)]),
            (np.concatenate([variant, np.arange(variants)]), np.concatenate([column, np.arange(variants)])),
        ),
        shape=(variants, variants + pairs),
    )
    rules = [LinearConstraint(whole.tocsr(), slices, slices), LinearConstraint(filled.tocsr(), -np.inf, 0.0)]
    if len(instance.side_limit):
        side = np.hstack([instance.side, np.zeros((len(instance.side_limit), pairs))])
        rules.append(LinearConstraint(side, -np.inf, instance.side_limit))
    found = milp(
        np.concatenate([instance.cost, np.zeros(pairs)]),
        constraints=rules,
        integrality=np.ones(variants + pairs),
        bounds=Bounds(
            np.concatenate([instance.low, np.zeros(pairs)]),
            np.concatenate([_highest(instance, slices), np.full(pairs, float(slices))]),
        ),
        options={"mip_rel_gap": RELATIVE_GAP, "node_limit": MOST_NODES},
    )
    if found.x is None:
        return None
    shares = np.zeros((cells, variants))
    shares[cell, variant] = np.round(found.x[variants:]) / slices
    return np.round(found.x[:variants]).astype(np.int64), shares


def _highest(instance: Instance, slices: int) -> Floats:
    """Most units of each variant: all the load it can take, a slice more, or what there is of it."""
    alone = np.where(np.isfinite(instance.load), instance.load, 0.0).sum(axis=0)
    highest: Floats = np.minimum(np.ceil(alone * (1.0 + 1.0 / slices)) + 1.0, np.maximum(instance.high, 0))
    return highest


def _solution(
    problem: MixProblem,
    instance: Instance,
    found: tuple[Ints, Floats] | None,
    slices: int,
    demand: float,
) -> MixSolution:
    if found is None:
        why = f"no assignment of whole slices ({slices} a size) fits the free inventory"
        return MixSolution(feasible=False, why=why, demand_per_second=demand)
    counts, shares = found
    routing = np.zeros((len(problem.demand), len(counts)))
    routing[instance.cells] = shares
    return MixSolution(
        feasible=True,
        counts={name: int(n) for name, n in zip(instance.names, counts, strict=True) if n},
        routing={name: tuple(routing[:, v].tolist()) for v, name in enumerate(instance.names) if counts[v]},
        unserved=(0.0,) * len(problem.demand),
        cost_per_hour=float(instance.cost @ counts),
        objective_per_hour=float(instance.cost @ counts),
        demand_per_second=demand,
        carried_per_second=demand,
    )
