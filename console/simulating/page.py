"""The report page of a sweep: what was asked, the figures with their intervals, the plots, and how to run it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from console.demo.markup import Markup, el, joined
from console.demo.report_style import style_sheet
from console.simulating import decisions, plots
from console.simulating.plots_power import has_power, power
from simulator.experiments.outcomes import Outcome
from simulator.experiments.statistics import Estimate, by_point

SHOWN = (
    ("attainment", "attainment", 100.0, "%"),
    ("ttft_p50_seconds", "TTFT p50", 1.0, "s"),
    ("ttft_p99_seconds", "TTFT p99", 1.0, "s"),
    ("tpot_p50_seconds", "TPOT p50", 1e3, "ms"),
    ("tpot_p99_seconds", "TPOT p99", 1e3, "ms"),
    ("requests_per_second", "finished", 1.0, "req/s"),
    ("utilisation", "busy", 100.0, "%"),
    ("preemptions", "preemptions", 1.0, ""),
    ("migrations", "migrations", 1.0, ""),
    ("dollars_per_hour", "cost", 1.0, "$/h"),
    ("watts_mean", "power, mean", 1e-3, "kW"),
    ("watts_peak", "power, peak", 1e-3, "kW"),
    ("joules_per_request", "energy a request", 1e-3, "kJ"),
    ("joules_per_token", "energy a token", 1.0, "J"),
    ("gpu_xid_failures", "GPUs lost", 1.0, ""),
    ("node_crash_failures", "nodes lost", 1.0, ""),
)
"""Figures of the table: name, title, factor to its unit, unit."""
_OF = (
    ("attainment of ", "attainment, ", 100.0, "%"),
    ("ttft_p99_seconds of ", "TTFT p99, ", 1.0, "s"),
    ("peak_share_", "peak of the rating, ", 100.0, "%"),
)
_JOB = (
    ("_steps", "iterations", 1.0, ""),
    ("_steps_per_hour", "iterations an hour", 1.0, ""),
    ("_failures", "failures", 1.0, ""),
    ("_lost_steps", "iterations lost", 1.0, ""),
    ("_exchange_share", "time in exchange", 100.0, "%"),
)


def rows_of(estimates: Mapping[str, Mapping[str, Estimate]]) -> list[tuple[str, str, float, str]]:
    """The rows of the table: those of `SHOWN` that any point has, and its classes, domains and jobs."""
    there = dict.fromkeys(name for found in estimates.values() for name in found)
    rows = [row for row in SHOWN if row[0] in there]
    for prefix, title, factor, unit in _OF:
        rows += [
            (name, title + name.removeprefix(prefix), factor, unit)
            for name in there
            if name.startswith(prefix)
        ]
    jobs = [
        name.removeprefix("job_").removesuffix("_attempts") for name in there if name.endswith("_attempts")
    ]
    for job in jobs:
        rows += [(f"job_{job}{end}", f"{job}: {title}", factor, unit) for end, title, factor, unit in _JOB]
    return rows


_OWN = (
    "pre{white-space:pre-wrap;overflow-wrap:anywhere}.scroll{overflow-x:auto}"
    ".log th,.log td:nth-child(-n+3),.log td:nth-child(5){white-space:nowrap}"
)


def cell(found: Estimate | None, factor: float, unit: str) -> str:
    """`mean ± half width unit`, or a dash."""
    if found is None:
        return "–"
    text = f"{found.mean * factor:.4g}"
    if found.half_width is not None:
        text += f" ± {found.half_width * factor:.2g}"
    return f"{text} {unit}".strip()


def page(
    name: str,
    given: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    promise: Mapping[str, float],
    command: str,
    sources: Sequence[str] = (),
) -> str:
    """The whole page, in one file without anything from elsewhere. `sources` say where its cost models come from."""
    estimates = by_point(outcomes)
    drawn = plots.by_point(outcomes)
    body = joined(
        el("header", el("h1", name or "Simulation"), el("p", _told(outcomes, estimates)), class_="top"),
        el("main", *_sections(estimates, drawn, outcomes, promise, given, command, sources)),
    )
    head = joined(
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width">'),
        el("title", f"{name or 'Simulation'} – Plimsoll"),
        el("style", Markup(style_sheet() + _OWN)),
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _told(outcomes: Sequence[Outcome], estimates: Mapping[str, Any]) -> str:
    failed = sum(1 for outcome in outcomes if outcome.error)
    partial = sum(1 for outcome in outcomes if not outcome.error and not outcome.figures.get("complete", 1.0))
    seeds = len({outcome.run.seed for outcome in outcomes})
    told = f"{len(estimates)} points, {seeds} seeds, {len(outcomes)} runs; intervals are 95 % (Student) over seeds."
    if failed:
        told += f" {failed} runs failed."
    if partial:
        told += f" {partial} runs are partial: their event budget was spent."
    return told


def _sections(
    estimates: Mapping[str, Mapping[str, Estimate]],
    drawn: Mapping[str, Sequence[Outcome]],
    outcomes: Sequence[Outcome],
    promise: Mapping[str, float],
    given: Mapping[str, Any],
    command: str,
    sources: Sequence[str],
) -> list[Markup]:
    sections = [el("h2", "Figures"), _table(estimates)]
    if drawn:
        left_out = len(estimates) - len(drawn)
        note = (
            f" The first {len(drawn)} points are drawn; {left_out} more are in the table." if left_out else ""
        )
        sections += [
            el("h2", "How long requests wait"),
            el("figure", plots.distributions(drawn, promise)),
            el("p", f"Lines are means over seeds, bands their range; dashed is the promise.{note}"),
            el("h2", "Attainment, latency and cost"),
            el(
                "figure",
                plots.bars(
                    estimates,
                    (("attainment", "attainment, %", 100.0), ("ttft_p99_seconds", "TTFT p99, s", 1.0)),
                ),
            ),
            el("h2", "Throughput"),
            el("figure", plots.throughput(drawn)),
        ]
    if has_power(drawn):
        sections += [el("h2", "Power"), el("figure", power(drawn))]
    sections += decisions.sections(drawn)
    sections += _remarks(outcomes, sources)
    text = yaml.safe_dump(dict(given), sort_keys=False, allow_unicode=True)
    sections += [
        el("h2", "The scenario, and how to run it again"),
        *(el("div", el("pre", each), class_="scroll") for each in (command, text)),
    ]
    return sections


def _remarks(outcomes: Sequence[Outcome], sources: Sequence[str]) -> list[Markup]:
    """Runs that failed, lines of traces that were left out, and where the cost models are from."""
    sections: list[Markup] = []
    failures = [outcome for outcome in outcomes if outcome.error]
    if failures:
        rows = [el("li", f"{each.run.point}, seed {each.run.seed}: {each.error}") for each in failures[:50]]
        sections += [el("h2", "Runs that failed"), el("ul", *rows)]
    lines = dict.fromkeys(note for outcome in outcomes for note in outcome.notes)
    if lines:
        sections += [
            el("h2", "Lines of the trace that were left out"),
            el("ul", *(el("li", n) for n in lines)),
        ]
    if sources:
        sections += [
            el("h2", "Where the times and watts come from"),
            el("ul", *(el("li", each) for each in sources)),
        ]
    return sections


def _table(estimates: Mapping[str, Mapping[str, Estimate]]) -> Markup:
    named = plots.short(estimates)
    head = el("tr", el("th", ""), *(el("th", named[point]) for point in estimates))
    rows = [
        el(
            "tr",
            el("td", title),
            *(el("td", cell(found.get(name), factor, unit)) for found in estimates.values()),
        )
        for name, title, factor, unit in rows_of(estimates)
    ]
    return el("div", el("table", el("thead", head), el("tbody", *rows)), class_="scroll")
