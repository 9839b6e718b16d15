"""What a simulated GPU's sensors show: energy that only grows, and means since the last reading."""

import msgspec


class GpuReading(msgspec.Struct, frozen=True, gc=False):
    """Readings of one GPU, means over the time since the reading before.

    ``uncapped_watts`` is what the same phases would have drawn without limit and lock; ``energy_joules`` counts
    from the node's start.
    """

    watts: float
    uncapped_watts: float
    clock: float
    utilisation: float
    energy_joules: float


class GpuMeter:
    """Integrals of one GPU; private to `NodePhysics`."""

    __slots__ = ("_busy", "_clock", "_joules", "_last", "_seconds", "_uncapped", "energy_joules")

    def __init__(self, idle_watts: float) -> None:
        self.energy_joules = 0.0
        self._last = GpuReading(idle_watts, idle_watts, 1.0, 0.0, 0.0)
        self._seconds = self._joules = self._uncapped = self._busy = self._clock = 0.0

    def add(self, seconds: float, watts: float, uncapped_watts: float, clock: float, busy: float) -> None:
        """Book an interval of mean ``watts`` at a mean ``clock`` (fraction), a fraction ``busy`` of it at work."""
        self._seconds += seconds
        self._joules += seconds * watts
        self._uncapped += seconds * uncapped_watts
        self._clock += seconds * clock
        self._busy += seconds * busy

    def read(self) -> GpuReading:
        """Means since the last reading; the last reading again when no time has passed."""
        seconds = self._seconds
        if seconds > 0.0:
            self.energy_joules += self._joules
            self._last = GpuReading(
                self._joules / seconds,
                self._uncapped / seconds,
                self._clock / seconds,
                self._busy / seconds,
                self.energy_joules,
            )
            self._seconds = self._joules = self._uncapped = self._busy = self._clock = 0.0
        return self._last
