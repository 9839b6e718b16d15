"""What planning by size needs beside blends: where a size must not go, and how many requests share a replica.

The rules are those of `placement.selection.sized`, on a service's frame and the engines as they are: nothing is routed across an
infeasible corner of the grid; a variant whose prompts of some size leave less than a quarter of the promise of the first token
for waiting gets none of that size, unless they are rarer than the promise minds; and the concurrency of a pool's headroom is the
harmonic mean over its load.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.size_plan import StepFigures
from placement.profiles.grid import Grid, implied_concurrency, routable
from placement.selection.headroom import RHO_SLOPE
from placement.selection.sized import RARE, SLOPE, TTFT_SHARE, scattered_concurrency
from policies.frames import Column, Floats, Frame

Masks = dict[str, NDArray[np.bool_]]
"""Cells that a variant may be planned for, by its key [classes x inputs x outputs, flat]."""


def allowed_cells(frame: Frame, shares: Floats) -> Masks:
    """Where each variant may be planned for a load of these shares; a cell that none may have is open to all that are able."""
    found = {key: _allowed(frame, key, shares) for key in frame.profiles}
    if not found:
        return found
    nobody = ~np.any(list(found.values()), axis=0)
    return {key: mask | (nobody & (frame.profiles[key].throughput > 0.0)) for key, mask in found.items()}


def _allowed(frame: Frame, key: str, shares: Floats) -> NDArray[np.bool_]:
    profile = frame.profiles[key]
    size = len(frame.edges[0]) * len(frame.edges[1])
    shape = (len(frame.edges[0]), len(frame.edges[1]))
    parts = []
    for number, promise in enumerate(frame.promises):
        cells = shares[number * size : (number + 1) * size].reshape(shape)
        mask = routable(cells, profile.throughput[number * size : (number + 1) * size].reshape(shape))
        if profile.steps is not None:
            prompts = np.array(frame.edges[0], dtype=np.float64)
            late = (
                first_seconds(profile.steps, prompts, promise.tpot_seconds)
                > TTFT_SHARE * promise.ttft_seconds
            )
            if cells[late].sum() > RARE * cells.sum():
                mask[late] = False
        parts.append(mask.ravel())
    return np.concatenate(parts)


def first_seconds(steps: StepFigures, prompts: Floats, tpot_seconds: float) -> Floats:
    """Time to the first token of prompts that do not wait [n]: their arithmetic, and a promised step beside each chunk."""
    chunks = np.ceil(prompts / steps.chunk_tokens)
    found: Floats = prompts * steps.prompt_seconds + steps.pair_seconds * prompts**2 + chunks * tpot_seconds
    return found


def concurrency(frame: Frame, column: Column, shares: Floats, mask: NDArray[np.bool_]) -> float:
    """Concurrency with which the solver's headroom of two deviations is the one that spilling dispatch needs.

    A load of several classes is weighed over all of them, each at its own promise.
    """
    size = len(frame.edges[0]) * len(frame.edges[1])
    grid = Grid(frame.edges[0], frame.edges[1])
    shape = (len(frame.edges[0]), len(frame.edges[1]))
    rates = np.where(mask, column.profile.throughput, 0.0)
    running = np.concatenate(
        [
            implied_concurrency(
                grid, rates[n * size : (n + 1) * size].reshape(shape), promise.tpot_seconds
            ).ravel()
            for n, promise in enumerate(frame.promises)
        ]
    )
    return scattered_concurrency(shares, rates, running) * (RHO_SLOPE / SLOPE) ** 2
