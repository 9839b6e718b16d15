"""What was said last: the newest reasons of every subject, and whether a reason is news."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from cluster.reasons import Reason

SUBJECTS_KEPT = 20_000
REASONS_PER_SUBJECT = 16
NEWS_RATIO = 0.10
"""An Event is written again when a number moved by more than this share (SEAMS §7)."""

_TRIES = frozenset({".have", ".limit", ".need"})
_ROOM = frozenset({".have", ".limit", "left", "cost"})
PASSING: dict[str, frozenset[str]] = {
    "KeptWarm": frozenset({".have"}),
    "MixChosen": frozenset({".limit"}),
    "ReplicaPlaced": _ROOM,
    "ReplicaTried": _ROOM,
    "GangRefused": _TRIES,
    "ReplicaRefused": _TRIES,
    "WriteRefused": _TRIES,
}
"""Numbers that go on by themselves (time idle, tries, the wait for the next) or are others' doing (what is free around it): no
news, by code.
"""


class Said(msgspec.Struct, frozen=True):
    """A reason, the loop it came from and when it was given (UTC seconds)."""

    reason: Reason
    loop: str
    at_seconds: float


def is_news(old: Reason | None, new: Reason) -> bool:
    """Whether a reason says something else than before: new, other slots, or a number moved by over 10 %."""
    if old is None:
        return True
    passing = PASSING.get(new.code, frozenset())
    before, after = ({k: v for k, v in _numbers(r).items() if k not in passing} for r in (old, new))
    if before.keys() != after.keys():
        return True
    return any(abs(after[k] - before[k]) > NEWS_RATIO * max(abs(before[k]), 1e-9) for k in after)


def _numbers(reason: Reason) -> dict[str, float]:
    found = {q.name: q.value for q in reason.facts}
    for slot in ("need", "have", "limit"):
        quantity = getattr(reason, slot)
        if quantity is not None:
            found[f".{slot}"] = quantity.value
    return found


class Sayings:
    """Bounded memory of what was said about whom."""

    def __init__(self) -> None:
        """Start silent."""
        self._by_subject: OrderedDict[tuple[str, str], OrderedDict[tuple[str, str], Said]] = OrderedDict()

    def hear(self, reasons: Iterable[Reason], loop: str, now_seconds: float) -> list[Reason]:
        """Take reasons in; those that are news come back."""
        news = []
        for reason in reasons:
            key = (reason.subject.kind, reason.subject.name)
            said = self._by_subject.setdefault(key, OrderedDict())
            self._by_subject.move_to_end(key)
            slot = (reason.code, reason.choice)
            old = said.get(slot)
            said[slot] = Said(reason, loop, now_seconds)
            said.move_to_end(slot)
            while len(said) > REASONS_PER_SUBJECT:
                said.popitem(last=False)
            if is_news(old.reason if old else None, reason):
                news.append(reason)
        while len(self._by_subject) > SUBJECTS_KEPT:
            self._by_subject.popitem(last=False)
        return news

    def about(self, kind: str, name: str) -> list[Said]:
        """What was said about a subject, oldest first."""
        return list(self._by_subject.get((kind, name), {}).values())

    def latest(self, kind: str, name: str, codes: frozenset[str] | None = None) -> Said | None:
        """The newest saying about a subject, of the codes given."""
        for said in reversed(self.about(kind, name)):
            if codes is None or said.reason.code in codes:
                return said
        return None

    def forget(self, kind: str, name: str) -> None:
        """The subject is gone."""
        self._by_subject.pop((kind, name), None)
