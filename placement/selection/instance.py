"""The screened problem as arrays: loads, capacity tables, boxes and side constraints.

Index v runs over the usable variants in name order, b over the cells with demand, q over side constraints.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from placement.selection.headroom import RHO_FLOOR, capacity_table
from placement.selection.problem import MixProblem, VariantOption

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_MONEY, MOST_MONEY = 0.05, 5_000.0
"""Prices of the dearest unit, $/h, that are counted in dollars."""

LEAST_LOAD = 1e-6
"""Units that a size with demand keeps busy at least: what is near the solver's tolerance would be carried by no unit at all."""

HIGHEST_UNITS = 20_000
"""Most units of one variant that are considered for one service."""


class Instance(msgspec.Struct, frozen=True):
    """Arrays of one selection problem.

    ``load`` [b, v] is the units of v that all demand of cell b keeps busy (inf: infeasible), ``penalty`` [b] the
    dollars per hour of leaving all of it unserved, ``cost`` [v] dollars per hour of a unit with its risk, ``capacity`` [v] the
    table Cap(n) for n = 0..high[v]. Count vectors keep ``low <= n <= high`` and ``side @ n <= side_limit``.
    ``startup`` [v] is charged for each unit beyond ``standing`` [v]. Of the requests per second ``share_rates``
    [s, b] no more than ``share_limit`` [s] may go to variants that are ``spot`` [v]. ``exposed`` [b] prices all of a
    cell's demand where it would be lost with one replica (0: nobody asks). ``money_unit`` is the dollars per hour that
    tolerances and linear programmes count in.
    """

    options: tuple[VariantOption, ...]
    cells: Ints
    load: Floats
    penalty: Floats
    cost: Floats
    capacity: tuple[Floats, ...]
    low: Ints
    high: Ints
    side: Floats
    side_limit: Floats
    forbidden: frozenset[tuple[int, ...]]
    startup: Floats
    standing: Ints
    spot: NDArray[np.bool_]
    share_rates: Floats
    share_limit: Floats
    exposed: Floats
    money_unit: float = 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the variants in index order."""
        return tuple(option.name for option in self.options)

    def allowed(self, counts: Ints) -> bool:
        """Whether a count vector keeps its box and the side constraints and is not forbidden."""
        inside = bool(((counts >= self.low) & (counts <= self.high)).all())
        within = bool((self.side @ counts <= self.side_limit + 1e-9).all())
        return inside and within and tuple(counts.tolist()) not in self.forbidden

    def capacity_of(self, counts: Ints) -> Floats:
        """Cap_v(n_v) for a count vector."""
        return np.array([self.capacity[v][n] for v, n in enumerate(counts.tolist())])

    def paid(self, counts: Ints) -> Any:
        """Dollars per hour of count vectors (last axis: variants), with what their new units cost to start."""
        return counts @ self.cost + np.maximum(counts - self.standing, 0) @ self.startup


def build(problem: MixProblem, options: tuple[VariantOption, ...], spare_units: int = 0) -> Instance:
    """Arrays of ``problem`` over the screened ``options``.

    ``spare_units`` widens each count's range beyond what can be useful, for answers after the best one.
    """
    demand = np.array(problem.demand, dtype=np.float64)
    cells = np.flatnonzero(demand > 0.0)
    rates = demand[cells]
    throughput = np.array([option.throughput for option in options], dtype=np.float64).reshape(
        len(options), len(demand)
    )[:, cells]
    with np.errstate(divide="ignore"):
        load = np.where(throughput > 0.0, np.maximum(rates / throughput, LEAST_LOAD), np.inf).T
    tables, low, high = [], [], []
    for v, option in enumerate(options):
        table = _capacity(problem, option, float(load[:, v][np.isfinite(load[:, v])].sum()), spare_units)
        tables.append(table)
        low.append(option.min_units)
        high.append(len(table) - 1)
    side, side_limit = _side_constraints(problem, options)
    share_rates, share_limit = _shares(problem, cells, rates)
    prices = np.array(problem.unserved_prices(), dtype=np.float64)[cells]
    return Instance(
        options=options,
        cells=cells,
        load=load,
        penalty=rates * prices,
        cost=np.array([o.dollars_per_hour + o.risk_dollars for o in options], dtype=np.float64),
        capacity=tuple(tables),
        low=np.array(low, dtype=np.int64),
        high=np.array(high, dtype=np.int64),
        side=side,
        side_limit=side_limit,
        forbidden=_forbidden(problem, options),
        startup=np.array([option.startup_dollars for option in options], dtype=np.float64),
        standing=np.array([option.standing_units for option in options], dtype=np.int64),
        spot=np.array([option.spot for option in options], dtype=np.bool_),
        share_rates=share_rates,
        share_limit=share_limit,
        exposed=rates * prices * _surviving(problem)[cells],
        money_unit=money_unit(options),
    )


def money_unit(options: tuple[VariantOption, ...]) -> float:
    """Dollars per hour to count in: 1, or a power of two near the dearest unit's price where that is far from 1.

    The solver's tolerances are absolute, and prices may be in any currency, or of a thousandth of a GPU.
    """
    dearest = max((option.dollars_per_hour for option in options), default=1.0)
    return 1.0 if LEAST_MONEY <= dearest <= MOST_MONEY else 2.0 ** round(math.log2(dearest))


def _capacity(problem: MixProblem, option: VariantOption, total_load: float, spare: int) -> Floats:
    """Capacity table up to the most units that can matter, or that there are."""
    free = problem.inventory[option.pool]
    limit = HIGHEST_UNITS if free is None else min(HIGHEST_UNITS, free // option.gpus)
    if option.max_units is not None:
        limit = min(limit, option.max_units)
    if problem.max_units is not None:
        limit = min(limit, problem.max_units)
    enough = min(limit, math.ceil(total_load / RHO_FLOOR) + 1)
    table = capacity_table(enough, option.concurrency, problem.headroom)
    needed = int(np.searchsorted(table, total_load * (1.0 - 1e-12)))
    # One more for each vector that is forbidden or taken: the next best may be the best with a spare unit.
    # And one to lose, where a class must survive that.
    lost = 1 if any(each.survives_loss for each in problem.classes) else 0
    useful = max(needed + lost, problem.min_units, option.min_units) + spare + len(problem.forbidden)
    return capacity_table(max(min(limit, useful), option.min_units), option.concurrency, problem.headroom)


def _side_constraints(problem: MixProblem, options: tuple[VariantOption, ...]) -> tuple[Floats, Floats]:
    """Pools shared by several variants, watts, and the bounds on the replicas in all, as side @ n <= limit."""
    rows: list[list[float]] = []
    limits: list[float] = []
    for pool in sorted({option.pool for option in options}):
        free = problem.inventory[pool]
        gpus = [float(option.gpus) if option.pool == pool else 0.0 for option in options]
        if free is not None and sum(1 for each in gpus if each) > 1:
            rows.append(gpus)
            limits.append(float(free))
    for domain, watts in sorted(problem.budget_watts.items()):
        drawn = [option.watts if option.domain == domain else 0.0 for option in options]
        if any(drawn):
            rows.append(drawn)
            limits.append(float(watts))
    if problem.max_units is not None:
        rows.append([1.0] * len(options))
        limits.append(float(problem.max_units))
    if problem.min_units > 0:
        rows.append([-1.0] * len(options))
        limits.append(-float(problem.min_units))
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(options)), np.array(limits)


def _forbidden(problem: MixProblem, options: tuple[VariantOption, ...]) -> frozenset[tuple[int, ...]]:
    names = {option.name for option in options}
    return frozenset(
        tuple(vector.get(option.name, 0) for option in options)
        for vector in problem.forbidden
        if all(name in names for name, count in vector.items() if count)
    )


def _shares(problem: MixProblem, cells: Ints, rates: Floats) -> tuple[Floats, Floats]:
    """Requests per second of each class with a limited share on spot, and how many of them may go there."""
    limited = [each for each in problem.classes if each.spot_share < 1.0]
    rows = np.array([np.where(np.isin(cells, each.cells), rates, 0.0) for each in limited])
    rows = rows.reshape(len(limited), len(cells))
    return rows, rows.sum(axis=1) * np.array([each.spot_share for each in limited], dtype=np.float64)


def _surviving(problem: MixProblem) -> Floats:
    """1 for cells whose class must survive the loss of a replica."""
    found = np.zeros(len(problem.demand))
    for each in problem.classes:
        if each.survives_loss:
            found[list(each.cells)] = 1.0
    return found
