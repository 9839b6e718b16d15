"""Arrival times with given statistics, and changes of a stream's rate. Seeded; never the global generator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
import numpy as np

from cluster.seeds import stable_hash
from simulator.traces.requests import TraceRequest

CHUNK = 65_536


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A random stream of its own for each seed and name."""
    return np.random.Generator(np.random.PCG64(stable_hash(seed, *names)))


def gamma_arrivals(rate: float, cv: float, rng: np.random.Generator) -> Iterator[float]:
    """Endless arrival times [s] of a renewal process: gamma inter-arrivals of mean 1/rate and this CV; 1 is Poisson.

    Raises ValueError when rate or cv is not positive.
    """
    if not (rate > 0.0 and cv > 0.0):
        raise ValueError(f"rate {rate} and cv {cv} must be greater than 0")
    shape = 1.0 / cv**2
    now = 0.0
    while True:
        for gap in rng.gamma(shape, 1.0 / (rate * shape), size=CHUNK).tolist():
            now += gap
            yield now


def poisson_arrivals(rate: float, rng: np.random.Generator) -> Iterator[float]:
    """Endless arrival times [s] of a Poisson process. Raises ValueError when rate is not positive."""
    return gamma_arrivals(rate, 1.0, rng)


def faster(requests: Iterable[TraceRequest], factor: float) -> Iterator[TraceRequest]:
    """The same requests `factor` times as fast. Raises ValueError when it is not positive."""
    if not factor > 0.0:
        raise ValueError(f"a rate is multiplied by more than 0, not {factor}")
    for request in requests:
        yield msgspec.structs.replace(request, arrived_seconds=request.arrived_seconds / factor)


def within(
    requests: Iterable[TraceRequest], seconds: float, most: int | None = None
) -> Iterator[TraceRequest]:
    """Those that arrive before `seconds`, and no more than `most`."""
    for count, request in enumerate(requests):
        if request.arrived_seconds >= seconds or (most is not None and count >= most):
            return
        yield request
