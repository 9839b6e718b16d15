"""The run's figures on the terminal, once it is over."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from console.demo.findings import Findings, ServiceFinding, columns_of, findings_of, keeps, why_not
from console.demo.run_data import DemoRun, SingleType
from console.demo.words import (
    against,
    clean,
    clock,
    count,
    dollars,
    kilowatts,
    mix,
    plural,
    share,
    short,
    span,
)

MOST_ROWS = 20


def print_summary(run: DemoRun, console: Console) -> None:
    """Prints what each service promised and did, then the figures of the run."""
    findings = findings_of(run, columns_of(run))
    console.print()
    console.print(_services(findings))
    console.print()
    console.print(_figures(run, findings))


def _services(findings: Findings) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("service", no_wrap=True, overflow="ellipsis")
    for heading in ("requests", "SLO attainment", "first token", "per token"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("GPUs now", overflow="fold")
    for service in findings.services[:MOST_ROWS]:
        facts = service.facts
        table.add_row(
            Text(short(service.name, 40)),
            count(service.requests),
            _inside(service),
            against(service.ttft_seconds, facts.ttft_objective_seconds),
            against(service.tpot_seconds, facts.tpot_objective_seconds),
            Text(mix(facts.gpus)),
        )
    return table


def _inside(service: ServiceFinding) -> Text:
    if not service.requests:
        return Text("no request", style="dim")
    sign, style = ("≥", "green") if service.kept else ("<", "bold red")
    return Text(f"{share(service.attainment)} {sign} {service.facts.percentile * 100:g} %", style=style)


def _figures(run: DemoRun, findings: Findings) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for term, told in _rows(run, findings):
        grid.add_row(term, Text(told))
    return grid


def _rows(run: DemoRun, findings: Findings) -> list[tuple[str, str]]:
    ends = (
        f"{count(findings.served)} served, {count(findings.rejected)} rejected, {count(findings.lost)} lost"
    )
    rows = [
        ("requests", f"{ends}, {count(findings.malformed)} malformed of {plural(run.data_lines, 'line')}"),
        ("cost", _cost(findings)),
    ]
    rows += [("", _single(single)) for single in run.single_types[:MOST_ROWS]]
    rows.append(("GPUs serving", f"at most {mix(findings.peak_gpus)}; peak use {share(findings.peak_use)}"))
    if findings.rating > 0.0:
        rows.append(("power", _power(findings)))
    if run.node_failed:
        rows.append(("node failure", _failure(run, findings)))
    for job in list(run.jobs.values())[:MOST_ROWS]:
        again = f", {plural(job.restarts, 'restart')}" if job.restarts else ""
        told = f"{clean(job.phase, 24).lower()} at step {count(job.step)} of {count(job.steps)}{again}"
        rows.append(("job", f"{short(job.name, 40)}: {told}"))
    rows.append(("decisions", f"{count(findings.decisions)}, {count(findings.unexplained)} without a reason"))
    if math.isfinite(findings.wall_seconds):
        rows.append(("time", f"{span(findings.total_seconds)} simulated in {findings.wall_seconds:.0f} s"))
    return rows


def _cost(findings: Findings) -> str:
    best, saved = findings.best, findings.saved
    if best is None or not math.isfinite(saved):
        return f"{dollars(findings.cost)}; no single GPU type keeps every objective"
    word = "less" if saved >= 0 else "more"
    return f"{dollars(findings.cost)}, {share(abs(saved))} {word} than the best single GPU type, {short(best.accelerator, 24)}"


def _single(single: SingleType) -> str:
    name = short(single.accelerator, 24)
    if single.dollars_per_hour is None:
        return f"{name} alone cannot{why_not(single, 200)}"
    price = f"{name} alone {dollars(single.dollars_per_hour)}"
    return price if keeps(single) else f"{price}, but it cannot{why_not(single, 200)}"


def _power(findings: Findings) -> str:
    over = span(findings.over_seconds)
    return (
        f"{over} over the {kilowatts(findings.rating)} rating, peak {kilowatts(findings.peak_power)}; without caps "
        f"{span(findings.uncapped_over_seconds)} over it, peak {kilowatts(findings.peak_uncapped)}"
    )


def _failure(run: DemoRun, findings: Findings) -> str:
    return (
        f"{short(run.node_failed, 40)} at {clock(run.node_failed_seconds)}: {count(findings.inflight_at_failure)} requests in "
        f"flight, {count(findings.retried)} retried, {count(findings.lost)} lost"
    )
