"""Lower bounds on the cost of count vectors, collected as the search learns them.

For any multipliers pi >= 0 of the capacities, a count vector n costs at least (Lagrangian duality)

    D(pi) + sum_v r_v(n_v),   D(pi) = sum_b min(penalty_b, min_v pi_v load_bv),   r_v(n) = cost_v n - pi_v Cap_v(n)

whatever the routing. D and r are computed here in closed form, so a bound never depends on the tolerances of the
solver that proposed pi. Cap is convex, hence r_v is concave and its minimum over a range lies at an end: a box of
count vectors is bounded as cheaply as a single one.
"""

from __future__ import annotations

import numpy as np

from placement.selection.instance import Floats, Instance, Ints


class CutPool:
    """Growing set of bounds: ``levels`` [j] and per variant ``tables`` [j, n]."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        feasible = np.isfinite(instance.load)
        self._finite = np.where(feasible, instance.load, 0.0)
        self._blocked = np.where(feasible, 0.0, np.inf)
        self._levels = np.empty(16)
        self._tables = [np.empty((16, len(table))) for table in instance.capacity]
        self.size = 0

    @property
    def levels(self) -> Floats:
        """D(pi_j) of every cut."""
        return self._levels[: self.size]

    def table(self, variant: int) -> Floats:
        """r_v(n) of every cut j and count n."""
        return self._tables[variant][: self.size]

    def add(self, prices: Floats, side_prices: Floats | None = None) -> None:
        """Adds the cut of ``prices``; with multipliers of the side constraints a second one that charges them."""
        instance = self._instance
        busy = self._finite * prices + self._blocked
        level = float(np.minimum(instance.penalty, busy.min(axis=1)).sum()) if len(busy) else 0.0
        self._append(level, prices, instance.cost)
        if side_prices is not None and side_prices.any():
            shift = float(side_prices @ instance.side_limit)
            self._append(level - shift, prices, instance.cost + side_prices @ instance.side)

    def _append(self, level: float, prices: Floats, cost: Floats) -> None:
        if self.size == len(self._levels):
            self._levels = np.concatenate([self._levels, np.empty(self.size)])
            self._tables = [np.concatenate([table, np.empty_like(table)]) for table in self._tables]
        self._levels[self.size] = level
        for v, capacity in enumerate(self._instance.capacity):
            self._tables[v][self.size] = cost[v] * np.arange(len(capacity)) - prices[v] * capacity
        self.size += 1

    def bound_box(self, low: Ints, high: Ints) -> float:
        """Best bound over all count vectors of a box."""
        total = self.levels.copy()
        for v, (least, most) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
            table = self.table(v)
            total += np.minimum(table[:, least], table[:, most])
        return float(total.max())

    def bound_points(self, points: Ints, since: int = 0) -> Floats:
        """Best bound of each row of ``points`` [k, v] by the cuts from number ``since`` on."""
        total = np.repeat(self.levels[None, since:], len(points), axis=0)
        for v in range(points.shape[1]):
            total += self.table(v)[since:, points[:, v]].T
        best: Floats = total.max(axis=1)
        return best
