"""Waiting between attempts: decorrelated jitter, on the injected clock, back to the start after a calm time."""

from __future__ import annotations

import random

from runtime.clock import Clock

FIRST_SECONDS = 0.8
LONGEST_SECONDS = 30.0
CALM_SECONDS = 120.0


class Backoff:
    """When the next attempt may be made.

    Each wait is drawn between `first` and three times the last one, at most `longest`: attempts of many
    clients spread instead of meeting (the bounds are client-go's reflector's, research: ecosystem §2.4).
    """

    __slots__ = ("_clock", "_failed_at", "_first", "_last", "_longest", "_random", "_ready_at")

    def __init__(
        self,
        clock: Clock,
        rng: random.Random,
        *,
        first_seconds: float = FIRST_SECONDS,
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        self._clock = clock
        self._random = rng
        self._first = first_seconds
        self._longest = longest_seconds
        self._last = first_seconds
        self._ready_at = float("-inf")
        self._failed_at = float("-inf")

    @property
    def ready(self) -> bool:
        """True when an attempt may be made now."""
        return self._clock.monotonic() >= self._ready_at

    @property
    def wait_seconds(self) -> float:
        """Time until the next attempt may be made."""
        return max(0.0, self._ready_at - self._clock.monotonic())

    def failed(self, at_least_seconds: float = 0.0) -> float:
        """Note a failed attempt; returns how long to wait. `at_least_seconds` is the server's Retry-After."""
        now = self._clock.monotonic()
        if now - self._failed_at >= CALM_SECONDS:
            self._last = self._first
        self._failed_at = now
        wait = min(self._longest, self._random.uniform(self._first, self._last * 3.0))
        self._last = wait
        wait = max(wait, at_least_seconds)
        self._ready_at = now + wait
        return wait
