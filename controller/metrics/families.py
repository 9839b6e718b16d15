"""Prometheus metrics made from declarations, with a bound on how many series each may have."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from controller.metrics.declared import Declared, Kind

MAX_SERIES = 10_000
MAX_LABEL_LENGTH = 128
OTHER = "other"


class Families:
    """The declared metrics by name, on one registry.

    A label combination beyond `max_series` of its metric is counted under `other`, so that no input, however odd,
    can grow the page without bound.
    """

    def __init__(
        self, declared: Iterable[Declared], registry: CollectorRegistry, max_series: int = MAX_SERIES
    ) -> None:
        self._max_series = max_series
        self._declared = {each.name: each for each in declared}
        self._metrics = {name: _make(each, registry) for name, each in self._declared.items()}
        self._seen: dict[str, set[tuple[str, ...]]] = {name: set() for name in self._declared}
        self._totals: dict[tuple[str, ...], float] = {}
        self._lock = threading.RLock()

    def count(self, name: str, *labels: str, amount: float = 1.0) -> None:
        """Add to a counter. A negative or zero amount adds nothing."""
        metric = self._child(name, labels)
        if amount > 0 and isinstance(metric, Counter):
            metric.inc(amount)

    def advance(self, name: str, *labels: str, total: float) -> None:
        """Bring a counter to a total kept elsewhere; a total that fell (its keeper restarted) begins anew."""
        key = (name, *labels)
        with self._lock:
            before = self._totals.get(key, 0.0)
            self._totals[key] = total
        self.count(name, *labels, amount=total - before if total >= before else total)

    def set(self, name: str, *labels: str, value: float) -> None:
        """Set a gauge."""
        metric = self._child(name, labels)
        if isinstance(metric, Gauge):
            metric.set(value)

    def observe(self, name: str, *labels: str, value: float, exemplar: dict[str, str] | None = None) -> None:
        """Add to a histogram; the exemplar shows in the OpenMetrics format."""
        metric = self._child(name, labels)
        if isinstance(metric, Histogram):
            metric.observe(value, exemplar)

    def forget(self, label: str, value: str) -> None:
        """Remove every series whose `label` has `value`, in all metrics: its object is gone."""
        value = _clean(value)
        with self._lock:
            for name, declared in self._declared.items():
                if label in declared.labels:
                    self._forget(name, declared.labels.index(label), value)

    def _forget(self, name: str, position: int, value: str) -> None:
        for labels in [labels for labels in self._seen[name] if labels[position] == value]:
            self._metrics[name].remove(*labels)
            self._seen[name].discard(labels)
            self._totals.pop((name, *labels), None)

    def _child(self, name: str, labels: tuple[str, ...]) -> Counter | Gauge | Histogram:
        metric = self._metrics[name]
        if not labels:
            return metric
        cleaned = tuple(map(_clean, labels))
        with self._lock:
            seen = self._seen[name]
            if cleaned not in seen:
                if len(seen) >= self._max_series:
                    self.count("folded_series_total", self._declared[name].exposed)
                    cleaned = (OTHER,) * len(cleaned)
                seen.add(cleaned)
            return metric.labels(*cleaned)


def _clean(value: str) -> str:
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= MAX_LABEL_LENGTH else text[: MAX_LABEL_LENGTH - 1] + "…"


def _make(declared: Declared, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    if declared.kind is Kind.COUNTER:
        return Counter(declared.exposed, declared.meaning, declared.labels, registry=registry)
    if declared.kind is Kind.GAUGE:
        return Gauge(declared.exposed, declared.meaning, declared.labels, registry=registry)
    return Histogram(
        declared.exposed, declared.meaning, declared.labels, buckets=declared.buckets, registry=registry
    )
