"""Time per output token of running engines, from what their agents count: live samples for the calibration."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from controller.hub.messages import InstanceSeen, NodeReport

LEAST_SECONDS = 5.0
"""Shortest window of a sample."""

MOST_SECONDS = 60.0
"""Longest window of a sample: of an agent that was silent nobody knows what ran in between."""

LEAST_STEPS = 50.0
"""Fewest tokens a running request must have got in a window."""

STEADY = 0.25
"""Most that the number of running requests may have changed between the ends of a window."""

FULL_SPEED = 0.98
"""Speed under the present cap below which an engine says nothing about its product."""

KEPT = 4_096
"""Samples kept until they are learned; the oldest go first."""


class LiveSample(NamedTuple):
    """One window of one replica: requests running, tokens in their contexts on average, seconds per output token."""

    replica: str
    batch: float
    context_tokens: float
    seconds: float


class _Mark(NamedTuple):
    at_seconds: float
    row: InstanceSeen


class LiveSteps:
    """Windows between agents' reports, as samples."""

    def __init__(self) -> None:
        """Start with nothing heard."""
        self._marks: dict[str, _Mark] = {}
        self._found: deque[LiveSample] = deque(maxlen=KEPT)

    def hear(self, report: NodeReport) -> None:
        """Take a report in; a window that was disturbed gives no sample and begins anew."""
        for row in report.instances or ():
            mark = self._marks.get(row.name)
            elapsed = report.observed_seconds - mark.at_seconds if mark is not None else 0.0
            if mark is None or not 0.0 <= elapsed <= MOST_SECONDS or not _steady(mark.row, row):
                self._marks[row.name] = _Mark(report.observed_seconds, row)
                continue
            if elapsed < LEAST_SECONDS:
                continue
            batch = (mark.row.running + row.running) / 2.0
            tokens = row.generated_tokens - mark.row.generated_tokens
            if tokens >= LEAST_STEPS * batch:
                used = (_used(mark.row) + _used(row)) / 2.0
                self._found.append(LiveSample(row.name, batch, used / batch, elapsed * batch / tokens))
            self._marks[row.name] = _Mark(report.observed_seconds, row)

    def drain(self) -> list[LiveSample]:
        """Samples since the last call, oldest first."""
        found = list(self._found)
        self._found.clear()
        return found

    def forget(self, known: set[str]) -> None:
        """Drop the marks of replicas that are no more."""
        for name in [name for name in self._marks if name not in known]:
            del self._marks[name]


def _steady(before: InstanceSeen, now: InstanceSeen) -> bool:
    """Whether a window between two rows shows an engine at work, at full speed, with about as many requests."""
    least = min(before.running, now.running)
    return (
        least >= 1
        and abs(now.running - before.running) <= STEADY * least
        and now.generated_tokens >= before.generated_tokens
        and min(before.capped_speed, now.capped_speed) >= FULL_SPEED
    )


def _used(row: InstanceSeen) -> int:
    return max(0, row.kv_capacity_tokens - row.kv_free_tokens)
