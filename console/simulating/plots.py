"""Plots of a sweep: distributions of latency, throughput over time, and figures by point with their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from console.demo.markup import Markup
from console.demo.plots_labels import side_labels
from console.demo.plots_latency import log_seconds
from console.demo.plots_style import INK, MUTED, canvas, service_colours, style, svg_of
from simulator.experiments.outcomes import Outcome
from simulator.experiments.series import LEVELS
from simulator.experiments.statistics import Estimate

MOST_POINTS = 6
"""More points than this are not told apart in one plot; the first ones are drawn, and the page says so."""


def by_point(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Runs that did not fail, by point, at most MOST_POINTS of them."""
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if not outcome.error and outcome.series:
            found.setdefault(outcome.run.point, []).append(outcome)
    return dict(list(found.items())[:MOST_POINTS])


def short(points: Iterable[str]) -> dict[str, str]:
    """Points as they are named where one setting is swept: by its value alone."""
    listed = list(points)
    keys = {tuple(part.partition("=")[0] for part in point.split(", ")) for point in listed}
    alone = len(keys) == 1 and len(next(iter(keys))) == 1 and len(listed) > 1
    return {point: point.partition("=")[2] or point if alone else point for point in listed}


def distributions(points: Mapping[str, Sequence[Outcome]], promise: Mapping[str, float]) -> Markup:
    """Cumulative distributions of both latencies: the mean over seeds, and the range of the seeds behind it.

    `promise` has seconds by series name; a line marks it.
    """
    colours = service_colours(points)
    with style():
        figure, axes = canvas(1, 300, columns=2)
        for ax, name, title in zip(
            axes[0],
            ("ttft_seconds", "tpot_seconds"),
            ("time to first token", "time per further token"),
            strict=True,
        ):
            for point, runs in points.items():
                values = np.maximum(np.array([run.series[name] for run in runs]), 1e-4)
                share = np.array(LEVELS) * 100.0
                ax.fill_betweenx(
                    share, values.min(axis=0), values.max(axis=0), color=colours[point], alpha=0.18
                )
                ax.plot(
                    values.mean(axis=0),
                    share,
                    color=colours[point],
                    linewidth=1.8,
                    label=short(points)[point],
                )
            ax.axvline(promise[name], color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
            ax.set_xscale("log")
            log_seconds(ax.xaxis)
            ax.set_ylim(0, 100)
            ax.set_ylabel("% of requests")
            ax.set_title(title, loc="left", color=INK, fontsize=11)
        handles, labels = axes[0][0].get_legend_handles_labels()
        axes[0][1].legend(handles, labels, loc="lower right", frameon=False, fontsize=9.5)
        return svg_of(figure, "latency", "Cumulative distributions of latency by point")


def throughput(points: Mapping[str, Sequence[Outcome]]) -> Markup:
    """Tokens of finished requests a second over the run, mean over seeds."""
    colours = service_colours(points)
    with style():
        figure, axes = canvas(1, 240)
        ax: Any = axes[0][0]
        labels = []
        for point, runs in points.items():
            seconds = np.mean([run.series["seconds"] for run in runs], axis=0)
            tokens = np.mean([run.series["tokens_per_second"] for run in runs], axis=0)
            ax.plot(seconds / 60.0, tokens, color=colours[point], linewidth=1.4)
            labels.append((float(tokens[-1]), short(points)[point], colours[point]))
        ax.set_ylim(bottom=0)
        ax.set_xlabel("minutes")
        ax.set_ylabel("tokens of finished requests / s")
        side_labels(ax, labels)
        return svg_of(figure, "throughput", "Throughput over time by point")


def bars(estimates: Mapping[str, Mapping[str, Estimate]], names: Sequence[tuple[str, str, float]]) -> Markup:
    """One panel a figure (name, title, factor): a bar a point, with the interval over seeds."""
    points = list(estimates)[: 2 * MOST_POINTS]
    colours = service_colours(points)
    with style():
        figure, axes = canvas(1, 36 * len(points) + 60, columns=len(names), left=180, right=40, apart=0.12)
        for number, (ax, (name, title, factor)) in enumerate(zip(axes[0], names, strict=True)):
            found = [estimates[point].get(name) for point in points]
            means = [factor * each.mean if each else 0.0 for each in found]
            widths = [factor * (each.half_width or 0.0) if each else 0.0 for each in found]
            ax.barh(range(len(points)), means, color=[colours[point] for point in points], height=0.6)
            ax.errorbar(means, range(len(points)), xerr=widths, fmt="none", ecolor=MUTED, capsize=3)
            ax.set_yticks(
                range(len(points)), list(short(points).values()) if number == 0 else [""] * len(points)
            )
            ax.invert_yaxis()
            ax.set_xlim(left=0)
            ax.set_title(title, loc="left", color=INK, fontsize=11)
            ax.grid(axis="y", visible=False)
            ax.grid(axis="x", visible=True)
        return svg_of(figure, "bars", "Figures by point with their intervals over seeds")
