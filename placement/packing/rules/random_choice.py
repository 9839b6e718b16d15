"""Random: any node that fits, any device that fits, each as likely as another."""

from __future__ import annotations

import numpy as np

from placement.packing.fleet import WHOLE, Fleet, Floats, Ints, Shape


class RandomChoice:
    """The baseline without a thought; its generator is handed in."""

    lasting = False

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def scores(self, fleet: Fleet, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
        """A fresh number for each row, a fresh device for each share."""
        scores = self._generator.random(len(rows))
        if shape.gpus != 1 or shape.milli == WHOLE:
            return scores, np.full(len(rows), -1, np.int64)
        drawn = self._generator.random((len(rows), fleet.free.shape[1]))
        drawn[fleet.free[rows] < shape.milli] = -1.0
        return scores, np.asarray(drawn.argmax(axis=1), np.int64)
