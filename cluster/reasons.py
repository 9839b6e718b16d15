"""Why: structured reasons with numbers, declared once, rendered to a sentence only for people.

Text never enters a decision. A reason without its declared facts cannot be rendered: that is an error
in the policy, found by the test that renders every code.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Literal

import msgspec

from cluster.base import Ref
from cluster.reason_codes import CODES

Unit = Literal[
    "req/s", "req", "GPU", "$/h", "s", "ms", "W", "B", "tokens/s", "tokens", "ratio", "nodes", "replicas", "MHz", "steps",
    "attempt", "1/min", "bit/s", "products", "cells", "faults", "versions", "priority", "variants", "samples", "attempts",
    "kinds", "loops", "names", "objects", "copies", "claims", "moves", "min", "pods", "actions", "services",
]  # fmt: skip


class Verdict(StrEnum):
    """What became of the subject."""

    CHOSEN = "chosen"
    KEPT = "kept"
    REJECTED = "rejected"
    BLOCKED = "blocked"
    SHED = "shed"
    CAPPED = "capped"
    MOVED = "moved"
    ISOLATED = "isolated"


class Quantity(msgspec.Struct, frozen=True, gc=False):
    """A named number with a unit out of a closed set."""

    name: str
    value: float
    unit: Unit

    @property
    def text(self) -> str:
        """The value and unit as people write it: `43.0 req/s`, `$22.20/h`, `45 ms`, `13.5 GB`."""
        return _FORMATS.get(self.unit, _plain)(self.value, self.unit)


class Alternative(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What was not chosen: what it would have cost more, or the code that excludes it, with facts."""

    choice: str
    cost: Quantity | None = None
    code: str = ""
    facts: tuple[Quantity, ...] = ()


class Remedy(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What would cure or improve it."""

    code: str
    choice: str = ""
    facts: tuple[Quantity, ...] = ()


class Reason(
    msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One reason. `need`, `have` and `limit` are the numbers that decided; `refs` names other subjects
    this one touched; `count` how many actions share it after merging.
    """

    code: str
    subject: Ref
    verdict: Verdict
    choice: str = ""
    need: Quantity | None = None
    have: Quantity | None = None
    limit: Quantity | None = None
    facts: tuple[Quantity, ...] = ()
    against: tuple[Alternative, ...] = ()
    remedy: Remedy | None = None
    refs: tuple[Ref, ...] = ()
    count: int = 1

    @property
    def key(self) -> tuple[str, str, str]:
        """Reasons are merged by (code, subject, choice)."""
        return self.code, str(self.subject), self.choice

    @property
    def severity(self) -> str:
        """`Normal` or `Warning`, as Events have it."""
        return CODES[self.code].severity if self.code in CODES else "Warning"

    def fact(self, name: str) -> float | None:
        """Value of the fact called `name`, or None."""
        return next((q.value for q in self.facts if q.name == name), None)


class MissingFactError(ValueError):
    """A reason lacks a number that its code declares."""


def missing_facts(reason: Reason) -> tuple[str, ...]:
    """Names of declared numbers the reason does not carry; an unknown code is missing itself."""
    declared = CODES.get(reason.code)
    if declared is None:
        return (f"code {reason.code}",)
    have = {q.name for q in reason.facts}
    for slot in ("need", "have", "limit"):
        if getattr(reason, slot) is not None:
            have.add(slot)
    return tuple(name for name in declared.facts if name not in have)


def render(reason: Reason) -> str:
    """The reason as one sentence with numbers.

    Raises MissingFactError when a declared number is absent or the code is unknown.
    """
    missing = missing_facts(reason)
    if missing:
        raise MissingFactError(f"{reason.code} about {reason.subject} lacks {', '.join(missing)}")
    values = {q.name: q.text for q in reason.facts}
    for slot in ("need", "have", "limit"):
        quantity: Quantity | None = getattr(reason, slot)
        if quantity is not None:
            values[slot] = quantity.text
    text = CODES[reason.code].template.format(subject=reason.subject.name, choice=reason.choice, **values)
    runner_up = next((a for a in reason.against if a.cost is not None), None)
    if runner_up is not None and runner_up.cost is not None:
        text += f" Next best: {runner_up.choice}, {_signed(runner_up.cost)}."
    return text


def sentence(reason: Reason) -> str:
    """`render`, or which numbers are lacking: for places that must never fail because a policy forgot one.

    Of load that is shed it also says what would cure it: who reads of it has nothing but the sentence.
    """
    missing = missing_facts(reason)
    if missing:
        return f"{reason.code} without {', '.join(missing)}"
    cured = reason.verdict is Verdict.SHED and reason.remedy is not None
    cure = render_remedy(reason.remedy) if cured and reason.remedy is not None else ""
    return f"{render(reason)} {cure[:1].upper()}{cure[1:]}".rstrip()


def render_alternative(alternative: Alternative) -> str:
    """One line about what was not chosen."""
    if alternative.code:
        told = _told(alternative.code, alternative.choice, alternative.facts)
        if told:
            return told
        facts = ", ".join(f"{q.name} {q.text}" for q in alternative.facts)
        return f"{alternative.choice}: {alternative.code}" + (f" ({facts})" if facts else "")
    return f"{alternative.choice}: {_signed(alternative.cost)}" if alternative.cost else alternative.choice


def render_remedy(remedy: Remedy) -> str:
    """What would cure it, as a sentence; its code and numbers where they are not those that the code declares."""
    facts = ", ".join(f"{q.name} {q.text}" for q in remedy.facts)
    return _told(remedy.code, remedy.choice, remedy.facts) or f"{remedy.code} {remedy.choice} {facts}".strip()


def _told(code: str, choice: str, facts: tuple[Quantity, ...]) -> str:
    """The code's sentence over facts alone; empty where they lack a number that it declares."""
    spec, values = CODES.get(code), {q.name: q.text for q in facts}
    if spec is None or not set(spec.facts) <= set(values) or "{choice}" not in spec.template:
        return ""
    return spec.template.format(subject=choice, choice=choice, **values)


def _signed(cost: Quantity) -> str:
    word = "more" if cost.value >= 0 else "less"
    return f"{Quantity(cost.name, abs(cost.value), cost.unit).text} {word}"


def _number(value: float) -> str:
    """Three figures, but never an exponent for what is only large."""
    return f"{value:.0f}" if float(value).is_integer() or abs(value) >= 999.5 else f"{value:.3g}"


def _plain(value: float, unit: str) -> str:
    return f"{_number(value)} {_SINGULAR.get(unit, unit.removesuffix('s')) if value == 1.0 else unit}"


def _rate(value: float, unit: str) -> str:
    return f"{value:.2f} {unit}" if abs(value) >= 0.1 or value == 0.0 else f"{value:.2g} {unit}"


def _scaled(value: float, unit: str) -> str:
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.1f} {prefix}{unit}"
    return f"{value:.0f} {unit}"


_SINGULAR = {"copies": "copy", "tokens/s": "tokens/s"}
_FORMATS: dict[str, Callable[[float, str], str]] = {
    "$/h": lambda value, _: f"${value:.2f}/h",
    "ratio": lambda value, _: f"{100.0 * value:.1f} %",
    "req/s": _rate,
    "s": lambda value, _: f"{value:.0f} s" if abs(value) >= 10 else f"{value:.2g} s",
    "ms": lambda value, _: f"{value:.0f} ms",
    "B": _scaled,
    "req": lambda value, _: _plain(value, "requests"),
    "attempt": lambda value, _: f"{value:.0f}",
    "versions": lambda value, _: f"version {value:.0f}",
    "priority": lambda value, _: f"priority {value:.0f}",
    "bit/s": lambda value, _: f"{value / 1e9:.0f} Gbit/s" if value >= 1e9 else f"{value / 1e6:.0f} Mbit/s",
    "1/min": lambda value, _: f"{_number(value)} a minute",
}
