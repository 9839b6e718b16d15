"""Requests for a histogram of sizes: lengths inside its buckets, and Poisson arrivals.

Where the trace that a histogram was made from is at hand (beside the data folder), its lengths are taken; the histogram of
them must be the given one. Else lengths are drawn: a bucket by its share, a length inside it by the monotone (PCHIP) curve
through the cumulative shares of inputs and outputs. On the histograms whose traces are known this overstates the load less
than the traces do (docs/designs/0022), so it is the harder of the two for a planner that knows sizes.
"""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from placement.profiles.grid import Grid, upper_edge_histogram
from simulator.traces.requests import TraceRequest

Floats = NDArray[np.float64]

TRACES = {"azure_conv": "live-migration/azure2023_conv.csv"}
"""Histograms whose trace may lie beside the data folder."""

SAME = 1e-6
"""Largest difference of a share at which a histogram is that of a trace."""

FINE = 400
"""Points at which the cumulative curve is inverted in each bucket."""


class Sizes(msgspec.Struct, frozen=True):
    """Prompt and output tokens of a sample of requests, and where they come from."""

    inputs: Floats
    outputs: Floats
    source: str


def sizes_of(folder: Path, name: str, grid: Grid, shares: Floats, seed: int, count: int = 20_000) -> Sizes:
    """Lengths for the histogram `shares` [inputs x outputs] (upper edges)."""
    path = folder.parent / TRACES.get(name, "")
    if name in TRACES and path.is_file():
        inputs, outputs = _trace(path)
        there = upper_edge_histogram(grid, inputs, outputs, 1.0)
        if np.abs(there - shares / shares.sum()).max() < SAME:
            return Sizes(inputs, outputs, "trace")
    return Sizes(
        *drawn(grid, shares, np.random.Generator(np.random.PCG64(seed)), count), "drawn within buckets"
    )


def drawn(grid: Grid, shares: Floats, rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """`count` lengths whose histogram is `shares` in expectation."""
    cells = rng.choice(shares.size, count, p=(shares / shares.sum()).ravel())
    rows, columns = np.divmod(cells, shares.shape[1])
    return (
        _inside(grid.input_edges, shares.sum(axis=1), rows, rng),
        _inside(grid.output_edges, shares.sum(axis=0), columns, rng),
    )


def _inside(
    edges: tuple[int, ...], weights: Floats, buckets: NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """A length inside each bucket, by the monotone curve through the cumulative weights; whole tokens, at least 1."""
    ends = np.concatenate([[0.0], np.array(edges, dtype=np.float64)])
    cumulative = np.concatenate([[0.0], np.cumsum(weights) / weights.sum()])
    points = np.unique(np.concatenate([np.linspace(a, b, FINE) for a, b in itertools.pairwise(ends)]))
    curve = np.maximum.accumulate(PchipInterpolator(ends, cumulative)(points))
    low, high = cumulative[buckets], cumulative[buckets + 1]
    found = np.interp(low + (high - low) * rng.random(len(buckets)), curve, points)
    clipped = np.clip(found, np.maximum(ends[buckets], 1e-9), ends[buckets + 1])
    return np.asarray(np.maximum(np.ceil(clipped), 1.0))


def _trace(path: Path) -> tuple[Floats, Floats]:
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return (
        np.array([float(row["ContextTokens"]) for row in rows]),
        np.array([float(row["GeneratedTokens"]) for row in rows]),
    )


def poisson(sizes: Sizes, per_second: float, seconds: float, seed: int) -> list[TraceRequest]:
    """Poisson arrivals over `seconds`, each with a size of the sample."""
    rng = np.random.Generator(np.random.PCG64(seed))
    count = int(rng.poisson(per_second * seconds))
    at = np.sort(rng.random(count)) * seconds
    which = rng.integers(0, len(sizes.inputs), count)
    return [
        TraceRequest(
            line=number, arrived_seconds=float(when), input_tokens=int(sizes.inputs[each]), output_tokens=int(sizes.outputs[each])
        )
        for number, (when, each) in enumerate(zip(at, which, strict=True))
    ]  # fmt: skip
