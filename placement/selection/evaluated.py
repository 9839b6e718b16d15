"""Count vectors whose objective is known: what is left unserved does not depend on prices, so it stays known.

Kept as arrays, so that all of them can be priced anew, compared with limits, or offered to a master programme at once.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from placement.selection.instance import Floats, Instance, Ints


class Found(msgspec.Struct, frozen=True, order=True):
    """An evaluated count vector, ordered by objective, then by fewer variants, fewer units and the vector."""

    objective: float
    variants: int
    units: int
    counts: tuple[int, ...]


class Evaluated:
    """Every evaluated vector of one instance, with its objective under the prices of now."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._row: dict[tuple[int, ...], int] = {}
        self._points = np.empty((16, len(instance.cost)), dtype=np.int64)
        self._left = np.empty(16)
        self._objective = np.empty(16)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._row)

    @property
    def points(self) -> Ints:
        """Count vectors [k, v], in the order in which they were evaluated."""
        return self._points[: len(self)]

    @property
    def left(self) -> Floats:
        """Dollars per hour of what each leaves unserved or exposed [k]: the objective less what its units cost."""
        return self._left[: len(self)]

    @property
    def objectives(self) -> Floats:
        """Objective of each under the prices of now [k]."""
        return self._objective[: len(self)]

    def objective(self, counts: Ints) -> float | None:
        """What a vector is known to cost; None when it was not evaluated."""
        row = self._row.get(tuple(counts.tolist()))
        return None if row is None else float(self._objective[row])

    def left_of(self, counts: Ints) -> float:
        """Price of what a known vector leaves unserved or exposed."""
        return float(self._left[self._row[tuple(counts.tolist())]])

    def add(self, counts: Ints, objective: float) -> Found:
        """Remembers a vector that was not known."""
        row = len(self)
        if row == len(self._left):
            self._points = np.concatenate([self._points, np.empty_like(self._points)])
            self._left = np.concatenate([self._left, np.empty_like(self._left)])
            self._objective = np.concatenate([self._objective, np.empty_like(self._objective)])
        self._points[row] = counts
        self._left[row] = max(0.0, objective - float(self._instance.paid(counts)))
        self._objective[row] = objective
        self._row[tuple(counts.tolist())] = row
        return self.found(row)

    def found(self, row: int) -> Found:
        """The vector of a row, to be compared with others."""
        counts = tuple(self._points[row].tolist())
        used = sum(1 for count in counts if count)
        return Found(_rounded(float(self._objective[row])), used, sum(counts), counts)

    def best(self, rank: int, low: Ints, high: Ints) -> list[Found]:
        """The ``rank`` cheapest known vectors of a box that are allowed."""
        rows = np.flatnonzero(self.allowed(low, high))
        if len(rows) > rank:
            objectives = self.objectives[rows]
            rows = rows[objectives <= np.partition(objectives, rank - 1)[rank - 1] * (1.0 + 1e-9) + 1e-9]
        return sorted(self.found(row) for row in rows.tolist())[:rank]

    def allowed(self, low: Ints, high: Ints) -> NDArray[np.bool_]:
        """Which known vectors lie in a box, keep the side constraints and are not forbidden."""
        return self.within(self.points, low, high)

    def within(self, points: Ints, low: Ints, high: Ints) -> NDArray[np.bool_]:
        """The same of any vectors [k, v]."""
        instance = self._instance
        low, high = np.maximum(low, instance.low), np.minimum(high, instance.high)
        inside = np.logical_and.reduce((points >= low) & (points <= high), axis=1)
        if len(instance.side_limit):
            kept = points @ instance.side.T <= instance.side_limit + 1e-9
            inside = np.logical_and(inside, np.logical_and.reduce(kept, axis=1))
        for vector in instance.forbidden:
            other = np.logical_or.reduce(points != np.array(vector), axis=1)
            inside = np.logical_and(inside, other)
        allowed: NDArray[np.bool_] = inside
        return allowed

    def charge(self, instance: Instance) -> None:
        """Prices every vector anew."""
        self._instance = instance
        self._objective[: len(self)] = self.left + instance.paid(self.points)


def _rounded(objective: float) -> float:
    """Objective to 11 significant digits: equal plans must compare equal so that ties are broken by counts."""
    return float(f"{objective:.11g}")
