"""How long starts take, learned from the ones that were seen: the p99 that rollouts are judged by.

Times of starts are close to log-normal (research/cold-start.md §1.2 draws them so). The quantile believed in is that of
the *next* start given the n before it, which is wider than the sample's own while n is small: with mean m and deviation s
of the logarithms, exp(m + t(q, n - 1) s sqrt(1 + 1/n)), t being Student's quantile.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from scipy.special import stdtrit

from cluster.beliefs import StartBelief

COLD = "cold"
"""Tier of a start on a node that had not run the revision before: with the image to pull, hence the slowest."""
LEAST, MOST = 5, 200
"""Starts before anything is believed, and starts remembered per variant."""
LEAST_DEVIATION = 0.2
"""Of the logarithm: starts that were all alike so far do not make the next one certain."""


class StartTimes:
    """Durations of starts by (model, variant), and the belief they make."""

    def __init__(self) -> None:
        """Start with none."""
        self._seen: dict[tuple[str, str], deque[float]] = {}

    def learn(self, model: str, variant: str, seconds: float, now_seconds: float) -> StartBelief | None:
        """Take in one cold start; the belief, once there are enough. ValueError for a time that is not positive."""
        if not 0.0 < seconds < math.inf:
            raise ValueError(f"a start of {model} on {variant} took {seconds} s; it must be a positive time")
        seen = self._seen.setdefault((model, variant), deque(maxlen=MOST))
        seen.append(math.log(seconds))
        if len(seen) < LEAST:
            return None
        p50, p90, p99 = (next_quantile(seen, share) for share in (0.5, 0.9, 0.99))
        return StartBelief(
            model=model, variant=variant, tier=COLD, p50_seconds=p50, p90_seconds=p90, p99_seconds=p99,
            source=f"{len(seen)} starts", as_of_seconds=now_seconds,
        )  # fmt: skip


def next_quantile(logarithms: deque[float], share: float) -> float:
    """Quantile, in the unit whose logarithms are given (at least two), of the value that comes next."""
    count = len(logarithms)
    deviation = max(LEAST_DEVIATION, float(np.std(logarithms, ddof=1)))
    reach = float(stdtrit(count - 1, share)) * math.sqrt(1.0 + 1.0 / count)
    return math.exp(float(np.mean(logarithms)) + reach * deviation)
