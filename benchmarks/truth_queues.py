"""Queues whose answer is known, served by the twin's own engine: M/M/1, M/D/1 and M/G/1 under processor sharing.

One sequence at a time and a step that costs a fixed time a prompt token make an engine a first-come-first-served server:
a request's service is its prompt. A decode step whose time is proportional to its batch makes it a processor-sharing
one: in a step every request gets one token, so each is served at a rate of one over their number.

Closed forms for arrivals at rate l and services of mean s, r = l s (Kleinrock, Queueing Systems I §5.6, II §4.4):
M/M/1 response s / (1 - r), exponentially distributed; M/D/1 s (1 + r / (2 (1 - r))); M/G/1-PS s / (1 - r) whatever the distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.physics.catalogue import A10G
from simulator.physics.engine import EngineInstance
from simulator.physics.measured import MeasuredCost
from simulator.physics.sequence import EventKind
from simulator.physics.specs import EngineSpec, ModelSpec
from simulator.physics.stepcost import StepCost
from simulator.traces.arrivals import generator

Array = NDArray[np.float64]

LOAD: Final = 0.5
"""Share of the time in which the server works; the error of a mean over n requests grows as 1 / (1 - load)²."""
FINE: Final = 100_000
"""Prompt tokens in a mean service: services are whole tokens."""
TOKENS: Final = 1_000
"""Output tokens in a mean service of the processor-sharing server: arrivals wait for the end of a step."""
NEVER: Final = 1e-9
"""Seconds that a step takes beside what it works on, since no step may take none."""
BATCH: Final = 20_000
"""Requests handed to the engine at a time."""

MODEL: Final = ModelSpec(
    name="queue", parameters=1.0, weight_bytes=1, layers=1, hidden=1, kv_bytes_per_token=1
)


class Limit(NamedTuple):
    """What is known of a queue, beside what the engine did."""

    name: str
    known: float
    seen: float

    @property
    def error(self) -> float:
        """Relative, of what was seen."""
        return abs(self.seen / self.known - 1.0)


def first_come_first_served() -> EngineInstance:
    """One request at a time, `FINE` prompt tokens a second."""
    cost = StepCost(
        weights=0.0, matmul=1.0 / FINE, kv=0.0, attention=0.0, comm_token=0.0, fixed=NEVER, per_sequence=0.0
    )
    return _server(cost, 1)


def processor_sharing() -> EngineInstance:
    """Any number of requests at once; a step of n decodes takes n / `TOKENS` seconds."""
    cost = StepCost(
        weights=0.0, matmul=0.0, kv=0.0, attention=0.0, comm_token=0.0, fixed=NEVER, per_sequence=1.0 / TOKENS
    )  # fmt: skip
    return _server(cost, 100_000)


def _server(cost: StepCost, at_once: int) -> EngineInstance:
    measured = MeasuredCost(
        name="queue", source="made up: a queue with a closed form", cost=cost, kv_tokens=10**12
    )
    engine = EngineSpec(max_num_seqs=at_once, chunk_tokens=10**9, measured=measured)
    return EngineInstance(A10G, MODEL, engine)


def responses(
    engine: EngineInstance, arrivals: Array, prompts: NDArray[np.int64], outputs: NDArray[np.int64]
) -> Array:
    """Seconds from arrival to the last token of each request [n]."""
    ended = np.empty(len(arrivals))
    rows = list(zip(arrivals.tolist(), prompts.tolist(), outputs.tolist(), strict=True))
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        for number, (at, prompt, output) in enumerate(part, start):
            if engine.submit(number, prompt, output, at) is not None:
                raise ValueError(f"request {number} of {prompt} and {output} tokens was refused")
        until = part[-1][0] if start + BATCH < len(rows) else at + 1e6
        for event in engine.advance_to(until):
            if event.kind is EventKind.FINISHED:
                ended[event.request_id] = event.at_seconds
    return ended - arrivals


def limits(count: int, seed: int) -> list[Limit]:
    """Each queue with ``count`` requests (the least even M/M/1 that needs most)."""
    rng = generator(seed, "truth", "queues")
    exponential: Callable[[int], Array] = rng.standard_exponential
    one = np.ones(count, dtype=np.int64)

    def arrive(n: int) -> Array:
        return np.cumsum(exponential(n)) / LOAD

    mm1 = responses(first_come_first_served(), arrive(count), _whole(exponential(count) * FINE), one)
    md1 = responses(first_come_first_served(), arrive(count), FINE * one, one)
    found = [
        Limit("M/M/1 mean response", 1.0 / (1.0 - LOAD), float(mm1.mean())),
        Limit("M/M/1 P95 of the response", math.log(20.0) / (1.0 - LOAD), float(np.percentile(mm1, 95))),
        Limit("M/D/1 mean response", 1.0 + LOAD / (2.0 * (1.0 - LOAD)), float(md1.mean())),
    ]
    for name, sizes in _sizes(rng, count).items():
        shared = responses(processor_sharing(), arrive(count), one, _whole(sizes * TOKENS) + 1)
        found.append(Limit(f"M/{name}/1-PS mean response", 1.0 / (1.0 - LOAD), float(shared.mean())))
    return found


def _sizes(rng: np.random.Generator, count: int) -> dict[str, Array]:
    """Services of mean 1: all alike, and a mixture of two exponentials with a squared CV of 3."""
    high = rng.random(count) < (1.0 + math.sqrt(0.5)) / 2.0
    rate = np.where(high, 1.0 + math.sqrt(0.5), 1.0 - math.sqrt(0.5))
    return {"D": np.ones(count), "H2": rng.standard_exponential(count) / rate}


def _whole(tokens: Array) -> NDArray[np.int64]:
    return np.maximum(np.rint(tokens), 1).astype(np.int64)
