"""The fragmentation measure of FGD (Weng et al., ATC'23): the idle GPU that a pod drawn from the workload cannot use.

F(node) = sum over typical pods m of p_m f_m. f_m is all idle GPU of the node where m needs no GPU, does not accept the
product, or lacks CPU or GPUs there; else only what is idle on devices with less free than m needs of one. Memory is
ignored. The typical pods are the most frequent shapes that together make up 95 % of the workload.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from placement.packing.fleet import WHOLE, Fleet, Floats, Ints, Request, Shape, shape_of
from placement.packing.trials import Trials

COVERAGE = 0.95
"""Share of the workload that the typical pods cover."""


class Typical(NamedTuple):
    """A shape and how many pods have it."""

    shape: Shape
    number: int


def typical(workload: Iterable[Request], coverage: float = COVERAGE) -> tuple[Typical, ...]:
    """The most frequent shapes, most frequent first, until they cover this share of the workload."""
    counts = Counter(shape_of(request) for request in workload)
    wanted, covered, found = coverage * counts.total(), 0, []
    for shape, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= wanted:
            break
        found.append(Typical(shape, count))
        covered += count
    return tuple(found)


class Fragmentation:
    """F times the pods counted: whole numbers in float64, so that sums are exact in any order."""

    def __init__(self, pods: Sequence[Typical], kinds: Sequence[str]) -> None:
        shapes = [pod.shape for pod in pods]
        self.weight: Floats = np.array([pod.number for pod in pods], np.float64)
        self.total = max(1.0, float(self.weight.sum()))
        self._cpu = np.array([shape.cpu_millis for shape in shapes], np.int64)
        self._gpus = np.array([shape.gpus for shape in shapes], np.float64)
        milli = np.array([shape.milli for shape in shapes], np.int64)
        level = np.arange(WHOLE + 1)[:, None]
        self._usable = ((level >= milli) & (level > 0)).astype(np.float64)
        self._idle = np.where(level < milli, level, 0).astype(np.float64)
        self._closed = np.array(
            [
                [shape.gpus == 0 or bool(shape.kinds and kind not in shape.kinds) for shape in shapes]
                for kind in kinds
            ],
            np.bool_,
        ).reshape(len(kinds), len(shapes))

    def of(self, fleet: Fleet, rows: Ints) -> Floats:
        """F of each row as it is, times `total`."""
        free = fleet.free[rows]
        return self._measure(
            self._idle[free].sum(axis=1),
            self._usable[free].sum(axis=1),
            free.sum(axis=1),
            fleet.cpu[rows],
            fleet.kind[rows],
        )

    def gain(self, fleet: Fleet, rows: Ints, trials: Trials) -> Floats:
        """F before less F after each trial, times `total`."""
        free = fleet.free[rows]
        idle, usable, left = self._idle[free].sum(axis=1), self._usable[free].sum(axis=1), free.sum(axis=1)
        kind = fleet.kind[rows]
        before = self._measure(idle, usable, left, fleet.cpu[rows], kind)
        at, old, new, times = trials.position, trials.old, trials.new, trials.times
        after = self._measure(
            idle[at] + times * (self._idle[new] - self._idle[old]),
            usable[at] + times * (self._usable[new] - self._usable[old]),
            left[at] + times * (new - old),
            trials.cpu,
            kind[at],
        )
        return np.asarray(before[at] - after)

    def _measure(self, idle: Floats, usable: Floats, left: Ints, cpu: Ints, kind: Ints) -> Floats:
        lost = self._closed[kind] | (self._cpu > cpu[:, None]) | (usable < self._gpus)
        return np.asarray(np.where(lost, left[:, None], idle) @ self.weight)
