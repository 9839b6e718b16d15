"""Plots of training jobs' progress and of the timeline of decisions, with its key moments."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from console.demo.findings import SUCCEEDED, WARNINGS, Columns, Findings
from console.demo.markup import Markup
from console.demo.plots_labels import panel_title, side_labels
from console.demo.plots_style import (
    ALERT,
    CALM,
    GRID,
    INK,
    MUTED,
    PAPER,
    Plot,
    canvas,
    mark_events,
    style,
    svg_of,
    time_axis,
)
from console.demo.run_data import DemoRun, Happening, JobFacts
from console.demo.words import clean, clock, count, listed, plural, short

MOST_JOBS = 8
MOST_MOMENTS = 14
_ANSWERS = frozenset({"moved", "isolated"})
_RUNNING = frozenset({"running", "verifying"})


def jobs(run: DemoRun, columns: Columns, findings: Findings) -> Plot:
    """Progress of each training job in per cent of its steps; where it was not running is shaded and named."""
    names = sorted(run.jobs)[:MOST_JOBS]
    note = "Steps done, as a share of the steps asked for. Shaded: not running. A fall is work lost since the last checkpoint."
    if not names:
        return Plot("jobs", "No training job", note, Markup(""), "The run had no training job.")
    with style():
        figure, grid = canvas(len(names), 118, gap=0.45)
        axes = list(grid[:, 0])
        time = time_axis(columns, run)
        time.draw(axes)
        for ax, name in zip(axes, names, strict=True):
            _job_panel(ax, run.jobs[name], progress(run, name), time)
        mark_events(axes, run, time)
        axes[len(axes) // 2].set_ylabel("steps done (%)")
        return Plot("jobs", _jobs_title(run, findings), note, svg_of(figure, "jobs", note))


def progress(run: DemoRun, name: str) -> list[tuple[float, str, int]]:
    """(seconds, phase, step) of a job, in order of time, from its history and the samples together."""
    points = {(at, phase, step) for at, phase, step in run.jobs[name].history}
    for sample in run.samples:
        if name in sample.jobs:
            phase, step = sample.jobs[name]
            points.add((sample.seconds, phase, step))
    ordered = sorted(points, key=lambda p: p[0])
    return [p for i, p in enumerate(ordered) if _turns(ordered, i)]


def _turns(points: list[tuple[float, str, int]], i: int) -> bool:
    """Whether a point is needed to draw the line: an end, a change of phase, a fall, or every twentieth."""
    if i == 0 or i == len(points) - 1 or i % 20 == 0:
        return True
    _, phase, step = points[i]
    return (
        any(points[j][1] != phase for j in (i - 1, i + 1))
        or points[i + 1][2] < step
        or points[i - 1][2] > step
    )


def _job_panel(ax: Any, job: JobFacts, points: list[tuple[float, str, int]], time: Any) -> None:
    ax.set_ylim(0.0, 108.0)
    ax.set_yticks([0, 50, 100])
    title = f"{short(job.name, 40)}: {short(job.phase or 'unknown', 20).lower()}"
    title += f", {count(job.step)} of {plural(job.steps, 'step')}" + (
        f", {plural(job.restarts, 'restart')}" if job.restarts else ""
    )
    panel_title(ax, title, CALM)
    if not points:
        ax.annotate("nothing was reported", (0.5, 0.45), xycoords="axes fraction", ha="center", color=INK)
        return
    at = time.scaled(np.array([p[0] for p in points]))
    done = np.array([p[2] for p in points]) * 100.0 / max(job.steps, 1)
    for begin, end, phase in idle_spans(points):
        ax.axvspan(time.scaled(begin), time.scaled(end), color=GRID, alpha=0.9, linewidth=0, zorder=0)
        if end - begin > 0.06 * (time.last - time.first):
            middle = float(time.scaled((begin + end) / 2.0))
            ax.annotate(
                short(phase, 18).lower(), (middle, 54), ha="center", va="center", fontsize=10, color=MUTED
            )
    ax.fill_between(at, 0.0, done, color=CALM, alpha=0.16, linewidth=0)
    ax.plot(at, done, color=CALM, linewidth=1.8)
    _falls(ax, points, at, done)
    side_labels(ax, [(float(done[-1]), f"{done[-1]:.0f} % at {clock(_reached(points))}", CALM)])


def idle_spans(points: list[tuple[float, str, int]]) -> list[tuple[float, float, str]]:
    """(from, until, phase) for every stretch in which the job was neither running nor over."""
    spans: list[tuple[float, float, str]] = []
    for (at, phase, _), (after, _, _) in pairwise(points):
        if phase.lower() in _RUNNING | SUCCEEDED:
            continue
        if spans and spans[-1][1] == at and spans[-1][2] == phase:
            spans[-1] = (spans[-1][0], after, phase)
        else:
            spans.append((at, after, phase))
    return spans


def _reached(points: list[tuple[float, str, int]]) -> float:
    return next(at for at, _, step in points if step == points[-1][2])


def _falls(ax: Any, points: list[tuple[float, str, int]], at: Any, done: Any) -> None:
    for i in range(1, len(points)):
        lost = points[i - 1][2] - points[i][2]
        if lost > 0:
            ax.plot(at[i], done[i], marker="v", color=ALERT, markersize=6, linestyle="none", zorder=5)
            ax.annotate(
                f"back to step {count(points[i][2])}: {plural(lost, 'step')} lost", (at[i], done[i]), xytext=(8, -4),
                textcoords="offset points", fontsize=10, color=ALERT, va="top",
            )  # fmt: skip


def _jobs_title(run: DemoRun, findings: Findings) -> str:
    done, total = len(findings.succeeded), len(run.jobs)
    if done == total:
        which = (
            "The training job"
            if total == 1
            else "Both training jobs"
            if total == 2
            else f"All {total} training jobs"
        )
        head = f"{which} succeeded"
    else:
        waiting = [
            f"{short(j.name, 30)} {(j.phase or 'unknown').lower()}"
            for j in run.jobs.values()
            if j not in findings.succeeded
        ]
        head = f"{done} of {plural(total, 'training job')} succeeded; {listed([clean(w, 60) for w in waiting[:4]])}"
    again = [f"{short(j.name, 30)} {_times(j.restarts)}" for j in run.jobs.values() if j.restarts]
    return head + (f"; restarted: {listed(again)}" if again else ", none was restarted")


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{count(number)} times")


# ---------------------------------------------------------------------------------------------------- timeline


@dataclass(frozen=True, slots=True)
class Moment:
    """A key moment: its number on the plot, and the happening."""

    number: int
    happening: Happening


def key_moments(run: DemoRun) -> list[Moment]:
    """The happenings a reader wants to see first: the first of each code, graver and rarer ones before others."""
    first: dict[tuple[str, str], Happening] = {}
    told = [h for h in run.happenings if h.verdict != "kept"] or run.happenings
    for happening in sorted(told, key=lambda h: h.seconds):
        first.setdefault((happening.code, happening.kind), happening)
    often = Counter((h.code, h.kind) for h in run.happenings)

    def rank(h: Happening) -> tuple[int, int, float]:
        return (0 if h.verdict in WARNINGS else 1 if h.actions else 2, often[h.code, h.kind], h.seconds)

    chosen = sorted(
        sorted(first.values(), key=rank)[:MOST_MOMENTS], key=lambda h: (h.seconds, h.loop, h.subject)
    )
    return [Moment(i + 1, happening) for i, happening in enumerate(chosen)]


def timeline(run: DemoRun, columns: Columns, findings: Findings, moments: list[Moment]) -> Plot:
    """When which loop decided something, a lane per loop; numbers mark the key moments."""
    note = (
        "Each line is a decision that said something new; the taller red ones blocked, shed, rejected or isolated. Numbers are the key "
        "moments told below."
    )
    if not run.happenings:
        return Plot("timeline", "Nothing was decided", note, Markup(""), "The decision log is empty.")
    lanes = sorted({h.loop for h in run.happenings}, key=_lane_order)[:12]
    with style():
        figure, grid = canvas(1, 46 * len(lanes) + 10)
        ax = grid[0, 0]
        time = time_axis(columns, run, happenings=True)
        ax.set_ylim(-0.6, len(lanes) - 0.4)
        ax.set_yticks(range(len(lanes)), [short(lane, 12) for lane in reversed(lanes)])
        ax.grid(visible=False)
        for i, lane in enumerate(reversed(lanes)):
            _lane(ax, i, [h for h in run.happenings if h.loop == lane], time)
        time.draw([ax])
        mark_events([ax], run, time)
        _numbers(ax, moments, list(reversed(lanes)), time)
        return Plot("timeline", _timeline_title(run, findings), note, svg_of(figure, "timeline", note))


_ORDER = (
    "select",
    "scale",
    "commit",
    "train",
    "place",
    "warm",
    "planner",
    "power",
    "faults",
    "migration",
    "dispatch",
)


def _lane_order(loop: str) -> tuple[int, str]:
    return (_ORDER.index(loop) if loop in _ORDER else len(_ORDER), loop)


def _lane(ax: Any, row: int, happenings: list[Happening], time: Any) -> None:
    ax.axhline(row, color=GRID, linewidth=0.8, zorder=0)
    for grave, height, colour in ((False, 0.17, CALM), (True, 0.3, ALERT)):
        some = [h.seconds for h in happenings if (h.verdict in WARNINGS) == grave]
        if not some:
            continue
        pixels = (time.last - time.first) / 900.0 or 1.0
        at = np.unique(np.round(np.array(some) / pixels)) * pixels
        x = np.repeat(time.scaled(at), 3)
        y = np.tile([row - height, row + height, np.nan], at.size)
        ax.plot(x, y, color=colour, linewidth=1.2, solid_capstyle="butt", zorder=3)
    acted = sum(h.actions for h in happenings)
    side_text = f"{count(len(happenings))} told" + (f", {plural(acted, 'action')}" if acted else "")
    ax.annotate(
        side_text, (1.0, row), xycoords=("axes fraction", "data"), xytext=(8, 0), textcoords="offset points",
        va="center", fontsize=10.5, color=INK, annotation_clip=False,
    )  # fmt: skip


def _numbers(ax: Any, moments: list[Moment], lanes: list[str], time: Any) -> None:
    last: dict[str, float] = {}
    width = (time.last - time.first) / 50.0
    for moment in moments:
        lane = moment.happening.loop
        if lane not in lanes:
            continue
        at = max(moment.happening.seconds, last.get(lane, -1e18) + width)
        last[lane] = at
        ax.annotate(
            str(moment.number), (float(time.scaled(at)), lanes.index(lane)), xytext=(0, 13), textcoords="offset points",
            ha="center", va="center", fontsize=8.5, color=PAPER, zorder=6, annotation_clip=False,
            bbox={"boxstyle": "circle,pad=0.22", "facecolor": INK, "edgecolor": "none"},
        )  # fmt: skip


def _timeline_title(run: DemoRun, findings: Findings) -> str:
    head = f"{plural(findings.decisions, 'decision')}, " + (
        "each with its reason"
        if not findings.unexplained
        else f"{plural(findings.unexplained, 'one', 'of them')} without a reason"
    )
    answers = [
        h.seconds for h in run.happenings if h.verdict in _ANSWERS and h.seconds >= run.node_failed_seconds
    ]
    if run.node_failed and answers:
        wait = min(answers) - run.node_failed_seconds
        head += f"; the node's failure was answered {wait:.0f} s after it happened"
    return head
