"""The reference page of the metrics, written from their declarations."""

from __future__ import annotations

from controller.metrics.declared import DECLARED, Declared

_HEAD = """# Metrics

The operator serves these at `/metrics`, as Prometheus text or OpenMetrics (whose histograms carry the id of a
decision as exemplar). Units are seconds, bytes, watts, dollars and ratios from 0 to 1. No label holds an id, a pod
or a node; a metric that would exceed 10,000 series puts the rest under `other`. The usual `process_*` metrics are
there too.

This page is made by `python -m controller.metrics > docs/reference/metrics.md`.

| name | kind | labels | meaning |
|---|---|---|---|
"""


def reference_page() -> str:
    """The whole page, Markdown."""
    histograms = [each for each in DECLARED if each.buckets]
    return _HEAD + "".join(map(_row, DECLARED)) + "\n## Buckets\n\n" + "".join(map(_buckets, histograms))


def _row(declared: Declared) -> str:
    labels = ", ".join(f"`{label}`" for label in declared.labels) or "–"
    return f"| `{declared.exposed}` | {declared.kind} | {labels} | {declared.meaning} |\n"


def _buckets(declared: Declared) -> str:
    return f"- `{declared.exposed}`: {', '.join(f'{bucket:g}' for bucket in declared.buckets)}\n"
