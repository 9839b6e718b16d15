"""Fewer points for the same picture."""

from __future__ import annotations

import numpy as np

from console.demo.findings import Column


def thinned(seconds: Column, values: Column, most: int = 720, how: str = "mean") -> tuple[Column, Column]:
    """At most about `most` points: means (or `max`) over equal numbers of samples; unchanged when short enough."""
    size = int(seconds.size)
    if size <= most:
        return seconds, values
    chunk = -(-size // most)
    starts = np.arange(0, size, chunk)
    if how == "max":
        return seconds[starts], np.maximum.reduceat(values, starts)
    counts = np.diff(np.append(starts, size))
    return seconds[starts], np.add.reduceat(values, starts) / counts


def changes(seconds: Column, *series: Column) -> tuple[Column, list[Column]]:
    """Only the samples where any step series changes, with the first and the last: exact for step plots."""
    if seconds.size < 3:
        return seconds, list(series)
    keep = np.zeros(seconds.size, dtype=bool)
    keep[[0, -1]] = True
    for values in series:
        keep[1:] |= np.diff(values) != 0.0
    return seconds[keep], [values[keep] for values in series]
