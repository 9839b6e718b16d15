"""The book of refusals: what the API server said no to, by object, and when it may be asked again.

Every write of the operator passes `ConsultingStore` (controller.actor.consulting). A write that was refused is held back, by object and kind of
write, ever longer; all others go on. What is held back is not sent: the caller gets `HeldBack` with the server's own
sentence. One success ends a refusal, and so does a change of the object; what may have made room (a quota, the
namespace's labels) brings the next try forward.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol

import msgspec

from cluster.refused import Refused
from cluster.seeds import stable_hash
from controller.actor.answers import CONTESTED, TERMINATING, UNANSWERED, pace_of, reason_word
from controller.resources.core import POD
from controller.store.errors import Forbidden, HeldBack, StoreError, Unavailable
from runtime.clock import Clock

log = logging.getLogger("plimsoll.refusals")

Key = tuple[str, str]
"""Kind, and namespace/name."""

PODS = f"create {POD.kind}"
"""The write that planning must know of."""

MOST = 20_000
"""Refusals remembered; beyond that the oldest are forgotten, and their writes are tried at once."""

CLOSED_SECONDS = 30.0
"""How long nothing is created in a namespace that was found to be going."""

HURRY_SECONDS = 5.0
"""How soon the next try comes when something changed that may have made room."""
HURRIES_APART_SECONDS = 60.0
"""How often at most a try is brought forward: a quota under churn changes all the time."""

BY_ADMISSION = frozenset({"QuotaExceeded", "LimitRange", "PodSecurity"})
"""Refusals that a change of a quota, of a limit range or of a namespace's labels may end."""

CALM_SECONDS = 120.0
"""A refusal whose next try was due so long ago, without one, is over: nobody wants that write any more."""

_NAMED = re.compile(r'"[^"]*"')

JITTER = 0.1
"""Waits differ by this share, so that objects refused together do not come back together."""


class Slot(NamedTuple):
    """Whose write, and which: an object, and verb and kind of what is written (`create Pod`, `apply Pod/status`)."""

    kind: str
    key: str
    what: str

    @property
    def of(self) -> Key:
        """The object."""
        return self.kind, self.key

    @property
    def namespace(self) -> str:
        """The object's namespace, or empty."""
        return self.key.rpartition("/")[0]


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """What the book holds of one slot. `version` is the object's when it was refused, `about` whom to tell."""

    slot: Slot
    about: Key
    version: str
    refused: Refused
    reason: str
    hurried_seconds: float = float("-inf")


class Owners(Protocol):
    """Who knows the objects: the model of the world."""

    def owner_of(self, kind: str, key: str) -> Key:
        """The object of the user's that an object belongs to; itself where there is none."""
        ...

    def version_of(self, kind: str, key: str) -> str:
        """A text that changes when the user changes the object; empty when it is not known."""
        ...


class Refusals:
    """Who was refused what. Times are the clock's UTC seconds; counters count since the start."""

    def __init__(self, clock: Clock, owners: Owners) -> None:
        """An empty book."""
        self.refused: Counter[tuple[str, int]] = Counter()
        """Refusals by (kind written, HTTP status)."""
        self.held_back: Counter[str] = Counter()
        """Writes not sent, by kind written."""
        self._clock = clock
        self._owners = owners
        self._entries: dict[Slot, Entry] = {}
        self._closed: dict[str, float] = {}
        self._news: dict[Key, None] = {}

    # ---------------------------------------------------------------------------------------------- consulting

    def check(self, slot: Slot, *, creates_in: str = "") -> None:
        """Raises HeldBack, with the server's last sentence, while the write must wait.

        `creates_in` is the namespace in which it would create something.
        """
        now = self._clock.now()
        if (until := self._closed.get(creates_in, now)) > now:
            self.held_back[_kind_of(slot)] += 1
            raise HeldBack(
                f"namespace {creates_in} is being deleted: nothing is created in it any more", until - now
            )
        entry = self._standing(slot)
        if entry is not None and entry.refused.waits(now):
            self.held_back[_kind_of(slot)] += 1
            raise HeldBack(entry.refused.sentence, entry.refused.until_seconds - now)

    def _standing(self, slot: Slot) -> Entry | None:
        """The slot's entry, unless its object was changed since."""
        entry = self._entries.get(slot)
        if entry is not None and entry.version != self._owners.version_of(*slot.of):
            self._drop(slot)
            return None
        return entry

    def hold(self, slot: Slot, seconds: float) -> None:
        """An answer is late: nothing more is created for the object until it is there, or so long."""
        now = self._clock.now()
        before = self._entries.get(slot)
        if before is not None and before.refused.waits(now + seconds):
            return
        refused = Refused(
            sentence=before.refused.sentence if before else "the API server has not answered yet",
            code=before.refused.code if before else Unavailable.code,
            attempts=before.refused.attempts if before else 0,
            since_seconds=before.refused.since_seconds if before else now,
            wait_seconds=seconds,
            until_seconds=now + seconds,
        )
        self._entries[slot] = Entry(
            slot=slot, about=slot.of, version=self._owners.version_of(*slot.of), refused=refused,
            reason=before.reason if before else "NoAnswer",
            hurried_seconds=before.hurried_seconds if before else float("-inf"),
        )  # fmt: skip
        self._news[slot.of] = None

    # ----------------------------------------------------------------------------------------------- recording

    def failed(
        self, slot: Slot, error: StoreError, *, creates_in: str = "", took_seconds: float = 0.0
    ) -> None:
        """The write was answered with an error, so long after it was sent; one that is no refusal is not noted."""
        pace = pace_of(error, took_seconds)
        if pace is None:
            return
        now = self._clock.now()
        self.refused[_kind_of(slot), error.code] += 1
        if creates_in and isinstance(error, Forbidden) and TERMINATING in error.message:
            self._closed[creates_in] = now + CLOSED_SECONDS
        before = self._entries.pop(slot, None)
        attempts = before.refused.attempts + 1 if before else 1
        wait = max(error.retry_after_seconds, pace.wait_seconds(attempts) * _jitter(slot, attempts))
        same = before is not None and _plain(before.refused.sentence) == _plain(error.message)
        refused = Refused(
            # The same refusal of another pod is told in the same words: it is no news.
            sentence=before.refused.sentence if before is not None and same else error.message,
            code=error.code,
            attempts=attempts,
            since_seconds=before.refused.since_seconds if before else now,
            wait_seconds=wait,
            until_seconds=now + wait,
        )
        self._entries[slot] = Entry(
            slot=slot,
            about=self._owners.owner_of(*slot.of),
            version=self._owners.version_of(*slot.of),
            refused=refused,
            reason=reason_word(error),
            hurried_seconds=before.hurried_seconds if before else float("-inf"),
        )
        self._news[slot.of] = None
        while len(self._entries) > MOST:
            self._drop(next(iter(self._entries)))
        if not same and pace not in (UNANSWERED, CONTESTED):  # those are told by who writes
            log.warning("%s of %s %s refused: %s; again in %.0f s", slot.what, *slot.of, error.message, wait)

    def succeeded(self, slot: Slot) -> None:
        """The write was done: whatever stood against it is over."""
        if slot in self._entries:
            self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        del self._entries[slot]
        self._news[slot.of] = None

    def loosened(self, namespace: str) -> None:
        """Something changed that may let what was refused in a namespace pass: it is tried soon, not at once."""
        now = self._clock.now()
        for slot, entry in list(self._entries.items()):
            soon = entry.refused.until_seconds - now > HURRY_SECONDS
            if slot.namespace == namespace and soon and now - entry.hurried_seconds >= HURRIES_APART_SECONDS:
                refused = msgspec.structs.replace(entry.refused, until_seconds=now + HURRY_SECONDS)
                self._entries[slot] = msgspec.structs.replace(entry, refused=refused, hurried_seconds=now)
                self._news[slot.of] = None

    # ------------------------------------------------------------------------------------------------- reading

    def tidy(self) -> None:
        """Forget what nobody tries any more, and what was said of objects that were changed since."""
        now = self._clock.now()
        self._closed = {name: until for name, until in self._closed.items() if until > now}
        for slot in list(self._entries):
            entry = self._standing(slot)
            if entry is not None and now > entry.refused.until_seconds + CALM_SECONDS:
                self._drop(slot)

    def tell(self, refuse: Callable[[str, str, Refused | None], None]) -> None:
        """Tell whose pods are refused, or are no longer, since the last call; forget what nobody tries any more."""
        self.tidy()
        news, self._news = self._news, {}
        for of in news:
            entry = self._entries.get(Slot(*of, PODS))
            refuse(*of, entry.refused if entry is not None else None)

    def entries(self) -> list[Entry]:
        """Everything that stands, oldest first: those that failed once and are tried again at once do not."""
        return [entry for entry in self._entries.values() if entry.refused.wait_seconds > 0.0]

    def bounded(self) -> set[str]:
        """Namespaces in which admission refuses something at present."""
        return {entry.slot.namespace for entry in self._entries.values() if entry.reason in BY_ADMISSION}

    def about(self) -> dict[Key, list[Entry]]:
        """What stands, by whom to tell."""
        found: dict[Key, list[Entry]] = {}
        for entry in self.entries():
            found.setdefault(entry.about, []).append(entry)
        return found


def pods_of(kind: str, key: str) -> Slot:
    """The slot of an object's pods."""
    return Slot(kind, key, PODS)


def sentences(entries: Collection[Entry]) -> str:
    """What the server said to one object, with how often it was asked and when it is asked again."""
    newest = sorted(entries, key=lambda e: (-e.refused.attempts, e.slot))
    shown = [f"{e.slot.what}: {e.refused.sentence} ({_tries(e.refused)})" for e in newest[:2]]
    rest = f" And {len(newest) - 2} more." if newest[2:] else ""
    return " ".join(shown) + rest


def _tries(refused: Refused) -> str:
    plural = "y" if refused.attempts == 1 else "ies"
    return f"{refused.attempts} tr{plural}; the next comes {refused.wait_seconds:.0f} s after the last"


def _plain(sentence: str) -> str:
    """A sentence without the names in it."""
    return _NAMED.sub('""', sentence)


def _kind_of(slot: Slot) -> str:
    return slot.what.partition(" ")[2]


def _jitter(slot: Slot, attempts: int) -> float:
    return 1.0 - JITTER + 2.0 * JITTER * (stable_hash(*slot, attempts) % 1_000) / 1_000.0
