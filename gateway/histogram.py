"""Measured load: soft histograms of arrivals and latencies of what finished, over one sliding window.

A request of `x` tokens between edges `a < x < b` counts `(b - x)/(b - a)` in `a` and the rest in `b`, in both
directions: sums over requests of these bilinear hat weights, multiplied by the load at the edges, give the load
within about one per cent, where rounding up to the next edge overstates it by half (research: gpu-selection §2.4).
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cluster.sizes import hat

DEFAULT_INPUT_EDGES = (
    32.0,
    64.0,
    128.0,
    256.0,
    512.0,
    1_024.0,
    2_048.0,
    4_096.0,
    8_192.0,
    16_384.0,
    32_768.0,
)
DEFAULT_OUTPUT_EDGES = (16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0)


def check_edges(edges: tuple[float, ...], what: str) -> tuple[float, ...]:
    """Return `edges` when there is at least one and they are positive and ascend, else raise ValueError."""
    if not edges or edges[0] <= 0 or any(b <= a for a, b in pairwise(edges)):
        raise ValueError(f"The {what} edges {edges} must be positive and strictly ascending, at least one.")
    return edges


class SoftHistogram:
    """Arrivals per second on a grid of (input, output) tokens over the last `window_seconds`, and up to a bucket more.

    Time is cut into buckets of `bucket_seconds` at absolute multiples, so that the result does not depend on
    how the arrivals were split into calls. Memory is bounded by window / bucket grids.
    """

    __slots__ = (
        "_bucket_seconds",
        "_buckets",
        "_cells",
        "_current",
        "_inputs",
        "_outputs",
        "_since",
        "_width",
        "window_seconds",
    )

    def __init__(
        self,
        input_edges: tuple[float, ...],
        output_edges: tuple[float, ...],
        window_seconds: float,
        bucket_seconds: float,
        since_seconds: float,
    ) -> None:
        self._inputs = check_edges(input_edges, "input")
        self._outputs = check_edges(output_edges, "output")
        self._width = len(output_edges)
        self.window_seconds = window_seconds
        self._bucket_seconds = bucket_seconds
        self._since = since_seconds
        self._buckets: deque[tuple[int, list[float]]] = deque()
        self._current = -1
        self._cells: list[float] = []

    def add(self, at_seconds: float, prompt_tokens: int, output_tokens: int) -> None:
        """Count one request at a time not much older than the newest one. About 1.5 µs."""
        bucket = int(at_seconds // self._bucket_seconds)
        if bucket > self._current:
            self._current = bucket
            self._cells = [0.0] * (len(self._inputs) * self._width)
            self._buckets.append((bucket, self._cells))
            self._forget(at_seconds)
        row, up = hat(self._inputs, prompt_tokens)
        column, right = hat(self._outputs, output_tokens)
        cells = self._cells
        cell = row * self._width + column
        cells[cell] += (1.0 - up) * (1.0 - right)
        if right:
            cells[cell + 1] += (1.0 - up) * right
        if up:
            cells[cell + self._width] += up * (1.0 - right)
            if right:
                cells[cell + self._width + 1] += up * right

    def rates(self, now_seconds: float) -> tuple[NDArray[np.float64], float]:
        """Return (row-major cells in requests per second, seconds that they are means over).

        The width is the configured window and up to one bucket more, or less when the histogram is younger,
        but never under one second.
        """
        self._forget(now_seconds)
        width = max(1.0, now_seconds - max(self._oldest(now_seconds) * self._bucket_seconds, self._since))
        if not self._buckets:
            return np.zeros(len(self._inputs) * self._width), width
        return np.array([cells for _, cells in self._buckets]).sum(axis=0) / width, width

    def _oldest(self, now_seconds: float) -> int:
        """The first bucket of the window: the configured width lies wholly inside it and what follows."""
        return int(now_seconds // self._bucket_seconds) - round(self.window_seconds / self._bucket_seconds)

    def _forget(self, now_seconds: float) -> None:
        oldest = self._oldest(now_seconds)
        while self._buckets and self._buckets[0][0] < oldest:
            self._buckets.popleft()


class LatencyWindow:
    """Time to first token and time per output token of what finished in the last `window_seconds`.

    A ring of `capacity` entries: at higher rates the window becomes shorter, memory does not grow.
    """

    __slots__ = ("_at", "_attained", "_capacity", "_count", "_tpot", "_ttft", "_window_seconds")

    def __init__(self, window_seconds: float, capacity: int = 4_096) -> None:
        self._window_seconds = window_seconds
        self._capacity = capacity
        self._at = np.full(capacity, -np.inf)
        self._ttft = np.zeros(capacity)
        self._tpot = np.zeros(capacity)
        self._attained = np.zeros(capacity, dtype=np.bool_)
        self._count = 0

    def add(self, at_seconds: float, ttft_seconds: float, tpot_seconds: float, attained: bool) -> None:
        """Count one finished request."""
        slot = self._count % self._capacity
        self._count += 1
        self._at[slot] = at_seconds
        self._ttft[slot] = ttft_seconds
        self._tpot[slot] = tpot_seconds
        self._attained[slot] = attained

    def summary(self, now_seconds: float, percentile: float) -> tuple[int, int, float | None, float | None]:
        """Return (finished, attained, TTFT and TPOT at `percentile` or None when nothing finished)."""
        if not self._count:
            return 0, 0, None, None
        recent = self._at[: self._count] > now_seconds - self._window_seconds
        finished = int(np.count_nonzero(recent))
        if not finished:
            return 0, 0, None, None
        rank = min(finished - 1, int(percentile * finished))
        ttft = np.partition(self._ttft[: self._count][recent], rank)[rank]
        tpot = np.partition(self._tpot[: self._count][recent], rank)[rank]
        attained = int(np.count_nonzero(self._attained[: recent.size] & recent))
        return finished, attained, float(ttft), float(tpot)
