"""Lower bounds on the cost of count vectors, collected as the search learns them.

For any multipliers pi >= 0 of the capacities, a count vector n costs at least (Lagrangian duality)

    D(pi) + sum_v r_v(n_v),   D(pi) = sum_b min(penalty_b, min_v pi_v load_bv),   r_v(n) = paid_v(n) - pi_v Cap_v(n)

whatever the routing. D and r are computed here in closed form, so a bound never depends on the tolerances of the
solver that proposed pi. Cap is convex, hence r_v is concave, but for a kink where units begin to be started; its
minimum over a range lies at an end or at the kink, so a box of count vectors is bounded as cheaply as a single one.

What losing one replica of w would leave unserved is bounded in the same way, with Cap_w(n_w - 1): that bound of the
classes that must survive is added to a cut of all load. Multipliers of a spot share sigma_s add
sigma_s rate_b to spot entries of D and cost sigma_s limit_s; those of side constraints shift prices.

Cuts keep their multipliers, so that bounds follow when prices of units or side limits change.
"""

from __future__ import annotations

import msgspec
import numpy as np

from placement.selection.instance import Floats, Instance, Ints


class Multipliers(msgspec.Struct, frozen=True):
    """What makes a cut: multipliers of capacities, side constraints and spot shares, and of the capacities that are
    left when one unit of variant ``lost`` is gone (-1: nothing was asked).
    """

    prices: Floats
    side: Floats
    shares: Floats
    lost: int = -1
    lost_prices: Floats | None = None


class CutPool:
    """Growing set of bounds: ``levels`` [j] and per variant ``tables`` [j, n]."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        feasible = np.isfinite(instance.load)
        self._finite = np.where(feasible, instance.load, 0.0)
        self._blocked = np.where(feasible, 0.0, np.inf)
        self._kinks = instance.standing
        self._levels = np.empty(16)
        self._tables = [np.empty((16, len(table))) for table in instance.capacity]
        self._made: list[tuple[float, Multipliers]] = []
        self._paid = _paid(instance)
        self._has_kinks = bool((instance.startup > 0.0).any())

    @property
    def size(self) -> int:
        """How many cuts there are."""
        return len(self._made)

    @property
    def levels(self) -> Floats:
        """Constant part of every cut."""
        return self._levels[: self.size]

    def table(self, variant: int) -> Floats:
        """r_v(n) of every cut j and count n."""
        return self._tables[variant][: self.size]

    def least(self, variant: int, low: int, high: int) -> Floats:
        """Minimum of r_v over low..high, for every cut."""
        table = self.table(variant)
        found: Floats = np.minimum(table[:, low], table[:, high])
        if self._has_kinks:
            kink = int(self._kinks[variant])
            if low < kink < high:
                found = np.minimum(found, table[:, kink])
        return found

    def add(self, made: Multipliers) -> None:
        """Adds the cut of some multipliers; with those of side constraints a second one that charges them."""
        level = self._level(made)
        self._append(level, msgspec.structs.replace(made, side=np.zeros_like(made.side)))
        if made.side.any():
            self._append(level, made)

    def charge(self, instance: Instance) -> None:
        """Takes over the prices and side limits of an instance that is otherwise the same."""
        self._instance = instance
        self._paid = _paid(instance)
        made, self._made = self._made, []
        for level, multipliers in made:
            self._append(level, multipliers)

    def _level(self, made: Multipliers) -> float:
        instance = self._instance
        busy = self._finite * made.prices + self._blocked
        if made.shares.any():
            busy = busy + (made.shares @ instance.share_rates)[:, None] * instance.spot
        level = float(np.minimum(instance.penalty, busy.min(axis=1)).sum()) if len(busy) else 0.0
        if made.shares.any():
            level -= float(made.shares @ instance.share_limit)
        if made.lost_prices is not None:
            asked = instance.exposed > 0.0
            left = (self._finite * made.lost_prices + self._blocked)[asked]
            level += float(np.minimum(instance.exposed[asked], left.min(axis=1)).sum())
        return level

    def _append(self, level: float, made: Multipliers) -> None:
        number = self.size
        if number == len(self._levels):
            self._levels = np.concatenate([self._levels, np.empty(number)])
            self._tables = [np.concatenate([table, np.empty_like(table)]) for table in self._tables]
        charged = made.side.any()
        self._levels[number] = level - float(made.side @ self._instance.side_limit) if charged else level
        extra = made.side @ self._instance.side if charged else None
        for v, capacity in enumerate(self._instance.capacity):
            row = self._paid[v] - made.prices[v] * capacity
            if extra is not None:
                row = row + extra[v] * np.arange(len(capacity))
            if made.lost_prices is not None:
                left = np.concatenate([[0.0], capacity[:-1]]) if v == made.lost else capacity
                row = row - made.lost_prices[v] * left
            self._tables[v][number] = row
        self._made.append((level, made))

    def bound_box(self, low: Ints, high: Ints) -> float:
        """Best bound over all count vectors of a box."""
        total = self.levels.copy()
        for v, (least, most) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
            total += self.least(v, least, most)
        return float(total.max())

    def bound_points(self, points: Ints, since: int = 0) -> Floats:
        """Best bound of each row of ``points`` [k, v] by the cuts from number ``since`` on."""
        total = np.repeat(self.levels[None, since:], len(points), axis=0)
        for v in range(points.shape[1]):
            total += self.table(v)[since:, points[:, v]].T
        best: Floats = total.max(axis=1)
        return best


def _paid(instance: Instance) -> list[Floats]:
    """Dollars per hour of n units of each variant, with what the new ones among them cost to start."""
    found = []
    for v, capacity in enumerate(instance.capacity):
        units = np.arange(len(capacity), dtype=np.float64)
        started = np.maximum(units - instance.standing[v], 0.0)
        found.append(units * instance.cost[v] + started * instance.startup[v])
    return found
