"""Sums over time in bins of equal width, as many as are ever kept: when they are full, two become one."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

MOST_BINS = 2_048


class Timeline:
    """What was added, by column and bin. Samples come at equal steps of `step_seconds`, the last one may be shorter."""

    __slots__ = ("_columns", "_full", "_open", "_per_bin", "_samples", "step_seconds")

    def __init__(self, step_seconds: float) -> None:
        self.step_seconds = step_seconds
        self._columns: dict[str, array[float]] = {}
        self._open: dict[str, float] = {}
        self._full = self._samples = 0
        self._per_bin = 1

    def add(self, values: Mapping[str, float]) -> None:
        """What came to each column in the step that ends now."""
        for name, value in values.items():
            self._open[name] = self._open.get(name, 0.0) + value
        self._samples += 1
        if self._samples == self._per_bin:
            self._close()

    @property
    def width_seconds(self) -> float:
        """Seconds of a bin."""
        return self._per_bin * self.step_seconds

    def columns(self) -> dict[str, NDArray[np.float64]]:
        """Sums by column [bins], the bin under way among them."""
        bins = self._full + (self._samples > 0)
        found = {}
        for name in dict.fromkeys([*self._columns, *self._open]):
            values = np.zeros(bins)
            held = self._columns.get(name, ())
            values[: len(held)] = held
            if self._samples:
                values[-1] = self._open.get(name, 0.0)
            found[name] = values
        return found

    def _close(self) -> None:
        for name, value in self._open.items():
            column = self._columns.setdefault(name, array("d"))
            column.extend([0.0] * (self._full - len(column)))
            column.append(value)
        self._open, self._samples = {}, 0
        self._full += 1
        if self._full == MOST_BINS:
            for name, column in self._columns.items():
                padded = np.zeros(MOST_BINS)
                padded[: len(column)] = column
                self._columns[name] = array("d", padded.reshape(-1, 2).sum(axis=1).tolist())
            self._full, self._per_bin = MOST_BINS // 2, self._per_bin * 2
