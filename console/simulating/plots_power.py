"""The plot of power: watts over the run by point, and what they went to at the first point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from console.demo.markup import Markup
from console.demo.plots_labels import side_labels
from console.demo.plots_style import CALM, INK, MUTED, canvas, service_colours, style, svg_of
from console.simulating.plots import short
from simulator.experiments.outcomes import Outcome

PHASES = ("server", "idle", "decode", "prefill", "boundary", "training")
"""From the bottom: what does no work first."""
_TITLES = {"server": "servers but GPUs", "idle": "idle GPUs", "boundary": "exchange, checkpoints"}
_SHADES = (MUTED, "#8f979f", CALM, "#0072b2", "#e0962a", "#b0478f")


def has_power(points: Mapping[str, Sequence[Outcome]]) -> bool:
    """Whether any run has booked watts."""
    return any("watts_seconds" in run.series for runs in points.values() for run in runs)


def power(points: Mapping[str, Sequence[Outcome]]) -> Markup:
    """Kilowatts over the run: on the left of each point, mean over seeds; on the right by phase, at the first point."""
    with_watts = {
        point: [run for run in runs if "watts_seconds" in run.series] for point, runs in points.items()
    }
    with_watts = {point: runs for point, runs in with_watts.items() if runs}
    colours, named = service_colours(with_watts), short(with_watts)
    with style():
        figure, axes = canvas(1, 260, columns=2, apart=0.34)
        labels = []
        for point, runs in with_watts.items():
            minutes, by_phase = _mean(runs)
            total = sum(by_phase.values())
            axes[0][0].plot(minutes, total, color=colours[point], linewidth=1.4)
            labels.append((float(total[-1]), named[point], colours[point]))
        first = next(iter(with_watts))
        minutes, by_phase = _mean(with_watts[first])
        drawn = [phase for phase in PHASES if phase in by_phase and by_phase[phase].any()]
        shades = [_SHADES[PHASES.index(phase)] for phase in drawn]
        axes[0][1].stackplot(minutes, [by_phase[phase] for phase in drawn], colors=shades, linewidth=0)
        edges = np.cumsum([by_phase[phase][-1] for phase in drawn])
        beside = [
            (float(edge), _TITLES.get(phase, phase), shade)
            for edge, phase, shade in zip(edges, drawn, shades, strict=True)
        ]
        for ax, title in ((axes[0][0], "all nodes, kW"), (axes[0][1], f"{named[first]}: by phase, kW")):
            ax.set_ylim(bottom=0)
            ax.set_xlabel("minutes")
            ax.set_title(title, loc="left", color=INK, fontsize=11)
        side_labels(axes[0][0], labels)
        side_labels(axes[0][1], beside)
        return svg_of(figure, "power", "Power over time by point, and by phase at the first point")


def _mean(runs: Sequence[Outcome]) -> tuple[Any, dict[str, Any]]:
    """Minutes and kilowatts by phase, mean over seeds on the grid of the shortest run."""
    pieces = min(len(run.series["watts_seconds"]) for run in runs)
    longest = max(run.series["watts_seconds"][-1] for run in runs)
    grid = np.linspace(0.0, longest, pieces)
    by_phase = {}
    for phase in PHASES:
        name = f"watts_phase_{phase}"
        curves = [
            np.interp(grid, run.series["watts_seconds"], run.series[name])
            for run in runs
            if name in run.series
        ]
        if curves:
            by_phase[phase] = np.mean(curves, axis=0) / 1e3
    return grid / 60.0, by_phase
