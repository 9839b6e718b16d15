"""What is said of writes that were refused: a condition on the object of the user's, and reasons of what is no pod."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.reasons import Quantity, Reason, Verdict
from controller.actor.refusals import PODS, Entry, Refusals, sentences
from controller.observe.world import World
from controller.resources.base import Condition
from controller.telling.conditions import condition

ADMITTED = "Admitted"
"""False while something of an object is refused; absent otherwise."""

TOLD_FROM = 2
"""A write that met another's (409) or was not answered is told from so many failures in a row on."""

PASSING = frozenset({409, 429, 503})


def told(entries: Sequence[Entry]) -> list[Entry]:
    """Those that are worth a word: one lost race or answer is not."""
    return [e for e in entries if e.refused.code not in PASSING or e.refused.attempts > TOLD_FROM]


def admitted(entries: Sequence[Entry], generation: int) -> Condition | None:
    """The condition of an object of which something is refused, in the server's own sentence; else None."""
    shown = told(entries)
    if not shown:
        return None
    worst = max(shown, key=lambda e: (e.slot.what == PODS, e.refused.attempts, e.slot))
    return condition(ADMITTED, False, worst.reason, sentences(shown), generation)


def refused_reasons(book: Refusals, world: World) -> list[Reason]:
    """What is refused beside pods, of which planning tells: Services, statuses, events, deletions."""
    return [
        Reason(
            code="WriteRefused",
            subject=world.subject(*entry.about),
            verdict=Verdict.BLOCKED,
            choice=f"{entry.slot.what} is refused: {entry.refused.sentence}",
            need=Quantity("done", 0.0, "objects"),
            have=Quantity("tries", float(entry.refused.attempts), "attempts"),
            limit=Quantity("wait", entry.refused.wait_seconds, "s"),
        )
        for entry in told(book.entries())
        if entry.slot.what != PODS and not entry.slot.what.endswith(" Event")
    ]
