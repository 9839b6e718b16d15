"""What one client may ask of the API server: a token bucket, so that a defect of ours never floods it."""

from __future__ import annotations

from runtime.clock import Clock

PER_SECOND = 300.0
BURST = 500
"""Kueue's defaults (research: ecosystem §2.4); the server's own priority and fairness is the second line."""


class Budget:
    """Requests that may be sent now, refilled by the clock. First come, first served."""

    __slots__ = ("_at", "_burst", "_clock", "_left", "_rate")

    def __init__(self, clock: Clock, *, per_second: float = PER_SECOND, burst: int = BURST) -> None:
        self._clock = clock
        self._rate = per_second
        self._burst = float(burst)
        self._left = float(burst)
        self._at = clock.monotonic()

    def take(self) -> float:
        """Take one request; how many seconds to wait before sending it (0.0: at once)."""
        now = self._clock.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        self._left -= 1.0
        return max(0.0, -self._left / self._rate)

    def give_back(self) -> None:
        """What was taken was never sent."""
        self._left = min(self._burst, self._left + 1.0)
