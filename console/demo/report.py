"""The report of a demo run: one HTML file without scripts and without anything fetched from elsewhere."""

from __future__ import annotations

import math
import shlex
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from console.demo import plots_cost, plots_decisions, plots_latency, plots_load, report_parts, report_tiles
from console.demo.findings import Columns, Findings, columns_of, findings_of
from console.demo.markup import Markup, el, joined
from console.demo.plots_style import Plot
from console.demo.report_style import style_sheet
from console.demo.run_data import DemoRun
from console.demo.words import clean, count, mix, plural, short, span

# Nothing may be loaded or run, whatever a name or a sentence contains.
GENERATED = "generated"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def write_report(run: DemoRun, path: Path) -> None:
    """Writes the report of `run` to `path`, making its folder. Raises OSError where that cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(run), encoding="utf-8")


def page(run: DemoRun) -> str:
    """The whole page, well-formed as HTML and as XML."""
    columns = columns_of(run)
    findings = findings_of(run, columns)
    moments = plots_decisions.key_moments(run)
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"Plimsoll: {report_tiles.headline(findings)}"),
        el("style", Markup(style_sheet())),
    )
    body = el(
        "body",
        _top(run, findings),
        el("main", _figures(run, columns, findings, moments), _why(run)),
        _footer(run, findings),
    )
    return f"<!DOCTYPE html>\n{el('html', head, body, lang='en')}\n"


def _top(run: DemoRun, findings: Findings) -> Markup:
    lead = (
        f"{plural(run.nodes, 'simulated node')} with {mix(run.gpus)}; {plural(findings.lines, 'request')} "
        f"{_source(run)} over {span(findings.total_seconds)}"
    )
    lead += (
        f", each sent {'twice' if run.replication == 2 else f'{count(run.replication)} times'}."
        if run.replication > 1
        else "."
    )
    if math.isfinite(findings.wall_seconds) and findings.wall_seconds > 0:
        lead += (
            f" It took {findings.wall_seconds:.0f} s of wall time: "
            f"{findings.total_seconds / findings.wall_seconds:.0f} times as fast as real time."
        )
    links = [
        el("a", text, href=f"#{target}")
        for target, text in (
            ("services", "Services"),
            ("plots", "Plots"),
            ("why", "Explanations"),
            ("log", "Decision log"),
        )
    ]
    return el(
        "header",
        el("p", "Plimsoll demo report", class_="eyebrow"),
        el("h1", report_tiles.headline(findings)),
        el("p", lead, class_="lead"),
        report_tiles.tiles(run, findings),
        el("nav", links),
        class_="top",
    )


def _source(run: DemoRun) -> str:
    name = clean(run.trace_name, 160)
    return name if name.startswith(GENERATED) else f"of {name}"


def _figures(
    run: DemoRun, columns: Columns, findings: Findings, moments: list[plots_decisions.Moment]
) -> Markup:
    timeline = plots_decisions.timeline(run, columns, findings, moments)
    return joined(
        el("h2", "Services", id="services"),
        report_parts.services_table(run, findings),
        el("h2", "What happened", id="plots"),
        _figure(plots_load.load(run, columns)),
        _figure(plots_load.replicas(run, columns)),
        _figure(plots_cost.cost(run, columns, findings)),
        _figure(plots_latency.over_time(run, columns, findings)),
        _figure(plots_latency.distribution(run, findings)),
        _figure(plots_cost.power(run, columns, findings)),
        _figure(plots_decisions.jobs(run, columns, findings)),
        _figure(timeline, report_parts.moments_list(moments) if moments else None),
    )


def _figure(plot: Plot, below: Markup | None = None) -> Markup:
    drawing = el("div", plot.svg, class_="plot") if plot.svg else el("p", plot.empty)
    return el(
        "figure",
        el("h3", plot.title),
        el("p", plot.note, class_="note"),
        drawing,
        below,
        id=f"figure-{plot.key}",
    )


def _why(run: DemoRun) -> Markup:
    cards = (
        report_parts.cards(run.explanations)
        if run.explanations
        else el("p", "No object was explained.", class_="note")
    )
    log = (
        report_parts.decision_log(run.happenings)
        if run.happenings
        else el("p", "Nothing was decided.", class_="note")
    )
    return joined(
        el("h2", "Why: each object explained", id="why"),
        el("p", "As the operator explained it at the end of the run; ", el("code", "plimsoll explain KIND/NAME"),
           " says the same.", class_="note"),
        cards,
        el("h2", "Decision log", id="log"),
        el("p", "Open an object to see its decisions. Repeated decisions are one line, with the last one's figures.",
           class_="note"),
        log,
    )  # fmt: skip


def _footer(run: DemoRun, findings: Findings) -> Markup:
    lines = f"{plural(run.data_lines, 'data line')}, {count(run.malformed_lines)} malformed, {count(run.out_of_order)} out of order"
    pairs: list[tuple[str, object]] = [
        ("Trace", short(run.trace_name, 120)),
        ("Lines", lines),
        ("sha256 of the trace", el("code", clean(run.input_sha256, 80) or "unknown")),
        ("Seed", run.seed),
        ("Replication factor", run.replication),
        ("Output tokens", count(findings.output_tokens)),
        ("Plimsoll", program_version()),
        ("To reproduce", el("code", reproduce(run))),
    ]
    pairs += [("Malformed", f"line {count(number)}: {clean(why, 200)}") for number, why in run.malformed[:10]]
    return el("footer", report_parts.definitions(pairs))


def reproduce(run: DemoRun) -> str:
    """The command that makes this run again; the generated trace needs no file."""
    trace = (
        "" if run.trace_name.startswith(GENERATED) else f"TRACE={shlex.quote(clean(run.trace_name, 200))} "
    )
    return f"make demo {trace}SEED={run.seed}"


def program_version() -> str:
    """The installed version; `unknown` where Plimsoll runs from a folder that was never installed."""
    try:
        return version("plimsoll")
    except PackageNotFoundError:
        return "unknown"
