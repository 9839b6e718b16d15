"""What gateways measure: load in soft histograms over a window, what is held, and what each instance has to do."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

from cluster import events as ev
from cluster.serving import LoadHistogram
from gateway.histogram import SoftHistogram
from policies.shapes import DEFAULT_EDGES
from simulator.world.core import Event
from simulator.world.served import Served

WINDOW_SECONDS, BUCKET_SECONDS = 60.0, 5.0
"""The gateway's window of all rates, and its time step."""
EARLY_SECONDS = 1e-6
"""How long before its moment a gateway measures: what arrives at that very moment is of the time after it."""


class Load:
    """Measured load of one service; arrivals are told in the world's seconds, counted in UTC."""

    __slots__ = ("_histogram", "_origin", "_refused", "last_seconds")

    def __init__(self, origin_seconds: float) -> None:
        inputs, outputs = ([float(edge) for edge in edges] for edges in DEFAULT_EDGES)
        self._histogram = SoftHistogram(
            tuple(inputs), tuple(outputs), WINDOW_SECONDS, BUCKET_SECONDS, origin_seconds
        )
        self._origin = origin_seconds
        self._refused: deque[tuple[float, int]] = deque([(origin_seconds, 0)])
        self.last_seconds = 0.0

    def add(self, at_seconds: float, prompt_tokens: int, output_tokens: int) -> None:
        """Count an arrival, whatever becomes of it."""
        self._histogram.add(at_seconds + self._origin, prompt_tokens, output_tokens)

    def report(self, service: Served, now_seconds: float) -> tuple[LoadHistogram, dict[str, float]]:
        """The histogram of a service at a UTC time, and its row of signals."""
        cells, width = self._histogram.rates(now_seconds)
        rate, held = float(cells.sum()), len(service.held)
        self._refused.append((now_seconds, service.refused))
        while len(self._refused) > 1 and self._refused[0][0] < now_seconds - WINDOW_SECONDS:
            self._refused.popleft()
        began, before = self._refused[0]
        rejected = (service.refused - before) / max(1.0, now_seconds - began)
        histogram = LoadHistogram(
            service=service.name, input_edges=DEFAULT_EDGES[0], output_edges=DEFAULT_EDGES[1],
            cells=tuple(cells.tolist()), window_seconds=width, held_per_second=held / max(width, 1.0),
            rejected_per_second=rejected, observed_seconds=now_seconds,
        )  # fmt: skip
        if rate > 0.0 or held:
            self.last_seconds = now_seconds
        signals = {
            "requests_per_second": rate, "held": float(held), "rejected_per_second": rejected, "size_plans": 1.0
        }  # fmt: skip
        if self.last_seconds:
            signals["last_arrival_seconds"] = self.last_seconds
        return histogram, signals


def measure(_: float, subject: float, world: Any) -> Iterable[Event]:
    """The gateways tell the operator what they measured; `subject` is the moment that was meant."""
    now = world.origin + subject
    histograms, signals = [], {}
    instances: dict[str, dict[str, float]] = {}
    for service in world.services:
        histogram, row = service.load.report(service, now)
        histograms.append(histogram)
        signals[service.name] = row
        instances |= _instances(service)
    report = ev.LoadReport(
        source="gateways", observed_seconds=now, delivered_seconds=now, gateway="gateway",
        histograms=tuple(histograms), signals=signals, instances=instances,
    )  # fmt: skip
    fold = world.observer.fold
    world.ears.put(now + world.spec.delays.gateway_seconds, lambda _: fold(report))
    again = subject + world.spec.delays.report_seconds
    return ((again - EARLY_SECONDS, measure, again),)


def _instances(service: Served) -> dict[str, dict[str, float]]:
    """Requests that each instance of a service owns, as far as a gateway knows."""
    table = service.front.rows.table
    owned = np.nan_to_num(table.running) + np.nan_to_num(table.waiting) + table.pending
    return {
        key: {"pending": float(owned[row]), "pending_tokens": float(table.pending_tokens[row])}
        for row, key in enumerate(table.keys)
        if table.observed_seconds[row] == table.observed_seconds[row] or owned[row]
    }
