"""Exact search over count vectors: best-first branch and bound with bounds learnt from routing programmes.

A box of count vectors is either small enough to list (all vectors whose bound by the collected cuts stays below the
best known objective; the cheapest bound is evaluated first, and each evaluation adds a cut that removes many of its
neighbours), or it is bounded by the linear programme over the whole box and split. Few programmes are solved:
typically 10 to 30 for 4 to 12 types, because a cut is exact where it was learnt and costs nothing to apply.
"""

from __future__ import annotations

import heapq

import msgspec
import numpy as np

from placement.selection.cuts import CutPool, Multipliers
from placement.selection.evaluated import Evaluated, Found
from placement.selection.instance import Floats, Instance, Ints
from placement.selection.linear import BoxAnswer, BoxProgramme
from placement.selection.losses import Losses

LISTED_ELEMENTS = 400_000
"""Largest array (vectors x cuts) that listing a box may make before it is split instead."""

TOLERANCE = 1e-9
"""Relative difference of objectives that counts as equal."""

DESCENT_STEPS = 40
"""Improvements tried on the first plan before the search proper begins."""


class Outcome(msgspec.Struct, frozen=True):
    """The best ``rank`` vectors found, a proven lower bound on the last of them, and whether they are optimal."""

    best: tuple[Found, ...]
    bound: float
    complete: bool
    units_used: int


class Search:
    """Finds the cheapest count vectors of an instance, or of a box in it; later runs use what earlier ones learnt."""

    def __init__(self, instance: Instance, work_units: int, relative_gap: float) -> None:
        self._instance = instance
        self._work_units = work_units
        self._gap = max(relative_gap, TOLERANCE)
        self._cuts = CutPool(instance)
        self.programme = BoxProgramme(instance)
        self.losses = Losses(instance) if (instance.exposed > 0.0).any() else None
        self.seen = Evaluated(instance)
        self._rank = 1
        self._low, self._high = instance.low, instance.high
        self._best: list[Found] = []
        self._listed = 0

    def run(
        self, rank: int = 1, low: Ints | None = None, high: Ints | None = None, work_units: int | None = None
    ) -> Outcome:
        """The ``rank`` cheapest vectors of the box ``low..high`` (all: None), until proven or out of work units."""
        work = self._work_units if work_units is None else min(work_units, self._work_units)
        low = self._instance.low if low is None else low
        high = self._instance.high if high is None else high
        self._rank, self._low, self._high = rank, low, high
        self._best = self.seen.best(rank, low, high)
        if not self._box_possible(low, high):
            return Outcome((), np.inf, True, 0)
        spent = self.units_used()
        if not self._start(low, high):
            return Outcome((), np.inf, True, self.units_used() - spent)
        heap = [(self._cuts.bound_box(low, high), 0, low, high)]
        pushed = 0
        bound, complete = np.inf, True
        while heap:
            value, _, low, high = heapq.heappop(heap)
            if value >= self.threshold():
                bound = value
                break
            if self.units_used() - spent >= work:
                bound, complete = value, False
                break
            for child in self._visit(low, high, value):
                pushed += 1
                heapq.heappush(heap, (child[0], pushed, child[1], child[2]))
        last = self._best[-1].objective if len(self._best) == self._rank else np.inf
        return Outcome(tuple(self._best), float(min(bound, last)), complete, self.units_used() - spent)

    def _inside(self, counts: Ints) -> bool:
        return bool(((counts >= self._low) & (counts <= self._high)).all()) and self._instance.allowed(counts)

    def units_used(self) -> int:
        """Work done: programmes solved, plus one for every hundred thousand listed elements."""
        solved = self.programme.solved + (self.losses.solved if self.losses is not None else 0)
        return solved + self._listed // 100_000

    def charge(self, instance: Instance) -> None:
        """Takes over the prices and side limits of an instance that is otherwise the same; what was learnt stays."""
        self._instance = instance
        self._cuts.charge(instance)
        self.programme.charge(instance)
        self.seen.charge(instance)

    def threshold(self) -> float:
        """Objectives from here on cannot change the answer."""
        if len(self._best) < self._rank:
            return np.inf
        last = self._best[-1].objective
        return last - self._gap * max(self._instance.money_unit, abs(last))

    # ------------------------------------------------------------------------------------------- evaluation

    def evaluate(self, counts: Ints) -> float:
        """Objective of a count vector under the prices of now; infinite where side constraints forbid it."""
        return self._evaluate(counts)

    def _evaluate(self, counts: Ints) -> float:
        """Objective of an allowed count vector (memoised); remembers it and its cut."""
        known = self.seen.objective(counts)
        if known is not None:
            return known
        answer = self.programme.solve(counts, counts)
        if answer is None:
            return np.inf
        objective, made = answer.value, _multipliers(answer)
        if self.losses is not None:
            exposure = self.losses.worst(counts)
            objective += exposure.dollars
            made = msgspec.structs.replace(made, lost=exposure.lost, lost_prices=exposure.prices)
        self._cuts.add(msgspec.structs.replace(made, side=np.zeros_like(made.side)))
        found = self.seen.add(counts, objective)
        self._best = sorted([*self._best, found])[: self._rank]
        return objective

    def _start(self, low: Ints, high: Ints) -> bool:
        """First cuts and a good first plan: round the relaxation, then improve by single steps.

        False when even the relaxation has no point in the box: then no count vector has.
        """
        answer = self.programme.solve(low, high)
        if answer is None:
            return False
        self._cuts.add(_multipliers(answer))
        self._round(answer, low, high)
        for _ in range(DESCENT_STEPS):
            if not self._improve():
                break
        if self._best and self._rank > 1:
            self._spare()
        return True

    def _round(self, answer: BoxAnswer, low: Ints, high: Ints) -> None:
        """Evaluates the relaxation rounded up to what its routing needs, and rounded down."""
        up = [
            int(np.searchsorted(table, used - 1e-9))
            for table, used in zip(self._instance.capacity, answer.used.tolist(), strict=True)
        ]
        for candidate in (np.array(up), np.floor(answer.counts + 1e-9).astype(np.int64)):
            counts = np.clip(candidate, low, high)
            if self._inside(counts):
                self._evaluate(counts)

    def _improve(self) -> bool:
        """Tries to drop a unit or to swap it for a cheaper one; True when the best plan improved."""
        if not self._best:
            return False
        best = self._best[0].objective - TOLERANCE * self._instance.money_unit
        points = self._neighbours(np.array(self._best[0].counts, dtype=np.int64))
        if not len(points):
            return False
        bounds = self._cuts.bound_points(points)
        for i in np.argsort(bounds, kind="stable")[:12].tolist():
            if bounds[i] >= best or self.seen.objective(points[i]) is not None:
                continue
            if self._cuts.bound_points(points[i : i + 1])[0] >= best:
                continue
            if self._evaluate(points[i]) < best:
                return True
        return False

    def _neighbours(self, counts: Ints) -> Ints:
        cost, found = self._instance.cost, []
        for v in np.flatnonzero(counts > self._low).tolist():
            fewer = counts.copy()
            fewer[v] -= 1
            found.append(fewer)
            for w in np.flatnonzero(cost < cost[v]).tolist():
                swapped = fewer.copy()
                swapped[w] += 1
                found.append(swapped)
        allowed = [each for each in found if self._inside(each)]
        return np.array(allowed, dtype=np.int64).reshape(len(allowed), len(counts))

    def _spare(self) -> None:
        """Evaluates the best plan plus one unit of the cheapest variant that fits: bounds the runner-up."""
        for v in np.argsort(self._instance.cost, kind="stable").tolist():
            counts = np.array(self._best[0].counts, dtype=np.int64)
            counts[v] += 1
            if self._inside(counts):
                self._evaluate(counts)
                return

    # ------------------------------------------------------------------------------------------------ boxes

    def _visit(self, low: Ints, high: Ints, value: float) -> list[tuple[float, Ints, Ints]]:
        """Settles a box by listing it, or returns its two halves with their bounds."""
        low, high = self._tighten(low, high)
        if (low > high).any() or not self._box_possible(low, high):
            return []
        points = self._list(low, high)
        if points is not None:
            self._exhaust(*points)
            return []
        answer = self.programme.solve(low, high)
        if answer is None:
            return []
        self._cuts.add(_multipliers(answer))
        self._round(answer, low, high)
        if self._cuts.bent and len(self._instance.cells) and np.isfinite(self.threshold()):
            self._cuts.sharpen(_multipliers(answer), low, high, self.threshold())
        value = max(value, self._cuts.bound_box(low, high))
        if value >= self.threshold():
            return []
        children = []
        for least, most in _split(low, high, answer.counts, self._instance.cost):
            bound = max(value, self._cuts.bound_box(least, most))
            children.append((bound, least, most))
        return children

    def _box_possible(self, low: Ints, high: Ints) -> bool:
        if (low > high).any():
            return False
        side = self._instance.side
        least = np.minimum(side * low, side * high).sum(axis=1)
        return bool((least <= self._instance.side_limit + 1e-9).all())

    def _tighten(self, low: Ints, high: Ints) -> tuple[Ints, Ints]:
        """Shrinks each count's range to the values that some vector below the threshold can have."""
        limit = self.threshold()
        low, high = low.copy(), high.copy()
        if not np.isfinite(limit):
            return low, high
        tables = [self._cuts.table(v) for v in range(len(low))]
        least = [self._cuts.least(v, int(low[v]), int(high[v])) for v in range(len(low))]
        total = self._cuts.levels + np.sum(least, axis=0)
        for v in range(len(low)):
            values = (total - least[v])[:, None] + tables[v][:, low[v] : high[v] + 1]
            fit = np.flatnonzero(values.max(axis=0) < limit)
            if not len(fit):
                return low, low - 1
            low[v], high[v] = low[v] + fit[0], low[v] + fit[-1]
            now = self._cuts.least(v, int(low[v]), int(high[v]))
            total = total - least[v] + now
            least[v] = now
        return low, high

    def _list(self, low: Ints, high: Ints) -> tuple[Ints, Floats] | None:
        """All vectors of the box below the threshold with their bounds, or None when they are too many."""
        limit, side = self.threshold(), self._instance.side
        tables = [self._cuts.table(v)[:, low[v] : high[v] + 1].T for v in range(len(low))]
        least = [self._cuts.least(v, int(low[v]), int(high[v])) for v in range(len(low))]
        rest = np.sum(least, axis=0)
        side_rest = np.minimum(side * low, side * high)
        side_left = side_rest.sum(axis=1)
        sums, points = self._cuts.levels[None, :], np.zeros((1, len(low)), dtype=np.int64)
        sided = np.zeros((1, len(side)))
        for v in sorted(range(len(low)), key=lambda each: len(tables[each])):
            rest = rest - least[v]
            side_left = side_left - side_rest[:, v]
            elements = len(sums) * tables[v].size
            if elements > LISTED_ELEMENTS:
                return None
            self._listed += elements
            grown = sums[:, None, :] + tables[v][None, :, :]
            values = np.arange(low[v], high[v] + 1)
            use = sided[:, None, :] + values[None, :, None] * side[None, None, :, v]
            keep = (grown + rest).max(axis=2) < limit
            if len(side):
                keep &= (use + side_left <= self._instance.side_limit + 1e-9).all(axis=2)
            row, column = np.nonzero(keep)
            sums, sided, points = grown[row, column], use[row, column], points[row]
            points[:, v] = values[column]
        bounds: Floats = sums.max(axis=1)
        return points, bounds

    def _exhaust(self, points: Ints, bounds: Floats) -> None:
        """Evaluates listed vectors, cheapest bound first, until none can change the answer."""
        bounds = bounds.copy()
        while len(points):
            i = int(np.argmin(bounds))
            if bounds[i] >= self.threshold() or not np.isfinite(bounds[i]):
                return
            bounds[i] = np.inf
            known = self.seen.objective(points[i]) is not None
            if known or tuple(points[i].tolist()) in self._instance.forbidden:
                continue
            before = self._cuts.size
            self._evaluate(points[i])
            bounds = np.maximum(bounds, self._cuts.bound_points(points, since=before))


def _multipliers(answer: BoxAnswer) -> Multipliers:
    return Multipliers(answer.prices, answer.side_prices, answer.share_prices)


def _split(low: Ints, high: Ints, counts: Floats, cost: Floats) -> list[tuple[Ints, Ints]]:
    """Two boxes: at the most expensive fractional count of the relaxation, else in the widest range's middle."""
    open_ranges = high > low
    fraction = np.where(open_ranges, np.abs(counts - np.round(counts)) * cost, -1.0)
    v = int(np.argmax(fraction))
    if fraction[v] > 1e-6 * cost[v]:
        middle = int(np.floor(counts[v]))
    else:
        v = int(np.argmax((high - low) * cost))
        middle = int((low[v] + high[v]) // 2)
    middle = min(max(middle, int(low[v])), int(high[v]) - 1)
    below, above = high.copy(), low.copy()
    below[v], above[v] = middle, middle + 1
    return [(low, below), (above, high)]
