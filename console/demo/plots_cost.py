"""Plots of what it took: cost against single GPU types, power against the rating and against no caps at all."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from console.demo.findings import Columns, Findings, keeps, why_not
from console.demo.markup import Markup
from console.demo.plots_labels import side_labels
from console.demo.plots_series import changes, thinned
from console.demo.plots_style import (
    ALERT,
    CALM,
    INK,
    MUTED,
    Plot,
    canvas,
    gpu_colours,
    kinds_of,
    mark_events,
    style,
    svg_of,
    time_axis,
)
from console.demo.run_data import DemoRun
from console.demo.words import dollars, kilowatts, share, short, span

MOST_RIVALS = 8


def cost(run: DemoRun, columns: Columns, findings: Findings) -> Plot:
    """Dollars per hour over time, and what each single GPU type would cost for the same work."""
    unable = [s for s in run.single_types if not keeps(s)]
    note = "A horizontal line is the whole work on one GPU type alone." + "".join(
        f" {short(s.accelerator, 24)} alone cannot{why_not(s, 160)}." for s in unable
    )
    if columns.empty:
        return Plot("cost", "No cost was recorded", note, Markup(""), "There is no sample.")
    shades = gpu_colours(kinds_of(run))
    with style():
        figure, grid = canvas(1, 290, right=224)
        ax = grid[0, 0]
        time = time_axis(columns, run)
        x, (y,) = changes(time.scaled(columns.seconds), columns.dollars)
        ax.fill_between(x, 0.0, y, step="post", color=CALM, alpha=0.22, linewidth=0)
        ax.plot(x, y, drawstyle="steps-post", color=CALM, linewidth=1.8)
        labels = [(findings.cost, f"Plimsoll, mean {dollars(findings.cost)}", CALM)]
        labels += _rival_lines(ax, run, findings, shades)
        prices = [s.dollars_per_hour for s in run.single_types if s.dollars_per_hour is not None]
        ax.set_ylim(0.0, max(float(y.max()), findings.cost, *prices, 1.0) * 1.08)
        ax.set_ylabel("dollars per hour")
        time.draw([ax])
        mark_events([ax], run, time)
        side_labels(ax, labels, gap=15.0)
        return Plot("cost", _cost_title(findings), note, svg_of(figure, "cost", note))


def _rival_lines(
    ax: Any, run: DemoRun, findings: Findings, shades: dict[str, str]
) -> list[tuple[float, str, str]]:
    labels = []
    for single in sorted(run.single_types, key=lambda s: s.dollars_per_hour or math.inf)[:MOST_RIVALS]:
        name, price = short(single.accelerator, 18), single.dollars_per_hour
        if price is None:
            labels.append((0.0, f"{name} alone cannot, see above", shades[single.accelerator]))
            continue
        able = keeps(single)
        best = findings.best is not None and single.accelerator == findings.best.accelerator
        ax.axhline(
            price, color=shades[single.accelerator], linewidth=2.2 if best else 1.4,
            linestyle="-" if able else (0, (1, 2)),
        )  # fmt: skip
        text = f"{name} alone {dollars(price)}" + (
            ", the best" if best else "" if able else ", misses objectives"
        )
        labels.append((price, text, shades[single.accelerator]))
    return labels


def _cost_title(findings: Findings) -> str:
    best, saved = findings.best, findings.saved
    if best is None or not math.isfinite(saved):
        return f"{dollars(findings.cost)} on average; no single GPU type keeps every objective, so there is none to compare with"
    rival = f"the best single type that keeps the objectives, {short(best.accelerator, 24)} ({dollars(best.dollars_per_hour or 0.0)})"
    if abs(saved) < 0.0005:
        return f"{dollars(findings.cost)} on average: as much as {rival}"
    word = "less" if saved > 0 else "more"
    return f"{dollars(findings.cost)} on average: {share(abs(saved))} {word} than {rival}"


def power(run: DemoRun, columns: Columns, findings: Findings) -> Plot:
    """Power drawn, leased, rated, and what would have been drawn without caps; where that exceeds the rating, shaded."""
    note = (
        "Drawn: what the GPUs of the domain took. Leased: sum of the caps granted. Without caps: the same work at the same moments "
        "with every GPU free to its maximum; the shaded part is what the breaker would not have carried."
    )
    if columns.empty or findings.rating <= 0.0:
        return Plot(
            "power", "No power domain", note, Markup(""), "The run had no power domain with a rating."
        )
    with style():
        figure, grid = canvas(1, 290)
        ax = grid[0, 0]
        time = time_axis(columns, run)
        labels = _power_lines(ax, columns, time)
        top = max(
            findings.rating,
            findings.peak_uncapped,
            findings.peak_power,
            float(columns.granted.max(initial=0.0)),
        )
        ax.set_ylim(0.0, top / 1000.0 * 1.1)
        ax.set_ylabel("kilowatts")
        time.draw([ax])
        mark_events([ax], run, time)
        side_labels(ax, labels, gap=15.0)
        return Plot("power", _power_title(findings), note, svg_of(figure, "power", note))


def _power_lines(ax: Any, columns: Columns, time: Any) -> list[tuple[float, str, str]]:
    seconds = time.scaled(columns.seconds)
    x, free = thinned(seconds, columns.uncapped / 1000.0, how="max")
    _, drawn = thinned(seconds, columns.power / 1000.0, how="max")
    _, rating = thinned(seconds, columns.rating / 1000.0)
    ax.fill_between(x, rating, np.maximum(free, rating), color=ALERT, alpha=0.22, linewidth=0)
    ax.fill_between(x, 0.0, drawn, color=CALM, alpha=0.22, linewidth=0)
    ax.plot(x, free, color=ALERT, linewidth=1.0, linestyle=(0, (3, 1.5)))
    ax.plot(x, drawn, color=CALM, linewidth=1.5)
    steps, (rated,) = changes(seconds, columns.rating / 1000.0)
    ax.plot(steps, rated, color=INK, linewidth=1.8, drawstyle="steps-post")
    labels = [
        (float(rated[-1]), f"rating {kilowatts(rated[-1] * 1000.0)}", INK),
        (float(free[-1]), "without caps", ALERT),
        (float(drawn[-1]), "drawn", CALM),
    ]
    if columns.granted.any():
        steps, (granted,) = changes(seconds, columns.granted / 1000.0)
        ax.plot(steps, granted, color=MUTED, linewidth=1.0, drawstyle="steps-post")
        labels.append((float(granted[-1]), "leased", MUTED))
    return labels


def _power_title(findings: Findings) -> str:
    over, free = findings.over_seconds, findings.uncapped_over_seconds
    rating = kilowatts(findings.rating)
    kept = (
        f"Power stayed under the {rating} rating throughout (peak {kilowatts(findings.peak_power)})"
        if over <= 0.0
        else f"Power was over the {rating} rating for {span(over)} (peak {kilowatts(findings.peak_power)})"
    )
    parts = [kept]
    if free > 0.0:
        parts.append(
            f"without caps it would have been over it for {span(free)}, up to {kilowatts(findings.peak_uncapped)}"
        )
    else:
        parts.append("without caps it would have stayed under it too")
    return "; ".join(parts)
