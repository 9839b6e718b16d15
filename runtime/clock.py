"""Time, injected. Nothing that decides, leases or samples reads a clock of its own.

Two readings: `now` for points in time that are written down and compared between machines, `monotonic` for
durations on this machine. Transport (TLS validity, RPC deadlines) lives on wall time always, also while the rest
of a process lives on a `VirtualClock`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """What a component asks for the time."""

    def now(self) -> float:
        """UTC seconds since 1970. Never steps back."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment. Never steps back, unaffected by changes of the machine's date."""
        ...


def seconds_since_boot() -> float:
    """Monotonic seconds that go on while the machine is suspended, where the kernel has such a clock (Linux).

    For whoever must not act on what it knew before a suspension: leadership, and what hangs on it.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


class WallClock:
    """Wall time at start plus monotonic time since: a corrected system date never moves it (SEAMS §5)."""

    __slots__ = ("_monotonic", "_offset")

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        """UTC seconds."""
        return self._offset + self._monotonic()

    def monotonic(self) -> float:
        """The machine's monotonic seconds."""
        return self._monotonic()


class ClockError(Exception):
    """A virtual clock was asked to go back."""


class VirtualClock:
    """A clock that stands still until it is moved. One is shared by all that run in accelerated time."""

    __slots__ = ("_now", "_origin")

    def __init__(self, origin_seconds: float) -> None:
        self._origin = float(origin_seconds)
        self._now = self._origin

    def now(self) -> float:
        """UTC seconds: the origin, or where it was last moved to."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since the origin."""
        return self._now - self._origin

    def advance_to(self, seconds: float) -> None:
        """Moves to a later moment (UTC seconds), or stays. Raises: ClockError when it lies in the past."""
        if not seconds >= self._now:
            raise ClockError(
                f"The virtual clock stands at {self._now:.6f} s and cannot go back to {seconds:.6f} s."
            )
        self._now = float(seconds)
