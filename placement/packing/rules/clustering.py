"""Clustering (Gandiva, OSDI'18, as FGD's simulator has it): pods of one size of GPU request share nodes."""

from __future__ import annotations

import numpy as np

from placement.packing.fleet import WHOLE, Fleet, Floats, Ints, Shape
from placement.packing.rules.rule import LARGEST_GPU_MILLIS, TOP
from placement.packing.trials import tightest


class Clustering:
    """Four tiers of 25: only pods of this size there, this size among others, an idle node, other sizes only.

    Inside a tier the fuller node wins. What a node hosts is told by `placed` and `removed`.
    """

    lasting = True

    def __init__(self) -> None:
        self._hosted: dict[int, dict[str, int]] = {}

    def placed(self, row: int, shape: Shape) -> None:
        """A pod was put on a row."""
        if shape.gpus:
            hosted = self._hosted.setdefault(row, {})
            hosted[_size(shape)] = hosted.get(_size(shape), 0) + 1

    def removed(self, row: int, shape: Shape) -> None:
        """A pod was taken from a row."""
        hosted = self._hosted.get(row, {})
        left = hosted.get(_size(shape), 0) - 1
        if left > 0:
            hosted[_size(shape)] = left
        else:
            hosted.pop(_size(shape), None)

    def scores(self, fleet: Fleet, shape: Shape, rows: Ints) -> tuple[Floats, Ints]:
        """Scores, and the tightest device. Pods without GPU have no preference."""
        device = tightest(fleet, shape, rows)
        if not shape.gpus:
            return np.zeros(len(rows)), device
        size = _size(shape)
        tiers = np.array([_tier(self._hosted.get(int(row), {}), size) for row in rows], np.int64)
        used = LARGEST_GPU_MILLIS - fleet.free[rows].sum(axis=1)
        return (TOP // 4 * used // LARGEST_GPU_MILLIS + TOP // 4 * tiers).astype(np.float64), device


def _size(shape: Shape) -> str:
    return "share" if shape.milli < WHOLE else f"{shape.gpus}-gpu"


def _tier(hosted: dict[str, int], size: str) -> int:
    if size in hosted:
        return 3 if len(hosted) == 1 else 2
    return 0 if hosted else 1
