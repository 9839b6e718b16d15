"""What the planner did in a run: replicas and cost over time, and the decision log with its reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from console.demo.markup import Markup, el
from console.demo.plots_labels import side_labels
from console.demo.plots_style import canvas, service_colours, style, svg_of
from simulator.experiments.outcomes import Outcome

SHOWN = 400
"""Rows of the log on the page; `decisions.csv` has all that were kept."""


def sections(points: Mapping[str, Sequence[Outcome]]) -> list[Markup]:
    """Sections about the first run of the first point; none where no operator decided."""
    first = next((runs[0] for runs in points.values() if runs), None)
    if first is None or not first.log:
        return []
    whose = f"{first.run.point}, seed {first.run.seed}"
    found = [
        el("h2", "What the planner did"),
        el("p", f"The run {whose}. Every run's decisions are in decisions.csv."),
    ]
    if "timeline_seconds" in first.series:
        found.append(el("figure", timeline(first)))
    return [*found, _log(first)]


def timeline(run: Outcome) -> Markup:
    """Ready replicas of each service and dollars an hour over a run."""
    services = [name.removeprefix("ready ") for name in run.series if name.startswith("ready ")]
    colours = service_colours(services)
    minutes = [seconds / 60.0 for seconds in run.series["timeline_seconds"]]
    with style():
        figure, axes = canvas(2, 190)
        ax: Any = axes[0][0]
        labels = []
        for name in services:
            values = run.series[f"ready {name}"]
            ax.step(minutes, values, where="post", color=colours[name], linewidth=1.6)
            labels.append((float(values[-1]), name, colours[name]))
        ax.set_ylim(bottom=0)
        ax.set_ylabel("ready replicas")
        side_labels(ax, labels)
        below: Any = axes[1][0]
        below.step(minutes, run.series["timeline_dollars_per_hour"], where="post", linewidth=1.4)
        below.set_ylim(bottom=0)
        below.set_ylabel("$ an hour")
        below.set_xlabel("minutes")
        return svg_of(figure, "replicas", "Ready replicas and cost over time")


def _log(run: Outcome) -> Markup:
    head = el("tr", *(el("th", title) for title in ("second", "stage", "action", "about", "outcome", "why")))
    rows = [
        el(
            "tr",
            el("td", f"{row.seconds:.1f}"),
            el("td", row.loop),
            el("td", row.kind or "–"),
            el("td", f"{row.subject} {row.detail}".strip() if row.kind else row.subject),
            el("td", row.outcome),
            el("td", f"{row.code}: {row.why}"),
        )
        for row in run.log[:SHOWN]
    ]
    left = len(run.log) - len(rows)
    more = [el("p", f"{left} more are in decisions.csv.")] if left > 0 else []
    table = el("div", el("table", el("thead", head), el("tbody", *rows), class_="log"), class_="scroll")
    return el("div", table, *more)
