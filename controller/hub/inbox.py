"""What came in and was not yet folded into the model. Bounded: when it is full, a node's reports become one."""

from __future__ import annotations

from collections import deque
from enum import StrEnum

import msgspec

from controller.hub.messages import NodeReport


class SessionChange(StrEnum):
    """What became of a node's stream."""

    OPENED = "opened"
    REPLACED = "replaced"
    LEFT = "left"
    LOST = "lost"
    REFUSED = "refused"


class SessionEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a node's stream, for logs, metrics and the epoch.

    Its moment is real, not virtual: decisions go by a node's silence (the age of its report), never by this.
    `highest_epoch` is what the node says it has obeyed; a leader whose epoch is not above it must raise its own.
    """

    node: str
    change: SessionChange
    at_seconds: float
    boot_id: str = ""
    driver: str = ""
    version: str = ""
    highest_epoch: int = 0
    why: str = ""


class Inbox:
    """Reports in order of arrival, handed out in the order (tick, node, sequence)."""

    def __init__(self, most_reports: int = 8192, most_events: int = 8192) -> None:
        self._most = most_reports
        self._reports: list[NodeReport] = []
        self._place: dict[str, int] = {}
        self._events: deque[SessionEvent] = deque(maxlen=most_events)
        self.folded = 0
        """Reports that were folded into a later one because nobody drained."""

    def __len__(self) -> int:
        """Reports waiting."""
        return len(self._reports)

    def put(self, report: NodeReport) -> None:
        """Takes a report. At most `most_reports`, plus one for each further node, are kept; none is lost whole."""
        place = self._place.get(report.node)
        if place is not None and len(self._reports) >= self._most:
            self._reports[place] = self._reports[place].then(report)
            self.folded += 1
            return
        self._place[report.node] = len(self._reports)
        self._reports.append(report)

    def note(self, event: SessionEvent) -> None:
        """Takes a session's change; the oldest go first when nobody drains."""
        self._events.append(event)

    def drain(self) -> list[NodeReport]:
        """All reports since the last call, sorted by (tick, node, sequence): the order does not tell who was faster."""
        drained, self._reports = self._reports, []
        self._place.clear()
        drained.sort(key=lambda report: (report.tick, report.node, report.sequence))
        return drained

    def drain_sessions(self) -> list[SessionEvent]:
        """All changes of sessions since the last call, as they happened."""
        drained = list(self._events)
        self._events.clear()
        return drained
