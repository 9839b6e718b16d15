"""How far the operator may go by its own choice: what is held, and how many running pods it may move an hour.

A *move* ends a running pod because the operator thinks something else better: another mix, fewer nodes, a new revision.
What ends because its load, its node, its user or itself is gone is no move (docs/designs/0015-restraint.md).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from cluster.base import Noun, Ref

HOUR_SECONDS = 3_600.0
"""The window that moves are counted in."""


class Hold(StrEnum):
    """Why nothing may be done about an object, in either direction; `NONE` when everything may."""

    NONE = ""
    RECOMMEND = "Recommend"
    PAUSED = "Paused"
    NOT_MANAGED = "NotManaged"


class PodBudget(Noun, kw_only=True, frozen=True):
    """A PodDisruptionBudget as its controller counted it: how many of its pods may be evicted now, how many are
    healthy, and how many must be.
    """

    ref: Ref
    allowed: int
    healthy: int = 0
    desired: int = 0

    @property
    def name(self) -> str:
        """`namespace/name` of the budget."""
        return self.ref.name


class Moves(Noun, kw_only=True, frozen=True):
    """A disruption budget and what was made use of: `made` of `allowed` in the last hour.

    `next_seconds` is when the oldest of them is an hour ago (UTC seconds; None while none was made).
    """

    allowed: int
    made: int = 0
    next_seconds: float | None = None

    @property
    def left(self) -> int:
        """How many more may be made now."""
        return max(0, self.allowed - self.made)

    def charged(self, now_seconds: float) -> Moves:
        """The same budget after one more move."""
        ends = now_seconds + HOUR_SECONDS if self.next_seconds is None else self.next_seconds
        return msgspec.structs.replace(self, made=self.made + 1, next_seconds=ends)


UNLIMITED = 1_000_000_000
"""Moves left where no budget is set."""


def left_of(*budgets: Moves | None) -> int:
    """How many moves all budgets together allow now; `UNLIMITED` where none is set."""
    return min((moves.left for moves in budgets if moves is not None), default=UNLIMITED)
