"""Somebody else writes the fields that the operator owns: it is said who, and restored ever more rarely.

Two writers that each restore their own value at once would keep the API server busy for ever. So the operator takes a
field back once, then waits before the next time, twice as long at each new loss.
"""

from __future__ import annotations

import re

import msgspec

from controller.resources.base import Condition
from controller.store.errors import Conflict
from controller.telling.conditions import condition

SHORTEST_SECONDS = 10.0
LONGEST_SECONDS = 600.0
_WHO = re.compile(r'conflict with "([^"]+)"')

Key = tuple[str, str]
"""Kind, and namespace/name."""


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """One object's contested fields. `times` counts losses; until `wait_until_seconds` they are left alone."""

    who: str
    fields: tuple[str, ...]
    times: int
    wait_seconds: float
    wait_until_seconds: float


def is_contest(error: Conflict) -> bool:
    """True when fields are held by another manager, rather than an identity or a version being different."""
    return any(cause.reason == "FieldManagerConflict" for cause in error.causes)


class Contests:
    """Contests by object. One is over when nothing was lost for as long again after its pause."""

    def __init__(self) -> None:
        self._open: dict[Key, Contest] = {}

    def waiting(self, key: Key, now_seconds: float) -> bool:
        """True while the object is left to the other writer."""
        contest = self._open.get(key)
        return contest is not None and now_seconds < contest.wait_until_seconds

    def lost(self, key: Key, error: Conflict, now_seconds: float) -> Contest:
        """Another manager holds our fields once more."""
        before = self._open.get(key)
        wait = min(LONGEST_SECONDS, 2 * before.wait_seconds) if before else SHORTEST_SECONDS
        named = {name for cause in error.causes for name in _WHO.findall(cause.message)}
        contest = Contest(
            who=", ".join(sorted(named)) or "another manager",
            fields=tuple(sorted(cause.field.lstrip(".") for cause in error.causes)),
            times=(before.times if before else 0) + 1,
            wait_seconds=wait,
            wait_until_seconds=now_seconds + wait,
        )
        self._open[key] = contest
        return contest

    def keep(self, keys: set[Key], now_seconds: float) -> None:
        """Forget objects that are gone, and contests that did not flare up again after their pause for as long."""
        self._open = {
            key: contest
            for key, contest in self._open.items()
            if key in keys and now_seconds <= contest.wait_until_seconds + contest.wait_seconds
        }

    def condition(self, key: Key, generation: int) -> Condition | None:
        """What the object says of its contest, or None."""
        contest = self._open.get(key)
        if contest is None:
            return None
        shown = ", ".join(contest.fields[:4]) + (
            f" and {len(contest.fields) - 4} more" if contest.fields[4:] else ""
        )
        return condition(
            "Contested",
            True,
            "FieldContested",
            f"{contest.who} also writes {shown} ({contest.times} times so far); the operator restores its own values,"
            f" next after {contest.wait_seconds:.0f} s. Stop {contest.who} from writing the status of this object.",
            generation,
        )
