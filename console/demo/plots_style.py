"""How every plot of the report looks: canvas, colours, time axis, direct labels, and SVG fit to stand in a page.

Colours are drawn as fixed hex values and leave as CSS variables, so one plot serves a light and a dark page. GPU
types and services have a palette each. The four known types and the first three services were chosen by simulating
the colour deficiencies (least CIE76 distance 20, held by a test); and each series is labelled where it is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from console.demo.findings import Column, Columns
from console.demo.markup import Markup, escaped
from console.demo.run_data import DemoRun
from console.demo.words import clock, short

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 1040, 62, 190, 44, 44
INK, MUTED, GRID, PAPER, ALERT = "#1b1f24", "#5c6670", "#e2e6ea", "#fefefe", "#c1272d"
CALM = "#47708f"
_GPU_COLOURS = ("#4fa8dc", "#0b7a5c", "#e0962a", "#b0478f", "#7d7f2a", "#8a5a44", "#4b4fa8", "#8f979f")
_SERVICE_COLOURS = ("#0072b2", "#d55e00", "#3b4252", "#8c6d1f", "#a23b72", "#5b8c2a")
KNOWN_GPUS = ("l4", "a10g", "a100-80", "h100")

# Every colour a plot may use, and the CSS variable it leaves as. report_style.py gives their dark values.
VARIABLES = {
    INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper", ALERT: "alert", CALM: "calm",
    **{colour: f"gpu{i}" for i, colour in enumerate(_GPU_COLOURS)},
    **{colour: f"svc{i}" for i, colour in enumerate(_SERVICE_COLOURS)},
}  # fmt: skip

_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "path.simplify_threshold": 0.3,
    "font.family": "DejaVu Sans",
    "font.size": 11.0,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "xtick.major.size": 3.5,
    "ytick.major.size": 0.0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure of the report: title (the finding), a note how to read it, the drawing (empty: nothing to draw)."""

    key: str
    title: str
    note: str
    svg: Markup
    empty: str = ""


def gpu_colours(kinds: Iterable[str]) -> dict[str, str]:
    """The colour of each GPU type: the known ones always the same, others by name."""
    names = sorted(set(kinds))
    known = {name: KNOWN_GPUS.index(name.lower()) for name in names if name.lower() in KNOWN_GPUS}
    others = [name for name in names if name not in known]
    free = [i for i in range(len(_GPU_COLOURS)) if i not in known.values()] or list(range(len(_GPU_COLOURS)))
    order = known | {name: free[i % len(free)] for i, name in enumerate(others)}
    return {name: _GPU_COLOURS[index] for name, index in order.items()}


def service_colours(names: Iterable[str]) -> dict[str, str]:
    """The colour of each service, by order of name."""
    return {name: _SERVICE_COLOURS[i % len(_SERVICE_COLOURS)] for i, name in enumerate(sorted(set(names)))}


def kinds_of(run: DemoRun) -> list[str]:
    """Every GPU type the run names anywhere, so that a type has one colour throughout."""
    seen = set(run.gpus) | {s.accelerator for s in run.single_types}
    for sample in run.samples:
        seen.update(sample.gpus)
        for by_kind in sample.replicas.values():
            seen.update(by_kind)
    return sorted(seen)


def canvas(
    rows: int,
    row_height: int,
    *,
    columns: int = 1,
    gap: float = 0.34,
    left: int = LEFT,
    right: int = RIGHT,
    top: int = TOP,
    apart: float = 0.16,
) -> tuple[Figure, Any]:
    """A figure `WIDTH` pixels wide and its axes, as a 2-d array [rows, columns]. One point is one pixel.

    Margins `left`, `right` and `top` are in pixels; `gap` between rows and `apart` between columns in panels.
    """
    height = top + BOTTOM + rows * row_height
    figure = Figure(figsize=(WIDTH / 72.0, height / 72.0), dpi=72)
    axes = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": left / WIDTH,
            "right": 1.0 - right / WIDTH,
            "top": 1.0 - top / height,
            "bottom": BOTTOM / height,
            "hspace": gap,
            "wspace": apart,
        },
    )
    return figure, axes


def style() -> Any:
    """The context in which every plot is drawn."""
    return mpl.rc_context(cast("Any", _SETTINGS))


def svg_of(figure: Figure, key: str, description: str) -> Markup:
    """The figure as an inline SVG element: text kept as text, colours as variables, no metadata, no foreign ids."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context({"svg.hashsalt": key}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[a-z0-9.A-Z]+_\d+"', "", text)
    text = text.replace(' xlink:href="#', ' href="#').replace(
        ' xmlns:xlink="http://www.w3.org/1999/xlink"', ""
    )
    text = re.sub(r' style="[^"]*"', lambda m: re.sub(r"#[0-9a-f]{6}", _variable, m.group()), text)
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda m: re.sub(r"(\d\.\d\d)\d+", r"\1", m.group()), text)
    opening = f'<svg role="img" id="plot-{key}" aria-label="{escaped(description)}" '
    text = opening + text.removeprefix("<svg ")
    text = re.sub(r' width="[^"]*pt"', "", text, count=1)
    return Markup(re.sub(r' height="[^"]*pt"', "", text, count=1).strip())


def _variable(match: re.Match[str]) -> str:
    colour = match.group()
    name = VARIABLES.get(colour)
    return f"var(--{name}, {colour})" if name else colour


# ------------------------------------------------------------------------------------------------------- time


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """The time axis all plots share: seconds drawn as minutes, or as seconds in a short run."""

    first: float
    last: float

    @property
    def unit(self) -> float:
        """Seconds a tick label counts."""
        return 60.0 if self.last - self.first >= 300.0 else 1.0

    def scaled(self, seconds: Column | float) -> Any:
        """Seconds as the axis counts them."""
        return np.asarray(seconds, dtype=np.float64) / self.unit

    def draw(self, axes: Sequence[Any]) -> None:
        """Sets limits on all, ticks and label on the lowest; shades the warm-up."""
        first, last = self.first / self.unit, max(self.last, self.first + 1.0) / self.unit
        for ax in axes:
            ax.set_xlim(first, last)
            if first < 0.0:
                ax.axvspan(first, 0.0, color=GRID, alpha=0.6, linewidth=0, zorder=0)
            ax.xaxis.set_major_locator(MaxNLocator(9, steps=[1, 2, 5, 10], integer=True))
            ax.tick_params(labelbottom=ax is axes[-1])
        word = "minutes" if self.unit == 60.0 else "seconds"
        axes[-1].set_xlabel(
            f"simulated {word} since the first request" + (", warm-up shaded" if first < 0.0 else "")
        )


def time_axis(columns: Columns, run: DemoRun, *, happenings: bool = False) -> TimeAxis:
    """The axis from the first to the last sample; over the happenings too where asked, or where there is no sample."""
    seconds = [float(columns.seconds[0]), float(columns.seconds[-1])] if not columns.empty else []
    if happenings or not seconds:
        seconds += [h.seconds for h in run.happenings]
    return TimeAxis(first=min(seconds, default=0.0), last=max(seconds, default=1.0))


def mark_events(axes: Sequence[Any], run: DemoRun, time: TimeAxis, *, named: bool = True) -> None:
    """The moment the node failed, on every axis, named above the first; and the last request, where long before the end."""
    last = max((max(f.arrived_seconds, default=0.0) for f in run.services.values()), default=0.0)
    if 0.0 < last < time.last - 0.04 * (time.last - time.first):
        for ax in axes:
            ax.axvline(float(time.scaled(last)), color=MUTED, linewidth=1.0, linestyle=(0, (1, 2)), zorder=1)
        axes[-1].annotate(
            "last request", (float(time.scaled(last)), 1.0), xycoords=("data", "axes fraction"), xytext=(4, -3),
            textcoords="offset points", color=MUTED, fontsize=9.5, va="top",
        )  # fmt: skip
    if run.node_failed:
        _mark_failure(axes, run, time, named=named)


def _mark_failure(axes: Sequence[Any], run: DemoRun, time: TimeAxis, *, named: bool) -> None:
    at = float(time.scaled(run.node_failed_seconds))
    for ax in axes:
        ax.axvline(at, color=ALERT, linewidth=1.1, linestyle=(0, (4, 2)), zorder=4)
    if not named:
        return
    text = f"node {short(run.node_failed, 28)} fails, {clock(run.node_failed_seconds)}"
    low, high = axes[0].get_xlim()
    left = at > low + 0.75 * (high - low)
    axes[0].annotate(
        f"{text} ▼" if left else f"▼ {text}", (at, 1.0), xycoords=("data", "axes fraction"),
        xytext=(4 if left else -4, 22), textcoords="offset points", color=ALERT, fontsize=10,
        ha="right" if left else "left", va="bottom", annotation_clip=False,
    )  # fmt: skip
