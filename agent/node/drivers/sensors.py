"""Whether a power reading can be believed (research: power §4, §7).

Boards observe a quarter of the time and their averaged field lags by a second, so the mean over a tick comes from
the energy counter where there is one. A sensor that repeats both values is stuck, and says nothing.
"""

from __future__ import annotations

FROZEN_SAMPLES = 3
"""So many equal samples of watts and energy, at different times, are no readings."""
LEAST_SECONDS = 0.2
"""Over less than this the energy counter's own steps (some 100 ms) would show."""
MOST_FACTOR = 2.0
"""Readings above this multiple of the board's highest limit are errors of the sensor."""


class PowerSensor:
    """One board's power. `read` takes what the board said and returns what can be believed of it."""

    __slots__ = ("_at_seconds", "_energy", "_equal", "_most_watts", "_watts")

    def __init__(self, max_watts: int) -> None:
        self._most_watts = MOST_FACTOR * max_watts
        self._at_seconds = float("-inf")
        self._watts: float | None = None
        self._energy: int | None = None
        self._equal = 1

    def read(self, now_seconds: float, watts: float | None, energy_millijoules: int | None) -> float | None:
        """Mean watts since the last sample where the energy counter gives it, else the board's reading.

        None for an impossible reading, and for a stuck sensor: the third sample in a row with equal watts and energy.
        """
        elapsed = now_seconds - self._at_seconds
        before = self._energy
        if elapsed > 0.0:
            same = watts == self._watts and energy_millijoules is not None and energy_millijoules == before
            self._equal = self._equal + 1 if same else 1
            self._at_seconds, self._watts, self._energy = now_seconds, watts, energy_millijoules
        if self._equal >= FROZEN_SAMPLES:
            return None
        if energy_millijoules is not None and before is not None and elapsed >= LEAST_SECONDS:
            mean = (energy_millijoules - before) / 1000.0 / elapsed
            if 0.0 < mean <= self._most_watts:
                return mean
        return watts if watts is not None and 0.0 <= watts <= self._most_watts else None
