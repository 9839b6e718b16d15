"""Plots of what came and what ran: load per service, replicas by GPU type per service."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from console.demo.findings import Column, Columns
from console.demo.markup import Markup
from console.demo.plots_labels import panel_title, side_labels
from console.demo.plots_series import changes, thinned
from console.demo.plots_style import (
    INK,
    Plot,
    TimeAxis,
    canvas,
    gpu_colours,
    kinds_of,
    mark_events,
    service_colours,
    style,
    svg_of,
    time_axis,
)
from console.demo.run_data import DemoRun, ServiceFacts
from console.demo.words import clock, count, listed, mix, plural, short

MOST_PANELS = 8


def load(run: DemoRun, columns: Columns) -> Plot:
    """Requests per second of each service, one panel each on a shared time axis; held requests where there were any."""
    names = list(columns.load)[:MOST_PANELS]
    note = (
        "Area: requests as they arrived. Line: the load the operator measured. Every panel has its own scale."
    )
    note += _left_out(len(columns.load) - len(names))
    if columns.empty or not names:
        return Plot("load", "No load was recorded", note, Markup(""), "There is no sample of any service.")
    colours = service_colours(run.services)
    with style():
        figure, grid = canvas(len(names), 112, gap=0.42)
        axes = list(grid[:, 0])
        time = time_axis(columns, run)
        for ax, name in zip(axes, names, strict=True):
            _load_panel(ax, run.services[name], columns, name, colours[name], time)
        time.draw(axes)
        mark_events(axes, run, time)
        axes[len(axes) // 2].set_ylabel("requests per second")
        return Plot("load", _load_title(run, names), note, svg_of(figure, "load", note))


def _load_panel(
    ax: Any, facts: ServiceFacts, columns: Columns, name: str, colour: str, time: TimeAxis
) -> None:
    edges, rate = arrivals(facts, time)
    if rate.size:
        ax.stairs(rate, time.scaled(edges), fill=True, color=colour, alpha=0.25, linewidth=0)
    x, seen = thinned(time.scaled(columns.seconds), columns.load[name])
    ax.plot(x, seen, color=colour, linewidth=1.4)
    ax.set_ylim(0.0, max(float(seen.max()), float(rate.max(initial=0.0)), 0.1) * 1.12)
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    panel_title(ax, short(name, 40), colour)
    if not rate.size and not seen.any():
        ax.annotate("no request came", (0.5, 0.45), xycoords="axes fraction", ha="center", color=INK)
        return
    mean = mean_rate(facts)
    labels = [(mean, f"arrived, mean {mean:.1f} req/s", colour)] if rate.size else []
    labels.append((float(seen[-1]), "measured by the operator", colour))
    held = columns.held[name]
    if held.any():
        top = int(held.argmax())
        text = f"held: up to {count(held[top])} at {clock(columns.seconds[top])}"
        labels.append((float(ax.get_ylim()[1]), text, colour))
    side_labels(ax, labels)


def arrivals(facts: ServiceFacts, time: TimeAxis) -> tuple[Column, Column]:
    """Edges of the bins, in seconds, and the requests per second that arrived in each; empty without requests."""
    arrived = np.asarray(facts.arrived_seconds, dtype=np.float64)
    if not arrived.size:
        return np.zeros(0), np.zeros(0)
    width = max(1.0, math.ceil((time.last - time.first) / 240.0))
    edges = np.arange(0.0, float(arrived.max()) + 2.0 * width, width)
    return edges, np.histogram(arrived, edges)[0] / width


def mean_rate(facts: ServiceFacts) -> float:
    """Requests per second from the service's first arrival to its last; 0 without two different moments."""
    if not facts.arrived_seconds:
        return 0.0
    seconds = max(facts.arrived_seconds) - min(facts.arrived_seconds)
    return len(facts.arrived_seconds) / seconds if seconds > 0.0 else 0.0


def _load_title(run: DemoRun, names: list[str]) -> str:
    services = run.services.values()
    number = sum(len(f.arrived_seconds) for f in services)
    last = max((max(f.arrived_seconds, default=0.0) for f in services), default=0.0)
    if not number or last <= 0.0:
        return "No request came"
    late = []
    for name in names:
        first = min(run.services[name].arrived_seconds, default=0.0)
        if first > 0.1 * last:
            late.append(f"{short(name, 30)} only from {clock(first)}")
    title = f"{number / last:.1f} requests per second came in on average, split over {plural(len(services), 'service')}"
    return title + (f"; {listed(late)}" if late else "")


def replicas(run: DemoRun, columns: Columns) -> Plot:
    """Ready replicas of each service, stacked by GPU type, as steps."""
    names = list(columns.replicas)[:MOST_PANELS]
    note = "Replicas that were ready, stacked by GPU type; each type has the same colour in every plot."
    note += _left_out(len(columns.replicas) - len(names))
    if columns.empty or not names:
        return Plot(
            "replicas", "No replica was recorded", note, Markup(""), "There is no sample of any service."
        )
    colours, shades = service_colours(run.services), gpu_colours(kinds_of(run))
    with style():
        figure, grid = canvas(len(names), 112, gap=0.42)
        axes = list(grid[:, 0])
        time = time_axis(columns, run)
        for ax, name in zip(axes, names, strict=True):
            _replica_panel(ax, name, columns, shades, colours[name], time.unit)
        time.draw(axes)
        mark_events(axes, run, time)
        axes[len(axes) // 2].set_ylabel("ready replicas")
        return Plot("replicas", _replica_title(columns), note, svg_of(figure, "replicas", note))


def _replica_panel(
    ax: Any, name: str, columns: Columns, shades: dict[str, str], colour: str, unit: float
) -> None:
    by_kind = columns.replicas[name]
    kinds = [kind for kind in by_kind if by_kind[kind].any()]
    base = np.zeros_like(columns.seconds)
    labels: list[tuple[float, str, str]] = []
    for kind in kinds:
        top = base + by_kind[kind]
        x, (low, high) = changes(columns.seconds, base, top)
        ax.fill_between(x / unit, low, high, step="post", color=shades[kind], linewidth=0)
        labels.append((float(base[-1] + top[-1]) / 2.0, _kind_label(kind, by_kind[kind]), shades[kind]))
        base = top
    ax.set_ylim(0.0, max(float(base.max()) * 1.15, 1.0))
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    panel_title(ax, short(name, 40), colour)
    if not kinds:
        ax.annotate(
            "no replica was ever ready", (0.5, 0.45), xycoords="axes fraction", ha="center", color=INK
        )
    side_labels(ax, labels)


def _kind_label(kind: str, values: Any) -> str:
    peak, end = int(values.max()), int(values[-1])
    return f"{short(kind, 16)}: {end}" + (f" at the end, {peak} at most" if peak != end else "")


def _replica_title(columns: Columns) -> str:
    parts = []
    for name, by_kind in columns.replicas.items():
        peak = _peak_mix(by_kind)
        if peak:
            parts.append(f"{short(name, 24)} on {mix(peak)}")
    mixed = sum(1 for by_kind in columns.replicas.values() if sum(1 for v in by_kind.values() if v.any()) > 1)
    if not parts:
        return "No replica was ever ready"
    if len(parts) > 3:
        return f"{plural(len(parts), 'service')} ran replicas, {mixed} of them on more than one GPU type"
    return f"At its peak, {listed(parts)}"


def _peak_mix(by_kind: dict[str, Any]) -> dict[str, int]:
    if not by_kind:
        return {}
    total = np.sum(list(by_kind.values()), axis=0)
    at = int(total.argmax())
    return {kind: int(values[at]) for kind, values in by_kind.items() if values[at] > 0}


def _left_out(number: int) -> str:
    return (
        f" {plural(number, 'more service is', 'more services are')} in the table only." if number > 0 else ""
    )
