"""Failures of nodes and GPUs: a schedule, and a hazard per node drawn from its own seeded stream.

Rates: 419 unexpected stops of 16,384 H100 in 54 days make 50.7 thousand GPU-hours between failures
(research/training-placement.md §1.6, Llama 3). How they split into kinds is assumed here.
"""

import enum
import hashlib
import heapq
import math
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
import numpy as np


class FailureKind(enum.Enum):
    """What breaks: the machine with all on it, one GPU (Xid error), or everything on it stops without a word."""

    NODE_CRASH = "node_crash"
    GPU_XID = "gpu_xid"
    HANG = "hang"


class Failure(msgspec.Struct, frozen=True, gc=False):
    """One failure; ``gpu`` is the index of the broken GPU, -1 for the other kinds. Orders by time, then node."""

    at_seconds: float
    node: str
    kind: FailureKind
    gpu: int = -1


LLAMA3_GPU_HOURS: Final = 50_700.0
"""GPU-hours between failures of the Llama 3 run."""

DEFAULT_RATES_PER_GPU_HOUR: Final[dict[FailureKind, float]] = {
    FailureKind.NODE_CRASH: 0.25 / LLAMA3_GPU_HOURS,
    FailureKind.GPU_XID: 0.60 / LLAMA3_GPU_HOURS,
    FailureKind.HANG: 0.15 / LLAMA3_GPU_HOURS,
}
"""Failures per GPU and hour, by kind."""


class FailureSource:
    """Failures to come: those of ``schedule`` and, where ``gpus`` names nodes, random ones of constant hazard.

    Each (node, kind) draws from its own stream of ``seed``, so another node or kind changes nothing for the rest.
    ``gpus`` maps node to its number of GPUs. ValueError for a negative rate.
    """

    __slots__ = ("_gpus", "_pending", "_rates", "_streams", "now")

    def __init__(
        self,
        seed: int,
        schedule: Iterable[Failure] = (),
        gpus: Mapping[str, int] | None = None,
        rates_per_gpu_hour: Mapping[FailureKind, float] | None = None,
        started_seconds: float = 0.0,
    ) -> None:
        self._rates = DEFAULT_RATES_PER_GPU_HOUR if rates_per_gpu_hour is None else dict(rates_per_gpu_hour)
        for kind, rate in self._rates.items():
            if not 0.0 <= rate < math.inf:
                raise ValueError(
                    f"the rate of {kind.value} is {rate} per GPU-hour; it must be finite, not negative"
                )
        self.now = started_seconds
        self._gpus = dict(gpus or {})
        self._pending: list[tuple[float, str, str, int, bool]] = [
            (failure.at_seconds, failure.node, failure.kind.value, failure.gpu, False) for failure in schedule
        ]
        heapq.heapify(self._pending)
        self._streams = {
            (node, kind): np.random.Generator(np.random.PCG64(_stream_key(seed, node, kind)))
            for node in self._gpus
            for kind in self._rates
        }
        for node, kind in self._streams:
            self._draw(node, kind, started_seconds)

    def next_event_seconds(self) -> float:
        """When the next failure is due; infinity when none will come."""
        return self._pending[0][0] if self._pending else math.inf

    def advance_to(self, until_seconds: float) -> list[Failure]:
        """Failures up to and including then, in order of time, node, kind."""
        due: list[Failure] = []
        while self._pending and self._pending[0][0] <= until_seconds:
            at, node, kind, gpu, drawn = heapq.heappop(self._pending)
            due.append(Failure(at, node, FailureKind(kind), gpu))
            if drawn:
                self._draw(node, FailureKind(kind), at)
        self.now = max(self.now, until_seconds)
        return due

    def _draw(self, node: str, kind: FailureKind, after: float) -> None:
        rate = self._rates[kind] * self._gpus[node] / 3600.0
        if rate <= 0.0:
            return
        stream = self._streams[node, kind]
        at = after + float(stream.exponential(1.0 / rate))
        gpu = int(stream.integers(self._gpus[node])) if kind is FailureKind.GPU_XID else -1
        heapq.heappush(self._pending, (at, node, kind.value, gpu, True))


def _stream_key(seed: int, node: str, kind: FailureKind) -> int:
    """Seed of one stream: stable across builds and processes."""
    text = f"{seed}/{node}/{kind.value}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "big")
