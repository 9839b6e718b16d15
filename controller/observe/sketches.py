"""Gateways' load sketches, summed over gateways, as one event of the model."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from cluster import events as ev
from cluster.observer import Observer
from cluster.serving import LoadHistogram
from controller.routes import GatewayReport, ServiceLoad

FORGET_SECONDS = 30.0
"""A gateway that has not reported for this long no longer counts: its clients have gone elsewhere."""


class SketchBook:
    """The newest sketch of every gateway. Load is the sum over gateways; latency the worst of them."""

    def __init__(self) -> None:
        """Start without gateways."""
        self._newest: dict[str, GatewayReport] = {}

    def fold(self, observer: Observer, report: GatewayReport, now_seconds: float) -> bool:
        """Take a sketch in. True when requests began to wait for a first replica."""
        self._newest[report.gateway] = report
        for name, kept in list(self._newest.items()):
            if now_seconds - kept.observed_seconds > FORGET_SECONDS:
                del self._newest[name]
        return observer.fold(
            ev.LoadReport(
                source="gateways",
                observed_seconds=report.observed_seconds,
                delivered_seconds=now_seconds,
                gateway=report.gateway,
                histograms=self._histograms(report.observed_seconds),
                signals=self._signals(),
                instances=self._instances(),
            )
        )

    def _histograms(self, observed: float) -> tuple[LoadHistogram, ...]:
        by_class: dict[tuple[str, str], list[ServiceLoad]] = defaultdict(list)
        for _, report in sorted(self._newest.items()):
            for load in report.loads:
                by_class[load.service, load.traffic_class].append(load)
        return tuple(
            _histogram(service, name, loads, observed) for (service, name), loads in sorted(by_class.items())
        )

    def _signals(self) -> dict[str, dict[str, float]]:
        signals: dict[str, dict[str, float]] = {}
        for _, report in sorted(self._newest.items()):
            for load in report.loads:
                signal = signals.setdefault(load.service, {})
                _add(signal, load, report.observed_seconds)
                signal["size_plans"] = min(signal.get("size_plans", 1.0), float(report.knows_size_plans))
        return signals

    def _instances(self) -> dict[str, dict[str, float]]:
        instances: dict[str, dict[str, float]] = {}
        for _, report in sorted(self._newest.items()):
            for row in report.instances:
                values = instances.setdefault(row.name, {"pending": 0.0, "pending_tokens": 0.0})
                values["pending"] += row.outstanding
                values["pending_tokens"] += row.pending_tokens
        return instances


def _histogram(service: str, name: str, loads: list[ServiceLoad], observed: float) -> LoadHistogram:
    """Sum of cells on the first gateway's edges; a gateway on other edges (mid-upgrade) adds nothing."""
    first = loads[0]
    edges = (first.input_edges, first.output_edges, len(first.cells))
    same = [load for load in loads if (load.input_edges, load.output_edges, len(load.cells)) == edges]
    cells = np.sum([np.array(load.cells) for load in same], axis=0)
    window = max(first.window_seconds, 1.0)
    return LoadHistogram(
        service=service,
        request_class=name or "default",
        input_edges=tuple(round(e) for e in first.input_edges),
        output_edges=tuple(round(e) for e in first.output_edges),
        cells=tuple(cells.tolist()),
        window_seconds=first.window_seconds,
        held_per_second=sum(load.held for load in loads) / window,
        rejected_per_second=sum(load.rejected_per_second for load in loads),
        observed_seconds=observed,
    )


def _add(signal: dict[str, float], load: ServiceLoad, observed: float) -> None:
    rate = float(sum(load.cells))
    signal["requests_per_second"] = signal.get("requests_per_second", 0.0) + rate
    signal["held"] = signal.get("held", 0.0) + load.held
    signal["rejected_per_second"] = signal.get("rejected_per_second", 0.0) + load.rejected_per_second
    if rate > 0.0 or load.held:
        signal["last_arrival_seconds"] = max(signal.get("last_arrival_seconds", 0.0), observed)
    if load.ttft_seconds is not None:
        signal["ttft_p99_seconds"] = max(signal.get("ttft_p99_seconds", 0.0), load.ttft_seconds)
    if load.tpot_seconds is not None:
        signal["tpot_p99_seconds"] = max(signal.get("tpot_p99_seconds", 0.0), load.tpot_seconds)
