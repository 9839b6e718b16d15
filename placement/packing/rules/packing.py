"""Packing (as FGD's simulator has it): shared GPUs first, then free GPUs of used nodes, free nodes last."""

from __future__ import annotations

import numpy as np

from placement.packing.fleet import WHOLE, Fleet, Floats, Ints, Shape
from placement.packing.rules.rule import TOP
from placement.packing.trials import tightest


class Packing:
    """100 less a tenth of what is free (percent) on the used GPU; 50 less the free GPUs taken; 33 less the free GPUs."""

    lasting = True

    def scores(self, fleet: Fleet, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
        """Scores, and the tightest device. Pods without GPU have no preference."""
        device = tightest(fleet, shape, rows)
        if not shape.gpus:
            return np.zeros(len(rows)), device
        free = fleet.free[rows]
        free_gpus = (free == WHOLE).sum(axis=1)
        idle_node = free_gpus == fleet.size[rows]
        if shape.milli == WHOLE:
            opened, level = np.full(len(rows), shape.gpus), np.zeros(len(rows), np.int64)
        else:
            level = free[np.arange(len(rows)), device]
            opened = (level == WHOLE).astype(np.int64)
        shared = np.maximum(TOP - level * 100 // WHOLE // 10, TOP // 2)
        used_node = np.maximum(TOP // 2 - opened, TOP // 3)
        free_node = np.maximum(TOP // 3 - free_gpus, free_gpus)
        scores = np.where(idle_node, free_node, np.where(opened > 0, used_node, shared))
        return scores.astype(np.float64), device
