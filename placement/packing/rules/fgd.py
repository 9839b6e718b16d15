"""FGD (Weng et al., ATC'23): the placement after which fragmentation has fallen most, or grown least.

Scores are 100 sigmoid(dF / 1000) rounded down: buckets of about 40 GPU-thousandths, inside which the fixed order of the
nodes decides. Both matter: finer buckets or random ties pack worse (research: training-placement §2.2).
"""

from __future__ import annotations

import math

import numpy as np

from placement.packing.fleet import WHOLE, Fleet, Floats, Ints, Shape
from placement.packing.fragmentation import Fragmentation
from placement.packing.rules.rule import TOP
from placement.packing.trials import best_of, trials_of

_STEPS = np.array([-math.inf] + [WHOLE * math.log(step / (TOP - step)) for step in range(1, TOP)])
"""Least fall of F for each score: the sigmoid turned round, so that no rounding of exp decides a tie."""


class Fgd:
    """Fragmentation gradient descent on a given workload."""

    lasting = True

    def __init__(self, fragmentation: Fragmentation) -> None:
        self._fragmentation = fragmentation

    def scores(self, fleet: Fleet, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
        """The best device's score of each row, lowest device first."""
        trials = trials_of(fleet, shape, rows)
        fall = self._fragmentation.gain(fleet, rows, trials) / self._fragmentation.total
        steps = (np.searchsorted(_STEPS, fall, side="right") - 1).astype(np.float64)
        return best_of(trials, steps, len(rows))
