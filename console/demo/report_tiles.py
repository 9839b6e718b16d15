"""The headline of the report: the run in one sentence, and its figures as tiles."""

from __future__ import annotations

import math

from console.demo.findings import Findings
from console.demo.markup import Markup, el
from console.demo.run_data import DemoRun
from console.demo.words import clock, count, dollars, kilowatts, listed, mix, plural, share, short, span


def headline(findings: Findings) -> str:
    """The run in one sentence."""
    asked = [s for s in findings.services if s.requests]
    kept = sum(1 for s in asked if s.kept)
    if not asked:
        return "No service had a request to answer"
    promise = (
        f"{plural(kept, 'service')} kept {'its' if kept == 1 else 'their'} promise"
        if kept == len(asked)
        else f"{kept} of {plural(len(asked), 'service')} kept the promise"
    )
    saved = findings.saved
    if not math.isfinite(saved):
        return f"{promise} for {dollars(findings.cost)}, which no single GPU type can do"
    word = "less" if saved >= 0 else "more"
    return (
        f"{promise} for {dollars(findings.cost)}, {share(abs(saved))} {word} than on the best single GPU type"
    )


def tiles(run: DemoRun, findings: Findings) -> Markup:
    """The headline figures."""
    return el("div", [
        _cost(findings), _attainment(findings), _requests(findings), _gpus(run, findings),
        _power(findings), _failure(run, findings), _jobs(run, findings), _decisions(findings),
    ], class_="tiles")  # fmt: skip


def _tile(what: str, figure: str, more: str, good: bool | None) -> Markup:
    mark = None
    if good is not None:
        mark = el("span", "✓ met" if good else "✗ missed", class_=f"mark {'good' if good else 'bad'}")
    return el(
        "div",
        el("div", el("span", what), mark, class_="what"),
        el("div", figure, class_="figure"),
        el("div", more, class_="more"),
        class_="tile",
    )


def _cost(findings: Findings) -> Markup:
    saved, best = findings.saved, findings.best
    if best is None or not math.isfinite(saved):
        return _tile(
            "Cost of serving", dollars(findings.cost), "no single GPU type keeps every objective", None
        )
    word = "less" if saved >= 0 else "more"
    more = f"{share(abs(saved))} {word} than {short(best.accelerator, 24)} alone, {dollars(best.dollars_per_hour or 0.0)}"
    return _tile("Cost of serving", dollars(findings.cost), more, saved >= -1e-9)


def _attainment(findings: Findings) -> Markup:
    asked = [s for s in findings.services if s.requests]
    if not asked:
        return _tile("Worst attainment", "–", "no request came", None)
    worst = min(asked, key=lambda s: s.attainment)
    more = listed([f"{short(s.name, 26)} {share(s.attainment)}" for s in asked[:5]])
    return _tile("Worst attainment", share(worst.attainment), more, all(s.kept for s in asked))


def _requests(findings: Findings) -> Markup:
    more = f"{count(findings.rejected)} rejected, {count(findings.lost)} lost, {count(findings.malformed)} malformed"
    if not findings.accounted:
        more += f"; they do not add up to {plural(findings.lines, 'line')}"
    good = findings.accounted and findings.rejected == findings.lost == 0
    return _tile(
        "Requests served", count(findings.served), f"{more} of {plural(findings.lines, 'line')}", good
    )


def _gpus(run: DemoRun, findings: Findings) -> Markup:
    used, owned = sum(findings.peak_gpus.values()), sum(run.gpus.values())
    more = f"at most {mix(findings.peak_gpus)}; peak use {share(findings.peak_use)} of those that may serve"
    return _tile(
        "GPUs serving, at most", f"{count(used)} of {count(owned)}" if owned else count(used), more, None
    )


def _power(findings: Findings) -> Markup:
    if findings.rating <= 0.0:
        return _tile("Power", "–", "no power domain", None)
    more = (
        f"peak {kilowatts(findings.peak_power)}; without caps {span(findings.uncapped_over_seconds)} over, "
        f"up to {kilowatts(findings.peak_uncapped)}"
    )
    figure = span(findings.over_seconds)
    return _tile(f"Over the {kilowatts(findings.rating)} rating", figure, more, findings.over_seconds <= 0.0)


def _failure(run: DemoRun, findings: Findings) -> Markup:
    if not run.node_failed:
        return _tile("Node failure", "none", "no node failed in this run", None)
    more = (
        f"at {clock(run.node_failed_seconds)} with {count(findings.inflight_at_failure)} requests in flight: "
        f"{count(findings.retried)} retried, {count(findings.lost)} lost"
    )
    return _tile("Node failure", short(run.node_failed, 22), more, findings.lost == 0)


def _jobs(run: DemoRun, findings: Findings) -> Markup:
    if not run.jobs:
        return _tile("Training jobs", "none", "the run had no training job", None)
    done, total = len(findings.succeeded), len(run.jobs)
    more = plural(findings.restarts, "restart") if findings.restarts else "no restart"
    return _tile("Jobs succeeded", f"{done} of {total}", more, done == total)


def _decisions(findings: Findings) -> Markup:
    more = f"{count(findings.unexplained)} without a reason; {count(findings.warnings)} blocked, shed, rejected or isolated"
    return _tile(
        "Decisions explained",
        count(findings.decisions - findings.unexplained),
        more,
        findings.unexplained == 0,
    )
