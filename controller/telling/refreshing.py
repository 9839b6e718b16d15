"""How many writes may go to numbers that merely moved: a share for all objects together, the longest untold first.

What is news is written at once, whatever the share. Without one a thousand nodes whose watts move would be a thousand
writes a minute for ever, in a cluster where nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from runtime.clock import Clock

K = TypeVar("K")


class Refreshes:
    """A bucket of so many writes a minute; `burst` of them may come together after a calm time."""

    def __init__(self, clock: Clock, *, per_minute: float, burst: int) -> None:
        """Full at first."""
        self._clock = clock
        self._rate = per_minute / 60.0
        self._burst = float(burst)
        self._left = float(burst)
        self._at = clock.monotonic()

    def of(self, due: Iterable[tuple[float, K]]) -> list[K]:
        """Which of those that are due may be written now; `due` is (when last written, what)."""
        waiting = sorted(due, key=lambda each: each[0])
        now = self._clock.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        chosen = [what for _, what in waiting[: int(self._left)]]
        self._left -= len(chosen)
        return chosen
