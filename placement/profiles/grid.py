"""The grid of request sizes, soft histograms on it, and what may be routed where.

A request of I input and O output tokens between four grid points counts in each of them with its bilinear hat
weight. Its load on a variant is then the weighted sum of 1 / throughput: within 1.3 % of the exact load over real
traces, where rounding each request up to the next grid point overstates it by 56 to 103 %.

Ends of the grid: sizes below the first edge count at the first edge (their load is overstated a little), sizes
above the last edge at the last edge (their load is *under*stated: `SoftHistogram.clamped` says how many there are).

A request may go to a variant only if the upper corner of its grid rectangle is feasible there; an infeasible corner
is never blended. The cells of a soft histogram do not remember the rectangle, so `routable` judges by what could
have put weight there.
"""

from __future__ import annotations

import itertools
import math

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class GridError(ValueError):
    """A grid, profile or histogram has the wrong shape or content; the sentence says where and what to do."""


class Grid(msgspec.Struct, frozen=True):
    """Rising token counts at which profiles are known: inputs (rows) and outputs (columns)."""

    input_edges: tuple[int, ...]
    output_edges: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(inputs, outputs)."""
        return len(self.input_edges), len(self.output_edges)

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.input_edges) * len(self.output_edges)

    def checked(self) -> Grid:
        """The grid itself; GridError unless both edges rise strictly from a positive count."""
        for name, edges in (("input_edges", self.input_edges), ("output_edges", self.output_edges)):
            if not edges or edges[0] <= 0 or any(a >= b for a, b in itertools.pairwise(edges)):
                raise GridError(f"{name} are {edges}; list token counts that rise strictly, from 1 or more")
        return self


DEFAULT_GRID = Grid(
    (25, 100, 250, 500, 1000, 2000, 4000, 8000, 12000, 16000), (25, 100, 250, 500, 1000, 2000)
)
"""Sizes of Melange's profiles, continued to long prompts."""


class SoftHistogram(msgspec.Struct, frozen=True):
    """Hat weights [inputs x outputs] times rate, in requests per second, and the share clamped at the upper ends."""

    grid: Grid
    cells: Floats
    clamped: float


def hat_weights(edges: tuple[int, ...], values: Floats) -> tuple[Ints, Floats]:
    """Lower neighbour and weight of the *upper* one for each value, after clamping to the ends."""
    points = np.array(edges, dtype=np.float64)
    if len(points) == 1:
        return np.zeros(len(values), dtype=np.int64), np.zeros(len(values))
    clamped = np.clip(values, points[0], points[-1])
    lower = np.clip(np.searchsorted(points, clamped, side="right") - 1, 0, len(points) - 2)
    upper_weight = (clamped - points[lower]) / (points[lower + 1] - points[lower])
    return lower.astype(np.int64), upper_weight


def soft_histogram(grid: Grid, inputs: Floats, outputs: Floats, requests_per_second: float) -> SoftHistogram:
    """Histogram of a sample of requests that arrive at ``requests_per_second`` in all.

    ``inputs`` and ``outputs`` are token counts of equal length. GridError for NaN, negative counts or lengths.
    """
    grid.checked()
    if len(inputs) != len(outputs):
        raise GridError(f"{len(inputs)} input and {len(outputs)} output counts; give both for every request")
    if not (math.isfinite(requests_per_second) and requests_per_second >= 0.0):
        raise GridError(f"rate is {requests_per_second} requests/s; it must be a finite number of at least 0")
    cells = np.zeros(grid.shape)
    if not len(inputs):
        return SoftHistogram(grid, cells, 0.0)
    for name, values in (("input", inputs), ("output", outputs)):
        if not (np.isfinite(values) & (values >= 0)).all():
            where = int(np.flatnonzero(~(np.isfinite(values) & (values >= 0)))[0])
            raise GridError(f"{name} tokens of request {where} are {values[where]}; count tokens from 0")
    row, row_weight = hat_weights(grid.input_edges, inputs)
    column, column_weight = hat_weights(grid.output_edges, outputs)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = (row_weight if down else 1.0 - row_weight) * (
            column_weight if right else 1.0 - column_weight
        )
        rows = np.minimum(row + down, grid.shape[0] - 1)
        columns = np.minimum(column + right, grid.shape[1] - 1)
        np.add.at(cells, (rows, columns), weight)
    beyond = (inputs > grid.input_edges[-1]) | (outputs > grid.output_edges[-1])
    return SoftHistogram(grid, cells * (requests_per_second / len(inputs)), float(beyond.mean()))


def upper_edge_histogram(grid: Grid, inputs: Floats, outputs: Floats, requests_per_second: float) -> Floats:
    """The hard histogram of Melange's rule: each request at the first edges not below it, the last edge clamps."""
    grid.checked()
    rows = np.minimum(np.searchsorted(grid.input_edges, inputs), grid.shape[0] - 1)
    columns = np.minimum(np.searchsorted(grid.output_edges, outputs), grid.shape[1] - 1)
    cells = np.zeros(grid.shape)
    np.add.at(cells, (rows, columns), 1.0)
    return cells * (requests_per_second / max(1, len(inputs)))


def routable(cells: Floats, throughput: Floats) -> NDArray[np.bool_]:
    """Which cells' demand may go to a variant of ``throughput`` [inputs x outputs].

    A cell is routable where its own throughput is positive and so is that of each upper neighbour that carries
    demand: requests that put weight on the neighbour may have put weight here, and the neighbour is their upper
    corner. Nothing is ever routed across an infeasible corner; sizes near one may be refused needlessly.
    """
    feasible = throughput > 0.0
    suspect = (cells > 0.0) & ~feasible
    blocked = np.zeros_like(suspect)
    blocked[:-1, :] |= suspect[1:, :]
    blocked[:, :-1] |= suspect[:, 1:]
    blocked[:-1, :-1] |= suspect[1:, 1:]
    allowed: NDArray[np.bool_] = feasible & ~blocked
    return allowed


def load(cells: Floats, throughput: Floats) -> float:
    """Replicas kept busy by ``cells`` on a variant: sum of weight / throughput, inf when a cell is not routable."""
    wanted = cells > 0.0
    if not routable(cells, throughput)[wanted].all():
        return math.inf
    return float((cells[wanted] / throughput[wanted]).sum())


def check_profile(name: str, grid: Grid, throughput: Floats) -> tuple[str, ...]:
    """Sentences about a profile's defects that can be lived with (holes); GridError for those that cannot.

    Wrong shape (a transposed grid is named), NaN and negative figures are errors. A zero with a larger feasible
    size beyond it is a hole: it stays infeasible, and a sentence says so.
    """
    grid.checked()
    if throughput.shape != grid.shape:
        hint = "; it looks transposed" if throughput.shape == grid.shape[::-1] else ""
        raise GridError(
            f"profile {name} has shape {throughput.shape}, its grid {grid.shape} (inputs, outputs){hint}"
        )
    bad = ~(np.isfinite(throughput) & (throughput >= 0.0))
    if bad.any():
        i, j = (int(k) for k in np.argwhere(bad)[0])
        raise GridError(
            f"profile {name} is {throughput[i, j]} at {grid.input_edges[i]} input and {grid.output_edges[j]} output "
            "tokens; measure that size again, or write 0 for infeasible"
        )
    return tuple(
        f"profile {name} is 0 at {grid.input_edges[i]} input and {grid.output_edges[j]} output tokens though a larger "
        "size works; the size is not routed there, measure it again"
        for i, j in np.argwhere(throughput == 0.0).tolist()
        if (throughput[i:, j:] > 0.0).any()
    )


def mean_concurrency(cells: Floats, throughput: Floats, concurrency: Floats) -> float:
    """Mean running requests of a busy replica at its limit: cells weigh by the time they keep it busy.

    Without routable demand, the mean over all feasible cells; 1 when there is none.
    """
    feasible = (throughput > 0.0) & (concurrency > 0.0)
    busy = np.where(feasible & (cells > 0.0), cells / np.where(feasible, throughput, 1.0), 0.0)
    if busy.sum() <= 0.0:
        busy = feasible.astype(np.float64)
    if busy.sum() <= 0.0:
        return 1.0
    return max(1.0, float((busy * concurrency).sum() / busy.sum()))


def implied_concurrency(grid: Grid, throughput: Floats, tpot_seconds: float, most: float = 256.0) -> Floats:
    """Running requests at the limit for a profile that lists throughput only (Little's law at the TPOT limit)."""
    outputs = np.array(grid.output_edges, dtype=np.float64)[None, :]
    running: Floats = np.minimum(most, throughput * outputs * tpot_seconds)
    return running
