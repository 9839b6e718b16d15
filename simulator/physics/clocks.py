"""Clock ladders, and settings that reach the hardware only after a while."""

from collections import deque
from typing import Generic, TypeVar

from simulator.physics.specs import GpuSpec

Value = TypeVar("Value")


def ladder_mhz(gpu: GpuSpec) -> tuple[int, ...]:
    """Clocks that ``gpu`` can be locked to, ascending from ``min_mhz`` in steps; ``max_mhz`` is always among them."""
    steps = tuple(range(gpu.min_mhz, gpu.max_mhz, gpu.step_mhz))
    return (*steps, gpu.max_mhz)


def snap_mhz(gpu: GpuSpec, mhz: float) -> int:
    """The highest clock of the ladder not above ``mhz``; the lowest where all are above."""
    if mhz >= gpu.max_mhz:
        return gpu.max_mhz
    steps = int((mhz - gpu.min_mhz) // gpu.step_mhz)
    return gpu.min_mhz + max(steps, 0) * gpu.step_mhz


class LaggedSetting(Generic[Value]):
    """A setting that takes effect ``lag_seconds`` after each command, in the order of the commands.

    A new command does not take a pending one back: a controller that repeats itself faster than the lag still
    sees its commands land (research/power.md §6.1, rule 8, tells what happens otherwise).
    """

    __slots__ = ("_pending", "lag_seconds", "value")

    def __init__(self, value: Value, lag_seconds: float = 0.0) -> None:
        if lag_seconds < 0.0:
            raise ValueError(f"lag_seconds is {lag_seconds}; a setting cannot land before it is made")
        self.value = value
        self.lag_seconds = lag_seconds
        self._pending: deque[tuple[float, Value]] = deque()

    def command(self, value: Value, at_seconds: float) -> None:
        """Ask for ``value`` at ``at_seconds``."""
        self._pending.append((at_seconds + self.lag_seconds, value))

    @property
    def target(self) -> Value:
        """What it will be once all commands have landed."""
        return self._pending[-1][1] if self._pending else self.value

    def next_event_seconds(self) -> float:
        """When the next command lands; infinity when none is pending."""
        return self._pending[0][0] if self._pending else float("inf")

    def advance_to(self, until_seconds: float) -> bool:
        """Let commands due by ``until_seconds`` land; True when the value in effect changed."""
        before = self.value
        while self._pending and self._pending[0][0] <= until_seconds:
            self.value = self._pending.popleft()[1]
        return self.value != before
