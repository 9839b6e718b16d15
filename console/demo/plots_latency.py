"""Plots of latency against objective: percentiles over time per service, and the whole distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from console.demo.findings import Column, Columns, Findings, ServiceFinding, tpot_column
from console.demo.markup import Markup
from console.demo.plots_labels import panel_title, side_labels
from console.demo.plots_style import (
    ALERT,
    INK,
    Plot,
    canvas,
    mark_events,
    service_colours,
    style,
    svg_of,
    time_axis,
)
from console.demo.run_data import DemoRun
from console.demo.words import count, listed, share, short, span

MOST_PANELS = 6
POINTS = 320
_SMALLEST = 1e-4


def over_time(run: DemoRun, columns: Columns, findings: Findings) -> Plot:
    """Time to first token and per token after it, by minute of arrival, one row of panels per service."""
    services = [s for s in findings.services if s.facts.ttft_seconds][:MOST_PANELS]
    width = _bin_seconds(findings)
    note = (
        f"By arrival, in bins of {span(width)}: thick, the percentile the service promises; thin, the median; dashed, the "
        "objective. Dots are bins in which the promised percentile missed it. Logarithmic scale. Waiting, cold starts and "
        "retries count."
    )
    if not services:
        return Plot("latency", "No request was answered", note, Markup(""), "No service had a request.")
    colours = service_colours(run.services)
    with style():
        figure, grid = canvas(len(services), 138, columns=2, gap=0.4, right=58, apart=0.3)
        time = time_axis(columns, run)
        for row, service in zip(grid, services, strict=True):
            colour = colours[service.name]
            _percentiles(
                row[0],
                service,
                service.facts.ttft_seconds,
                service.facts.ttft_objective_seconds,
                width,
                time,
                colour,
            )
            _percentiles(
                row[1],
                service,
                list(tpot_column(service.facts)),
                service.facts.tpot_objective_seconds,
                width,
                time,
                colour,
            )
            panel_title(row[0], f"{short(service.name, 30)}: time to first token", colour)
            panel_title(row[1], f"{short(service.name, 30)}: time per token after it", colour)
        for side in (0, 1):
            time.draw(list(grid[:, side]))
            mark_events(list(grid[:, side]), run, time, named=side == 0)
        return Plot("latency", _time_title(findings), note, svg_of(figure, "latency", note))


def _bin_seconds(findings: Findings) -> float:
    return (
        60.0
        if findings.last_arrival >= 900.0
        else float(max(5, math.ceil(findings.last_arrival / 100.0) * 5))
    )


def _percentiles(
    ax: Any,
    service: ServiceFinding,
    values: list[float],
    objective: float,
    width: float,
    time: Any,
    colour: str,
) -> None:
    arrived = np.asarray(service.facts.arrived_seconds, dtype=np.float64)
    seconds = np.asarray(values, dtype=np.float64)[: arrived.size]
    level = service.facts.percentile
    at, high, middle = _binned(arrived[: seconds.size], seconds, width, level)
    x = time.scaled(at)
    ax.set_yscale("log")
    ax.axhline(objective, color=INK, linewidth=1.2, linestyle=(0, (5, 3)))
    ax.plot(x, middle, color=colour, linewidth=0.9, alpha=0.75)
    ax.plot(x, high, color=colour, linewidth=2.0)
    missed = high > objective
    ax.plot(x[missed], high[missed], color=ALERT, marker="o", markersize=4.5, linestyle="none")
    shown = np.concatenate([high, middle, [objective]])
    shown = shown[np.isfinite(shown) & (shown > 0.0)]
    ax.set_ylim(float(shown.min()) / 1.6, float(shown.max()) * 2.2)
    log_seconds(ax.yaxis)
    ax.annotate(
        f"objective {span(objective)}", (1.0, objective), xycoords=("axes fraction", "data"), xytext=(-4, 4),
        textcoords="offset points", ha="right", fontsize=10, color=INK,
    )  # fmt: skip
    ends = [(_last(high), f"p{level * 100:g}"), (_last(middle), "median")]
    side_labels(ax, [(value, text, colour) for value, text in ends if value > 0.0])


def _last(series: Column) -> float:
    finite = series[np.isfinite(series)]
    return float(finite[-1]) if finite.size else 0.0


def _binned(arrived: Column, seconds: Column, width: float, level: float) -> tuple[Column, Column, Column]:
    """Middle of each bin, the quantile `level` and the median in it; never answered counts as for ever."""
    if not arrived.size:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    index = np.floor(arrived / width).astype(np.int64)
    bins = np.arange(index.min(), index.max() + 1)
    order = np.argsort(index, kind="stable")
    groups = np.split(np.nan_to_num(seconds, nan=np.inf)[order], np.searchsorted(index[order], bins[1:]))
    high = np.array([_upper(group, level) for group in groups])
    middle = np.array([_upper(group, 0.5) for group in groups])
    return (bins + 0.5) * width, high, middle


def _upper(group: Column, level: float) -> float:
    """The smallest value that at least `level` of the group reach; NaN for none or when it is never."""
    if not group.size:
        return math.nan
    value = float(np.sort(group)[min(math.ceil(level * group.size) - 1, group.size - 1)])
    return max(value, _SMALLEST) if math.isfinite(value) else math.nan


def log_seconds(axis: Any) -> None:
    """Ticks of a logarithmic axis of durations, as people write them."""
    axis.set_major_locator(log_ticks(axis))
    axis.set_major_formatter(FuncFormatter(lambda value, _: span(value)))
    axis.set_minor_formatter(NullFormatter())


def log_ticks(axis: Any) -> LogLocator:
    """A tick per decade, or at 1, 2 and 5 where the axis spans few decades."""
    low, high = axis.get_view_interval()
    wide = math.log10(high / low) > 2.2
    return LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0), numticks=12)


def _time_title(findings: Findings) -> str:
    answered = [s for s in findings.services if s.requests]
    kept = [s for s in answered if s.kept]
    if len(kept) == len(answered):
        worst = min(answered, key=lambda s: s.attainment)
        inside = f"{share(worst.attainment)} of requests inside"
        if len(answered) == 1:
            return f"{short(worst.name, 30)} kept its promise with {inside}"
        return f"Every service kept its promise; the closest was {short(worst.name, 30)} with {inside}"
    missed = [f"{short(s.name, 30)} ({share(s.attainment)})" for s in answered if not s.kept]
    return f"{listed(missed)} missed the promise"


def distribution(run: DemoRun, findings: Findings) -> Plot:
    """Cumulative distributions of both latencies, each service measured in multiples of its own objective."""
    services = [s for s in findings.services if s.facts.ttft_seconds][:MOST_PANELS]
    note = (
        "How many requests were at least this fast. The horizontal axis counts multiples of the service's own objective, so "
        "the dashed line is every service's promise. A curve that ends below 100 % lost the rest."
    )
    if not services:
        return Plot("distribution", "No request was answered", note, Markup(""), "No service had a request.")
    colours = service_colours(run.services)
    with style():
        top = 40 + 17 * len(services)
        figure, grid = canvas(1, 270, columns=2, right=24, top=top)
        for ax, title, which in zip(
            grid[0], ("time to first token", "time per token after it"), (0, 1), strict=True
        ):
            _distribution_panel(ax, services, which, colours)
            ax.annotate(
                title.capitalize(), (0.0, 1.0), xycoords="axes fraction", xytext=(0, top - 22), textcoords="offset points",
                color=INK, fontsize=11, fontweight="bold", annotation_clip=False,
            )  # fmt: skip
            ax.set_xlabel(f"{title}, as a multiple of the objective")
        grid[0, 0].set_ylabel("share of requests")
        return Plot("distribution", _distribution_title(services), note, svg_of(figure, "distribution", note))


def _distribution_panel(ax: Any, services: list[ServiceFinding], which: int, colours: dict[str, str]) -> None:
    lowest, highest = 0.5, 2.0
    for service in services:
        facts = service.facts
        values, objective = (
            (np.asarray(facts.ttft_seconds, dtype=np.float64), facts.ttft_objective_seconds)
            if which == 0
            else (tpot_column(facts), facts.tpot_objective_seconds)
        )
        x, y = _cumulative(values / objective, service.requests)
        ax.plot(x, y, color=colours[service.name], linewidth=1.8)
        if x.size:
            lowest, highest = min(lowest, float(x[max(x.size // 50, 0)])), max(highest, float(x[-1]))
    ax.set_xscale("log")
    ax.set_xlim(max(lowest / 1.3, 1e-3), min(highest * 1.2, 1e3))
    ax.set_ylim(0.0, 1.03)
    ax.axvline(1.0, color=INK, linewidth=1.2, linestyle=(0, (5, 3)))
    ax.xaxis.set_major_locator(log_ticks(ax.xaxis))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value * 100:.0f} %"))
    for i, service in enumerate(reversed(services)):
        inside = service.ttft_share if which == 0 else service.tpot_share
        objective = (
            service.facts.ttft_objective_seconds if which == 0 else service.facts.tpot_objective_seconds
        )
        _legend_line(
            ax,
            i,
            f"{short(service.name, 22)}: {share(inside)} within {span(objective)}",
            colours[service.name],
        )


def _legend_line(ax: Any, row: int, text: str, colour: str) -> None:
    at = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
    ax.annotate("■", (0.0, 1.0), xytext=(0, 14 + 17 * row), color=colour, fontsize=9, va="center", **at)
    ax.annotate(text, (0.0, 1.0), xytext=(13, 14 + 17 * row), color=INK, fontsize=10.5, va="center", **at)


def _cumulative(values: Column, requests: int) -> tuple[Column, Column]:
    """The distribution at `POINTS` quantiles and at the last value; requests that never answered stay below."""
    finite = np.sort(np.maximum(values[np.isfinite(values)], _SMALLEST))
    if not finite.size:
        return finite, finite
    picks = np.unique(np.linspace(0, finite.size - 1, min(POINTS, finite.size)).round().astype(np.int64))
    return finite[picks], (picks + 1.0) / max(values.size, requests)


def _distribution_title(services: list[ServiceFinding]) -> str:
    requests = sum(s.requests for s in services)
    within = sum(s.ttft_share * s.requests for s in services) / requests
    flow = sum(s.tpot_share * s.requests for s in services) / requests
    return (
        f"Of {count(requests)} requests, {share(within)} got their first token in time and {share(flow)} "
        "kept the pace after it"
    )
