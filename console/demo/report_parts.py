"""The parts of the report that are not plots: headline, table of services, cards, decision log, footer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby

from console.demo.findings import WARNINGS, Findings, ServiceFinding
from console.demo.markup import Markup, el, joined
from console.demo.plots_decisions import Moment
from console.demo.plots_style import VARIABLES, service_colours
from console.demo.run_data import DemoRun, Happening, ObjectExplanation
from console.demo.words import (
    against,
    clean,
    clock,
    count,
    mix,
    plural,
    share,
    short,
    span,
)

MOST_CARDS = 48
MOST_OBJECTS = 80
MOST_LINES = 160
MOST_LIST = 12
FIRST_SENTENCES = 4


# ---------------------------------------------------------------------------------------------------- services


def services_table(run: DemoRun, findings: Findings) -> Markup:
    """What each service promised and did."""
    colours = service_colours(run.services)
    head = [
        "Service",
        "Model",
        "Requests",
        "SLO attainment",
        "First token",
        "Per token",
        "Ready",
        "GPUs at the end",
    ]
    rows = [_service_row(s, VARIABLES[colours[s.name]]) for s in findings.services]
    numeric = {2, 3, 6}
    heads = el("tr", [el("th", text, class_="n" if i in numeric else None) for i, text in enumerate(head)])
    return el("div", el("table", el("thead", heads), el("tbody", rows)), class_="wide")


def _service_row(service: ServiceFinding, colour: str) -> Markup:
    facts = service.facts
    inside: Markup | str = "no request"
    if service.requests:
        mark = el("span", "✓ " if service.kept else "✗ ", class_="good" if service.kept else "bad")
        inside = joined(mark, share(service.attainment))
    return el(
        "tr",
        el("td", el("span", class_="dot", style=f"background:var(--{colour})"), short(service.name)),
        el("td", short(facts.model, 40)),
        el("td", count(service.requests), class_="n"),
        el("td", inside, class_="n"),
        el("td", _percentile(service, service.ttft_seconds, facts.ttft_objective_seconds)),
        el("td", _percentile(service, service.tpot_seconds, facts.tpot_objective_seconds)),
        el("td", count(facts.ready), class_="n"),
        el("td", mix(facts.gpus)),
    )


def _percentile(service: ServiceFinding, seconds: float, objective: float) -> str:
    if not math.isfinite(seconds):
        return f"objective {span(objective)}"
    return f"p{service.facts.percentile * 100:g} {against(seconds, objective)}"


# ----------------------------------------------------------------------------------------------- explanations


def moments_list(moments: list[Moment]) -> Markup:
    """The key moments of the timeline, told."""
    return el("ol", [
        el(
            "li",
            el("span", moment.number, class_="number"),
            el("span", el("strong", f"{clock(h.seconds)} {short(h.subject)}"), f": {clean(h.sentence, 320)}"),
        )
        for moment in moments
        for h in (moment.happening,)
    ], class_="moments")  # fmt: skip


def cards(explanations: list[ObjectExplanation]) -> Markup:
    """One card for each object that explains itself."""
    more = len(explanations) - MOST_CARDS
    rest = el("p", f"{plural(more, 'more object explains itself', 'more objects explain themselves')}: "
              "ask with plimsoll explain KIND/NAME.", class_="note") if more > 0 else None  # fmt: skip
    return joined(el("div", [_card(e) for e in explanations[:MOST_CARDS]], class_="cards"), rest)


def _card(explanation: ObjectExplanation) -> Markup:
    alternatives = None
    if explanation.alternatives:
        rows = [_alternative(line) for line in explanation.alternatives[:MOST_LIST]]
        alternatives = joined(
            el("h4", "What was not chosen"), el("table", el("tbody", rows)), _more(explanation.alternatives)
        )
    remedies = None
    if explanation.remedies:
        remedies = joined(el("h4", "What would help"), _bullets(explanation.remedies))
    told = [clean(line) for line in explanation.sentences if line != explanation.headline]
    return el(
        "article",
        el("p", f"{short(explanation.kind)} {short(explanation.name)}", class_="kind"),
        el("h3", clean(explanation.headline) or "No decision yet"),
        [el("p", line) for line in told[:FIRST_SENTENCES]],
        _earlier(told[FIRST_SENTENCES:]),
        alternatives,
        remedies,
        class_="card",
    )


def _earlier(told: list[str]) -> Markup | None:
    if not told:
        return None
    lines = [el("p", line) for line in told[: 2 * MOST_LIST]]
    return el(
        "details",
        el("summary", f"{count(len(told))} earlier"),
        el("div", lines, class_="inner"),
        class_="earlier",
    )


def _alternative(line: str) -> Markup:
    choice, colon, cost = clean(line).partition(": ")
    return el("tr", el("td", choice), el("td", cost if colon else "no figure"))


def _bullets(lines: list[str]) -> Markup:
    return joined(el("ul", [el("li", clean(line)) for line in lines[:MOST_LIST]]), _more(lines))


def _more(lines: list[str]) -> Markup | None:
    left = len(lines) - MOST_LIST
    return el("p", f"and {count(left)} more", class_="note") if left > 0 else None


# ------------------------------------------------------------------------------------------------ decision log


def decision_log(happenings: list[Happening]) -> Markup:
    """Every decision, an expandable table per object; repeated ones are one line with a count."""
    by_object: dict[tuple[str, str], list[Happening]] = {}
    for happening in sorted(happenings, key=lambda h: h.seconds):
        by_object.setdefault((happening.kind, happening.subject), []).append(happening)
    order = sorted(by_object, key=lambda key: (key[0] not in _FIRST, key))
    tables = [_object_log(kind, name, by_object[kind, name]) for kind, name in order[:MOST_OBJECTS]]
    left = len(order) - MOST_OBJECTS
    rest = (
        el("p", f"{plural(left, 'more object', 'more objects')} in the ledger.", class_="note")
        if left > 0
        else None
    )
    box = el(
        "label",
        el("input", type="checkbox", id="graver"),
        " only what was blocked, shed, rejected or isolated",
    )
    return el("div", box, tables, rest, class_="log")


_FIRST = frozenset({"ModelService", "TrainingJob", "PowerDomain"})


def _object_log(kind: str, name: str, log: list[Happening]) -> Markup:
    runs = [
        list(same)
        for _, same in groupby(log, key=lambda h: (h.loop, h.code, h.verdict, _figureless(h.sentence)))
    ]
    left = len(runs) - MOST_LINES
    head, tail = (runs, []) if left <= 0 else (runs[: MOST_LINES // 2], runs[-(MOST_LINES // 2) :])
    gap = (
        el(
            "tr",
            el("td", f"{plural(left, 'line')} left out here; the ledger has them", colspan="5", class_="t"),
        )
        if left > 0
        else None
    )
    graver = any(h.verdict in WARNINGS for h in log)
    columns = el("tr", [el("th", text) for text in ("When", "Loop", "Verdict", "Code", "Why")])
    body = el("tbody", [_line(same) for same in head], gap, [_line(same) for same in tail])
    return el(
        "details",
        el(
            "summary",
            el("strong", f"{short(kind)} {short(name)}"),
            f", {plural(len(log), 'decision')}",
            el("span", f"last, at {clock(log[-1].seconds)}: {clean(log[-1].sentence, 200)}", class_="last"),
        ),
        el("div", el("table", el("thead", columns), body), class_="inner wide"),
        class_=None if graver else "calm",
    )


def _figureless(sentence: str) -> str:
    """A sentence without its digits: the same decision with other figures is the same line of the log."""
    return sentence.translate(_DIGITS)


_DIGITS = {ord(c): None for c in "0123456789.,-"}


def _line(same: list[Happening]) -> Markup:
    first, last = same[0], same[-1]
    when = clock(first.seconds) + (
        f" to {clock(last.seconds)}, {count(len(same))} times" if len(same) > 1 else ""
    )
    grave = first.verdict in WARNINGS
    return el(
        "tr",
        el("td", when, class_="t"),
        el("td", short(last.loop, 20)),
        el("td", short(last.verdict, 20), class_="bad" if grave else None),
        el("td", short(last.code, 40)),
        el("td", clean(last.sentence)),
        class_=None if grave else "calm",
    )


def definitions(pairs: Iterable[tuple[str, object]]) -> Markup:
    """A list of terms and what they are."""
    return el("dl", [joined(el("dt", term), el("dd", value)) for term, value in pairs])
