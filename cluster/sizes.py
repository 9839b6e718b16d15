"""How a size between two points of a token grid counts: the bilinear hat weights of soft histograms and of plans by size."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence


def hat(edges: Sequence[float], tokens: float) -> tuple[int, float]:
    """Index of the edge below and weight (0..1) of the one above; beyond the ends all goes to the last edge.

    Sums over requests of these weights, times the load at the edges, give the load within about one per cent, where
    rounding up to the next edge overstates it by half (research: gpu-selection §2.4).
    """
    above = bisect_right(edges, tokens)
    if above == 0:
        return 0, 0.0
    if above == len(edges):
        return above - 1, 0.0
    low = edges[above - 1]
    return above - 1, (tokens - low) / (edges[above] - low)
