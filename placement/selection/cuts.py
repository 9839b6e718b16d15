"""Lower bounds on the cost of count vectors, collected as the search learns them.

Let a size b be worth sigma_b <= penalty_b to whoever carries it. A count vector n costs at least (Lagrangian duality)

    sum_b sigma_b + sum_v r_v(n_v),   r_v(n) = paid_v(n) - max { sum_b sigma_b x_b : sum_b load_bv x_b <= Cap_v(n), 0 <= x <= 1 }

whatever the routing: the maximum is a knapsack that takes the dearest size for its load first, so r_v is a table in closed
form, and a bound never depends on the tolerances of the solver that proposed multipliers. Multipliers pi >= 0 of the
capacities make sigma_b = min(penalty_b, min_v pi_v load_bv). Without headroom Cap is linear and pi_v Cap_v(n), which is not
less than the maximum, serves as well. With headroom small pools carry little, and a variant that is best for a few sizes
alone must not look as cheap as a large pool of it; there cuts are sharpened box by box.

What losing one replica of w would leave unserved is bounded in the same way, with Cap_w(n_w - 1): that bound of the
classes that must survive is added to a cut of all load. Multipliers of a spot share sigma_s add
sigma_s rate_b to spot entries of D and cost sigma_s limit_s; those of side constraints shift prices.

Cuts keep their multipliers, so that bounds follow when prices of units or side limits change.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from placement.selection.instance import LEAST_LOAD, Floats, Instance, Ints

SHARPENINGS = 40
"""Steps that sharpening a cut takes at most."""

PATIENCE = 4
"""Steps without a better bound after which they become half as long."""


class Multipliers(msgspec.Struct, frozen=True):
    """What makes a cut: multipliers of capacities, side constraints and spot shares, and of the capacities that are
    left when one unit of variant ``lost`` is gone (-1: nothing was asked).
    """

    prices: Floats
    side: Floats
    shares: Floats
    lost: int = -1
    lost_prices: Floats | None = None


class Cut(msgspec.Struct, frozen=True):
    """A bound without what units cost: its constant, the most that n units of each variant carry [v][n], and multipliers
    of side constraints.
    """

    level: float
    carried: list[Floats]
    side: Floats


class Filled(NamedTuple):
    """What counts of variants bring at most [v][n], and how: the order of sizes, their loads, and loads before each [b, v]."""

    tables: list[Floats]
    order: NDArray[np.intp]
    load: Floats
    before: Floats


class CutPool:
    """Growing set of bounds: ``levels`` [j] and per variant ``tables`` [j, n]."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        feasible = np.isfinite(instance.load)
        self._finite = np.where(feasible, instance.load, 0.0)
        self._blocked = np.where(feasible, 0.0, np.inf)
        self.bent = any(table[-1] < len(table) - 1 for table in instance.capacity)
        self._able = feasible
        self._divisor = np.where(feasible, instance.load, 1.0)
        self._levels = np.empty(16)
        self._tables = [np.empty((16, len(table))) for table in instance.capacity]
        self._made: list[Cut] = []
        self._paid = _paid(instance)

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
        table, kink = self.table(variant), int(self._instance.standing[variant])
        if self.bent:
            return np.asarray(table[:, low : high + 1].min(axis=1), dtype=np.float64)
        # Without headroom r_v is concave but where units begin to be started.
        found: Floats = np.minimum(table[:, low], table[:, high])
        return np.minimum(found, table[:, kink]) if low < kink < high else found

    def add(self, made: Multipliers) -> None:
        """Adds the cut of some multipliers; with those of side constraints a second one that charges them."""
        cut = self._cut(made)
        self._append(msgspec.structs.replace(cut, side=np.zeros_like(made.side)))
        if made.side.any():
            self._append(cut)

    def charge(self, instance: Instance) -> None:
        """Takes over the prices and side limits of an instance that is otherwise the same."""
        self._instance = instance
        self._paid = _paid(instance)
        made, self._made = self._made, []
        for cut in made:
            self._append(cut)

    def _cut(self, made: Multipliers) -> Cut:
        instance, worth, level = self._instance, np.zeros(len(self._finite)), 0.0
        extra = (made.shares @ instance.share_rates)[:, None] * instance.spot
        if len(worth):
            busy = self._finite * made.prices + self._blocked + extra
            worth = np.minimum(instance.penalty, busy.min(axis=1))
            level = float(worth.sum()) - float(made.shares @ instance.share_limit)
        if self.bent:
            carried = self._carried(np.maximum(worth[:, None] - extra, 0.0)).tables
        else:
            carried = [price * table for price, table in zip(made.prices, instance.capacity, strict=True)]
        if made.lost_prices is not None:
            asked = instance.exposed > 0.0
            left = (self._finite * made.lost_prices + self._blocked)[asked]
            level += float(np.minimum(instance.exposed[asked], left.min(axis=1)).sum())
            for v, table in enumerate(instance.capacity):
                rest = np.concatenate([[0.0], table[:-1]]) if v == made.lost else table
                carried[v] = carried[v] + made.lost_prices[v] * rest
        return Cut(level, carried, made.side)

    def _carried(self, worth: Floats) -> Filled:
        """The most that sizes worth so much [b, v] bring on each count of each variant: the dearest for their load first."""
        order = np.argsort(np.where(self._able, -worth / self._divisor, np.inf), axis=0, kind="stable")
        load = np.take_along_axis(self._finite, order, axis=0)
        brought = np.take_along_axis(np.where(self._able, worth, 0.0), order, axis=0)
        start = np.zeros((1, load.shape[1]))
        filled = np.concatenate([start, np.cumsum(load, axis=0)])
        value = np.concatenate([start, np.cumsum(brought, axis=0)])
        tables = [
            np.interp(table, filled[:, v], value[:, v]) for v, table in enumerate(self._instance.capacity)
        ]
        return Filled(tables, order, load, filled[:-1])

    def sharpen(self, made: Multipliers, low: Ints, high: Ints, target: float) -> None:
        """Adds the best cut for a box that steps along the subgradient find, from the worth of sizes that ``made`` implies.

        A size that variants would carry more than once is worth less, one that none would is worth more (Polyak's steps towards
        the value ``target``).
        """
        limit = self._instance.penalty
        worth = np.minimum(limit, (self._finite * made.prices + self._blocked).min(axis=1))
        scale = (worth + 1e-3 * float(worth.mean())) ** 2
        best, most, stride, idle = worth, -np.inf, 1.0, 0
        for _ in range(SHARPENINGS):
            value, missing = self._relaxed(worth, low, high)
            idle = 0 if value > most else idle + 1
            if value > most:
                best, most = worth, value
            elif idle >= PATIENCE:
                stride, idle = stride / 2.0, 0
            steep = float((scale * missing) @ missing)
            if value >= target or steep <= 0.0:
                break
            worth = np.clip(worth + stride * (target - value) / steep * scale * missing, 0.0, limit)
        tables = self._carried(self._of_each(best)).tables
        self._append(Cut(float(best.sum()), tables, np.zeros(len(self._instance.side_limit))))

    def _of_each(self, worth: Floats) -> Floats:
        """What sizes are worth, for each variant alike [b, v]."""
        return np.repeat(worth[:, None], len(self._instance.cost), axis=1)

    def _relaxed(self, worth: Floats, low: Ints, high: Ints) -> tuple[float, Floats]:
        """The bound of a box where sizes are worth so much, and how much of each size its counts leave uncarried [b]."""
        filled = self._carried(self._of_each(worth))
        value, missing = float(worth.sum()), np.ones(len(worth))
        for v, table in enumerate(filled.tables):
            some = slice(int(low[v]), int(high[v]) + 1)
            left = self._paid[v][some] - table[some]
            n = int(np.argmin(left))
            value += float(left[n])
            room, load = self._instance.capacity[v][some][n] - filled.before[:, v], filled.load[:, v]
            share = np.clip(room / np.maximum(load, LEAST_LOAD), 0.0, 1.0)
            missing[filled.order[:, v]] -= np.where(load > 0.0, share, 0.0)
        return value, missing

    def _append(self, cut: Cut) -> None:
        number = self.size
        if number == len(self._levels):
            self._levels = np.concatenate([self._levels, np.empty(number)])
            self._tables = [np.concatenate([table, np.empty_like(table)]) for table in self._tables]
        self._levels[number] = cut.level - float(cut.side @ self._instance.side_limit)
        extra = cut.side @ self._instance.side
        for v, carried in enumerate(cut.carried):
            self._tables[v][number] = self._paid[v] - carried + extra[v] * np.arange(len(carried))
        self._made.append(cut)

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
