"""Places pods on a fleet by a rule, keeping scores: only nodes that changed since a shape was last asked for are scored.

The scores of a shape depend on the node's own state, so a placement makes one score of each shape stale. They are
brought up to date from the fleet's log when the shape is next asked for: a choice costs the changed nodes and one
look for the highest score, never a scan by the rule.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.packing.fleet import Fleet, Floats, Ints, PackingError, Placed, Request, Shape, shape_of
from placement.packing.rules.clustering import Clustering
from placement.packing.rules.rule import Rule

SHAPES_KEPT = 4_096
"""Shapes whose scores are kept; when a new one comes above that, all are forgotten."""


class _Kept:
    """Scores (-inf: does not fit) and devices of one shape, good up to a place in the fleet's log."""

    __slots__ = ("devices", "scores", "upto")

    def __init__(self, count: int) -> None:
        self.scores: Floats = np.full(count, -np.inf)
        self.devices: Ints = np.full(count, -1, np.int64)
        self.upto = -1


class Choice(NamedTuple):
    """A node for a request, its score, how many nodes it fits on, and the best other one: score and row (None: no other)."""

    placed: Placed
    score: float
    fit_nodes: int
    runner_up: float | None
    runner_up_row: int | None = None


class Packer:
    """A rule at work on one fleet. Change the fleet only by it or by the fleet's own `take` and `give`."""

    def __init__(self, fleet: Fleet, rule: Rule) -> None:
        self.fleet, self.rule = fleet, rule
        self._kept: dict[Shape, _Kept] = {}

    def scores(self, request: Request) -> tuple[Floats, Ints]:
        """Score of every row (-inf: does not fit, memory apart) and the device a share would take. Do not change them."""
        shape = shape_of(request)
        kept = self._kept.get(shape)
        if kept is None:
            if len(self._kept) >= SHAPES_KEPT:
                self._kept.clear()
            kept = self._kept[shape] = _Kept(len(self.fleet))
        log = self.fleet.log
        behind = len(log) - kept.upto
        if kept.upto < 0 or not self.rule.lasting or behind > len(self.fleet):
            self._score(kept, shape, np.arange(len(self.fleet)))
        elif behind:
            self._score(kept, shape, np.array(sorted(set(log[kept.upto :])), np.int64))
        kept.upto = len(log)
        return kept.scores, kept.devices

    def _score(self, kept: _Kept, shape: Shape, rows: Ints) -> None:
        fit = self.fleet.fits(shape, rows)
        kept.scores[rows[~fit]] = -np.inf
        fitting = rows[fit]
        if len(fitting):
            kept.scores[fitting], kept.devices[fitting] = self.rule.scores(self.fleet, shape, fitting)

    def best(self, request: Request) -> Placed | None:
        """Where a request would go now, or None."""
        scores, devices = self.scores(request)
        if not len(scores):
            return None
        roomy = self.fleet.memory >= request.memory_bytes
        if not roomy.all():
            scores = np.where(roomy, scores, -np.inf)
        row = int(scores.argmax())
        if scores[row] == -np.inf:
            return None
        return Placed(row, self.fleet.devices(row, request, int(devices[row])))

    def choose(self, request: Request, avoid: Ints | None = None) -> Choice | None:
        """As `best`, with what an explanation needs; `avoid` are rows left out."""
        known, devices = self.scores(request)
        scores = np.where(self.fleet.memory >= request.memory_bytes, known, -np.inf)
        if avoid is not None:
            scores[avoid] = -np.inf
        fit = int(np.count_nonzero(scores > -np.inf))
        if not fit:
            return None
        row = int(scores.argmax())
        score = float(scores[row])
        scores[row] = -np.inf
        placed = Placed(row, self.fleet.devices(row, request, int(devices[row])))
        if fit == 1:
            return Choice(placed, score, fit, None)
        second = int(scores.argmax())
        return Choice(placed, score, fit, float(scores[second]), second)

    def put(self, request: Request, placed: Placed) -> None:
        """Charge a placement. Raises: PackingError where it does not fit."""
        self.fleet.take(request, placed)
        if isinstance(self.rule, Clustering):
            self.rule.placed(placed.row, shape_of(request))

    def remove(self, request: Request, placed: Placed) -> None:
        """Give a placement back."""
        self.fleet.give(request, placed)
        if isinstance(self.rule, Clustering):
            self.rule.removed(placed.row, shape_of(request))

    def place(self, request: Request) -> Placed | None:
        """Choose and charge; None where nothing fits."""
        found = self.best(request)
        if found is not None:
            self.put(request, found)
        return found


__all__ = ["Choice", "Packer", "PackingError"]
