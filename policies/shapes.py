"""The shape of a load: how requests are spread over sizes, moved between token grids and kept steady.

A request of x tokens between two edges counts partly at each (bilinear hat weights), so that the load of a
variant is the sum over cells of share / throughput (research: gpu-selection §2.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cluster.serving import LoadHistogram, Service
from cluster.sizes import hat
from cluster.targets import LoadShape

Floats = NDArray[np.float64]

DEFAULT_INPUT_TOKENS, DEFAULT_OUTPUT_TOKENS = 1_000.0, 200.0
"""Size of a request nobody declared and nobody has seen."""

DEFAULT_EDGES: tuple[tuple[int, ...], tuple[int, ...]] = (
    (32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768),
    (16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096),
)
"""Token edges (input, output) that gateways measure on and profiles are made for unless configured."""

SHARE_DIGITS = 5
"""Decimals kept of a share: below the noise of a thousand requests, and short in JSON."""


@lru_cache(maxsize=64)
def _matrix(source: tuple[int, ...], target: tuple[int, ...]) -> Floats:
    """Hat weights [source edges x target edges]."""
    weights = np.zeros((len(source), len(target)))
    for row, tokens in enumerate(source):
        column, up = hat(target, tokens)
        weights[row, column] += 1.0 - up
        if up:
            weights[row, column + 1] += up
    return weights


def projected(
    cells: Sequence[float] | Floats,
    source: tuple[tuple[int, ...], tuple[int, ...]],
    target: tuple[tuple[int, ...], tuple[int, ...]],
) -> Floats:
    """Row-major cells of a `source` grid (input, output edges) as row-major cells of a `target` grid."""
    flat: Floats = np.asarray(cells, dtype=np.float64)
    if source == target:
        return flat
    grid = flat.reshape(len(source[0]), len(source[1]))
    moved: Floats = (_matrix(source[0], target[0]).T @ grid @ _matrix(source[1], target[1])).ravel()
    return moved


def declared(service: Service) -> LoadShape:
    """The shape the user declares: every class alike, all requests of the expected size."""
    edges = DEFAULT_EDGES
    row, up = hat(edges[0], service.expected_input_tokens or DEFAULT_INPUT_TOKENS)
    column, right = hat(edges[1], service.expected_output_tokens or DEFAULT_OUTPUT_TOKENS)
    grid = np.zeros((len(edges[0]), len(edges[1])))
    grid[row, column] = (1.0 - up) * (1.0 - right)
    if up:
        grid[row + 1, column] = up * (1.0 - right)
    if right:
        grid[row, column + 1] = (1.0 - up) * right
    if up and right:
        grid[row + 1, column + 1] = up * right
    classes = sorted({objective.request_class for objective in service.objectives}) or ["default"]
    return rounded(edges, {name: grid.ravel() / len(classes) for name in classes})


def measured(histograms: Iterable[LoadHistogram]) -> LoadShape | None:
    """The shape of what was measured, on the first histogram's grid; None while nothing arrived."""
    edges: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    cells: dict[str, Floats] = {}
    for histogram in histograms:
        own = (histogram.input_edges, histogram.output_edges)
        if len(histogram.cells) != len(own[0]) * len(own[1]) or not histogram.cells:
            continue
        edges = edges or own
        cells[histogram.request_class] = np.maximum(projected(histogram.cells, own, edges), 0.0)
    total = sum(float(each.sum()) for each in cells.values())
    if edges is None or total <= 0.0:
        return None
    return rounded(edges, {name: each / total for name, each in cells.items()})


def rounded(edges: tuple[tuple[int, ...], tuple[int, ...]], cells: dict[str, Floats]) -> LoadShape:
    """A `LoadShape` of the shares, rounded, classes in name order."""
    return LoadShape(
        input_edges=edges[0],
        output_edges=edges[1],
        cells={name: tuple(np.round(cells[name], SHARE_DIGITS).tolist()) for name in sorted(cells)},
    )


def blended(old: LoadShape, new: LoadShape, weight: float) -> LoadShape:
    """`old` moved towards `new` by `weight` (0..1), on `old`'s grid."""
    edges = (old.input_edges, old.output_edges)
    source = (new.input_edges, new.output_edges)
    size = len(edges[0]) * len(edges[1])
    mixed: dict[str, Floats] = {}
    for name in {**old.cells, **new.cells}:
        before = np.asarray(old.cells.get(name, (0.0,) * size))
        after = projected(new.cells[name], source, edges) if name in new.cells else np.zeros(size)
        mixed[name] = (1.0 - weight) * before + weight * after
    return rounded(edges, mixed)


def means(shape: LoadShape) -> tuple[float, float]:
    """Mean input and output tokens of a request."""
    total = sum(np.asarray(cells) for cells in shape.cells.values())
    grid = np.asarray(total, dtype=np.float64).reshape(len(shape.input_edges), len(shape.output_edges))
    mass = max(float(grid.sum()), 1e-12)
    return (
        float(grid.sum(axis=1) @ np.asarray(shape.input_edges)) / mass,
        float(grid.sum(axis=0) @ np.asarray(shape.output_edges)) / mass,
    )


def differ(planned: LoadShape, seen: LoadShape, tolerance: float) -> bool:
    """Whether a plan made for `planned` no longer fits `seen`.

    True when mean input or output tokens or a class's share moved by more than `tolerance`, or when more
    than a fifth of `tolerance` of the requests have sizes the plan knows nothing of.
    """
    for before, after in zip(means(planned), means(seen), strict=True):
        if abs(after - before) > tolerance * before:
            return True
    edges, source = (seen.input_edges, seen.output_edges), (planned.input_edges, planned.output_edges)
    new = 0.0
    for name in sorted({*planned.cells, *seen.cells}):
        there = np.asarray(seen.cells.get(name, ()))
        known = (
            projected(planned.cells[name], source, edges) if name in planned.cells else np.zeros(len(there))
        )
        if abs(float(there.sum()) - float(known.sum())) > tolerance:
            return True
        if len(there):
            new += float(there[known <= 0.0].sum())
    return new > tolerance / 5.0
