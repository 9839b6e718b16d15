"""Ours: FGD beside what the free room of a node is worth under the prices of the whole cluster.

Score = (w dF - dV - g broken - b begun) / bucket, rounded, ties by the fleet's order. dF is FGD's fall of fragmentation,
dV the loss of the node's worth (`worth`: dual prices of pods by GPU, CPU and product), `broken` the GPUs of a wholly free
node that would be free no longer, which is what the largest gang could have used, and `begun` 1 where a share begins a
wholly free GPU.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from placement.packing.fleet import WHOLE, Fleet, Floats, Ints, Shape
from placement.packing.fragmentation import Fragmentation
from placement.packing.trials import best_of, trials_of
from placement.packing.worth import Worth

Weight = Annotated[float, msgspec.Meta(ge=0.0)]


class PricedFgdConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings, frozen after tuning on openb's `default`, seeds 1-5 (docs/designs/0019-packing.md).

    `fragmentation_weight`: of dF beside dV. `bucket_milli`: differences in GPU-thousandths that count as a tie.
    `gang_milli`: GPU-thousandths charged for each GPU of a wholly free node that a pod would break into. `begin_milli`: for
    a wholly free GPU that a share would begin.
    """

    fragmentation_weight: Weight = 0.02
    bucket_milli: Annotated[float, msgspec.Meta(gt=0.0)] = 2.0
    gang_milli: Weight = 0.0
    begin_milli: Weight = 0.0


class PricedFgd:
    """FGD with the dual prices of a linear programme."""

    lasting = True

    def __init__(
        self, fragmentation: Fragmentation, worth: Worth, config: PricedFgdConfig | None = None
    ) -> None:
        self._fragmentation, self._worth = fragmentation, worth
        self._config = config or PricedFgdConfig()

    def scores(self, fleet: Fleet, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
        """The best device's score of each row, lowest device first."""
        config = self._config
        trials = trials_of(fleet, shape, rows)
        fall = self._fragmentation.gain(fleet, rows, trials) / self._fragmentation.total
        loss = self._worth.loss(fleet, rows, trials) / WHOLE
        gain = config.fragmentation_weight * fall - loss
        if config.gang_milli and shape.gpus:
            size = fleet.size[rows]
            broken = np.where((fleet.free[rows] == WHOLE).sum(axis=1) == size, size - shape.gpus, 0)
            gain = gain - config.gang_milli * broken[trials.position]
        if config.begin_milli and shape.gpus and shape.milli < WHOLE:
            gain = gain - config.begin_milli * (trials.old == WHOLE)
        return best_of(trials, np.floor(gain / config.bucket_milli + 0.5), len(rows))
