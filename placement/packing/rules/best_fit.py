"""BestFit (as FGD's simulator has it): the node left with the least, CPU and GPU weighed alike."""

from __future__ import annotations

import numpy as np

from placement.packing.fleet import Fleet, Floats, Ints, Shape
from placement.packing.rules.rule import LARGEST_CPU_MILLIS, LARGEST_GPU_MILLIS, TOP
from placement.packing.trials import tightest


class BestFit:
    """100 (1 - cpu_left / 2C - gpu_left / 2G), rounded down."""

    lasting = True

    def scores(self, fleet: Fleet, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
        """Scores, and the tightest device."""
        cpu = (fleet.cpu[rows] - shape.cpu_millis) / LARGEST_CPU_MILLIS
        gpu = (fleet.free[rows].sum(axis=1) - shape.gpus * shape.milli) / LARGEST_GPU_MILLIS
        return np.floor((1.0 - (0.5 * cpu + 0.5 * gpu)) * TOP), tightest(fleet, shape, rows)
