"""Series of a run for the plots: distributions of latency, and what finished over time."""

from __future__ import annotations

from typing import Any

import numpy as np

from simulator.world.world import Outcome

LEVELS = (*(n / 100.0 for n in range(100)), 0.995, 0.999)
"""Quantiles that are kept of latencies, for their distribution."""
BINS = 120
"""Pieces that the time of a run is cut into for its series."""


def series_of(world: Any, outcome: Outcome) -> dict[str, tuple[float, ...]]:
    """Series by name; nothing where nothing finished."""
    book = world.book
    if not book.completed:
        return {}
    edges = np.linspace(0.0, max(outcome.seconds, 1e-9), BINS + 1)
    width = edges[1] - edges[0]
    finished, _ = np.histogram(book.finished_seconds, edges)
    tokens, _ = np.histogram(book.finished_seconds, edges, weights=book.output_tokens)
    return {
        "ttft_seconds": tuple(np.quantile(book.ttft_seconds, LEVELS).tolist()),
        "tpot_seconds": tuple(np.quantile(book.tpot_seconds, LEVELS).tolist()),
        "seconds": tuple((edges[:-1] + width / 2).tolist()),
        "finished_per_second": tuple((finished / width).tolist()),
        "tokens_per_second": tuple((tokens / width).tolist()),
    }
