"""Plots of what came and what ran: load per service, replicas by GPU type per service."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from console.demo.findings import Columns
from console.demo.markup import Markup
from console.demo.plots_series import changes, thinned
from console.demo.plots_style import (
    INK,
    Plot,
    canvas,
    gpu_colours,
    kinds_of,
    mark_failure,
    panel_title,
    service_colours,
    side_labels,
    style,
    svg_of,
    time_axis,
)
from console.demo.run_data import DemoRun
from console.demo.words import clock, count, listed, mix, plural, short

MOST_PANELS = 8
SMOOTH_SECONDS = 15.0


def load(run: DemoRun, columns: Columns) -> Plot:
    """Requests per second of each service, one panel each on a shared time axis; held requests where there were any."""
    names = list(columns.load)[:MOST_PANELS]
    note = (
        f"Arrivals in requests per second, mean over {SMOOTH_SECONDS:.0f} s. Every panel has its own scale."
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
            _load_panel(ax, name, columns, colours[name])
        time.draw(axes)
        mark_failure(axes, run, time)
        axes[len(axes) // 2].set_ylabel("requests per second")
        return Plot("load", _load_title(columns, names), note, svg_of(figure, "load", note))


def _load_panel(ax: Any, name: str, columns: Columns, colour: str) -> None:
    rate = columns.load[name]
    width = max(1, round(SMOOTH_SECONDS / float(np.median(columns.step))))
    kernel = np.ones(width)
    inside = np.convolve(np.ones_like(rate), kernel, mode="same")[: rate.size]
    smooth = np.convolve(rate, kernel, mode="same")[: rate.size] / inside
    unit = 60.0 if columns.seconds[-1] - columns.seconds[0] >= 300.0 else 1.0
    x, y = thinned(columns.seconds / unit, smooth)
    ax.fill_between(x, 0.0, y, color=colour, alpha=0.14, linewidth=0)
    ax.plot(x, y, color=colour, linewidth=1.2)
    ax.set_ylim(0.0, max(float(y.max()) * 1.12, 0.1))
    ax.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    panel_title(ax, short(name, 40), colour)
    live = columns.seconds >= 0.0
    mean = float(rate[live].mean()) if live.any() else 0.0
    labels = [(mean, f"mean {mean:.1f} req/s", colour)]
    if not rate.any():
        ax.annotate("no request came", (0.5, 0.45), xycoords="axes fraction", ha="center", color=INK)
    held = columns.held[name]
    if held.any():
        top = int(held.argmax())
        labels.append(
            (
                float(ax.get_ylim()[1]),
                f"held: up to {count(held[top])} at {clock(columns.seconds[top])}",
                colour,
            )
        )
    side_labels(ax, labels)


def _load_title(columns: Columns, names: list[str]) -> str:
    total = np.sum([columns.load[n] for n in columns.load], axis=0)
    live = columns.seconds >= 0.0
    mean = float(total[live].mean()) if live.any() else 0.0
    late = []
    for name in names:
        first = np.flatnonzero(columns.load[name] > 0.0)
        if first.size and columns.seconds[first[0]] > 0.1 * columns.seconds[-1]:
            late.append(f"{short(name, 30)} only from {clock(columns.seconds[first[0]])}")
    title = f"{mean:.1f} requests per second came in on average, split over {plural(len(columns.load), 'service')}"
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
        mark_failure(axes, run, time)
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
