"""Poisson arrivals whose rate goes in steps, and requests drawn from a measured histogram of sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from simulator.traces.arrivals import generator
from simulator.traces.requests import TraceRequest


def stepped(
    steps: Sequence[tuple[float, float]],
    input_tokens: int,
    output_tokens: int,
    until_seconds: float,
    seed: int,
) -> Iterator[TraceRequest]:
    """Requests of one size at `(from second, per second)` rates in force from then on, until `until_seconds`.

    Each step draws from a stream of its own, so that a change of one leaves the others as they were.
    """
    line = 0
    for number, (begins, rate) in enumerate(steps):
        ends = steps[number + 1][0] if number + 1 < len(steps) else until_seconds
        if rate <= 0.0:
            continue
        rng = generator(seed, "steps", number)
        at = begins
        while (at := at + float(rng.exponential(1.0 / rate))) < min(ends, until_seconds):
            line += 1
            yield TraceRequest(line, at, input_tokens, output_tokens)


def as_measured(
    input_edges: Sequence[int],
    output_edges: Sequence[int],
    cells: Sequence[float],
    until_seconds: float,
    seed: int,
    *names: str,
) -> Iterator[TraceRequest]:
    """Poisson requests at the rate of a histogram (row-major requests per second on a grid of token edges) and of its sizes."""
    rates = np.asarray(cells, dtype=np.float64)
    total = float(rates.sum())
    if total <= 0.0:
        return
    rng = generator(seed, "measured", *names)
    columns = len(output_edges)
    at, line = 0.0, 0
    while (at := at + float(rng.exponential(1.0 / total))) < until_seconds:
        cell = int(rng.choice(len(rates), p=rates / total))
        line += 1
        yield TraceRequest(line, at, int(input_edges[cell // columns]), int(output_edges[cell % columns]))
