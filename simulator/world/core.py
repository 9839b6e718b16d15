"""Events and the loop that runs them: (second, order) decides, a handler makes new events of each, a budget ends it.

A handler is a function of one small file. It changes the world it is given and returns the events that follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Any, Protocol

from simulator.world.spec import ScenarioError


class Handler(Protocol):
    """What happens at one kind of event."""

    def __call__(self, at_seconds: float, subject: Any, world: Any, /) -> Iterable[Event]:
        """Let it happen to ``subject`` and return what follows, nothing of it in the past."""
        ...


Event = tuple[float, Handler, Any]
"""When, what, and to whom."""


class Kernel:
    """The queue of events. Events of one second run in the order in which they were pushed."""

    __slots__ = ("_heap", "_pushed", "budget", "handled", "now")

    def __init__(self, budget: int) -> None:
        """`budget` events at most are handled, whatever happens. ScenarioError unless it is positive."""
        if budget < 1:
            raise ScenarioError("event_budget", f"is {budget}; at least one event must be allowed")
        self._heap: list[tuple[float, int, Handler, Any]] = []
        self._pushed = 0
        self.budget, self.handled, self.now = budget, 0, 0.0

    def push(self, event: Event) -> None:
        """Queue an event; one that lies in the past happens now."""
        at, handler, subject = event
        now = self.now
        self._pushed += 1
        heappush(self._heap, (max(now, at), self._pushed, handler, subject))

    def run(self, world: Any) -> bool:
        """Handle events until there are none, or `world.done` says so. False when the budget ran out before."""
        heap = self._heap
        while heap and not world.done:
            if self.handled >= self.budget:
                return False
            at, _, handler, subject = heappop(heap)
            self.now = at
            self.handled += 1
            for then, what, whom in handler(at, subject, world):
                self._pushed += 1
                heappush(heap, (max(at, then), self._pushed, what, whom))
        return True
