"""The synthetic workloads of Llumnix (Sun et al., OSDI'24, §6.1): power-law lengths with Poisson or gamma arrivals.

Lengths: a Zipf law on ranks 1 .. 2 mean - 1 whose exponent goes with the mean, scaled so that the mean is met, rounded up,
at most 6,144 tokens (benchmark_throughput.py of its artifact).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from simulator.traces.arrivals import gamma_arrivals, generator
from simulator.traces.requests import TraceRequest

EXPONENTS = {128: 2.0, 256: 1.5, 512: 1.15, 1_024: 1.0005}
"""Exponent by mean length, as the artifact has them."""
LONGEST = 6_144


def lengths(mean: int, rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` lengths [tokens, int64] of this mean. Raises ValueError for a mean the artifact has no exponent for."""
    if mean not in EXPONENTS:
        raise ValueError(f"mean length {mean}: published are {', '.join(map(str, EXPONENTS))}")
    ranks = np.arange(1, 2 * mean)
    weights = ranks ** -EXPONENTS[mean]
    weights /= weights.sum()
    scale = mean / float((ranks * weights).sum())
    drawn = rng.choice(ranks, size=count, p=weights) * scale
    return np.minimum(np.ceil(drawn), LONGEST).astype(np.int64)


def power_law(
    input_mean: int, output_mean: int, rate: float, count: int, seed: int, *, cv: float = 1.0
) -> Iterator[TraceRequest]:
    """`count` requests, the first at 0 s. Raises ValueError as `lengths` and `gamma_arrivals`."""
    inputs = lengths(input_mean, generator(seed, "powerlaw", "input"), count).tolist()
    outputs = lengths(output_mean, generator(seed, "powerlaw", "output"), count).tolist()
    times = gamma_arrivals(rate, cv, generator(seed, "powerlaw", "arrivals"))
    first = math.nan
    for number, (at, given, wanted) in enumerate(zip(times, inputs, outputs, strict=False), start=1):
        first = at if number == 1 else first
        yield TraceRequest(number, at - first, given, wanted)
