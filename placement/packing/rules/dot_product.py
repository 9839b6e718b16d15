"""DotProd (Tetris, SIGCOMM'14, as FGD's simulator has it): the lower the product of free and wanted, the better."""

from __future__ import annotations

import numpy as np

from placement.packing.fleet import Fleet, Floats, Ints, Shape
from placement.packing.rules.rule import LARGEST_CPU_MILLIS, LARGEST_GPU_MILLIS, TOP
from placement.packing.trials import tightest


class DotProduct:
    """100 (1 - (cpu_free cpu_pod / C^2 + gpu_free gpu_pod / G^2) / 2), rounded down."""

    lasting = True

    def scores(self, fleet: Fleet, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
        """Scores, and the tightest device."""
        cpu = fleet.cpu[rows] * float(shape.cpu_millis) / LARGEST_CPU_MILLIS**2
        gpu = fleet.free[rows].sum(axis=1) * float(shape.gpus * shape.milli) / LARGEST_GPU_MILLIS**2
        return np.floor(TOP * (1.0 - (cpu + gpu) / 2.0)), tightest(fleet, shape, rows)
