"""The gate: whether this process leads, asked immediately before every write and every command.

It closes by the monotonic clock, which goes on while a process is stopped: one that was paused beyond its deadline
wakes up behind a closed gate, whatever it was about to do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import ClassVar, TypeVar

from controller.store import permits
from controller.store.errors import StoreError
from controller.store.interface import Store
from controller.store.interposed import InterposedStore, Request
from runtime.clock import Clock

T = TypeVar("T")


class NotLeading(StoreError):
    """The call was not sent: this process does not lead (any more)."""

    code: ClassVar[int] = 403
    reason: ClassVar[str] = "NotLeading"


class Gate:
    """Open while this process leads. Once shut it stays shut: a later leadership has a gate of its own."""

    def __init__(self, clock: Clock) -> None:
        """Closed until the elector opens it."""
        self._clock = clock
        self._until = float("-inf")
        self._shut = False
        self.refused: Counter[str] = Counter()
        """Calls not sent, by what they were."""

    @property
    def open(self) -> bool:
        """Whether this process may act now."""
        if self._until == float("-inf") or self._shut:
            return False
        if self._clock.monotonic() >= self._until:
            self._shut = True
        return not self._shut

    @property
    def left_seconds(self) -> float:
        """How long it stays open without a further renewal; 0 when it is closed."""
        return max(0.0, self._until - self._clock.monotonic()) if self.open else 0.0

    def extend(self, until_monotonic_seconds: float) -> bool:
        """Keep it open until then. False when it was shut meanwhile, which nothing undoes."""
        if self._shut or (self._until != float("-inf") and not self.open):
            return False
        self._until = max(self._until, until_monotonic_seconds)
        return True

    def shut(self) -> None:
        """Close it for good."""
        self._shut = True

    def passes(self, what: str) -> bool:
        """Ask immediately before acting; a refusal is counted under `what`."""
        if self.open:
            return True
        self.refused[what] += 1
        return False


class GatedStore(InterposedStore):
    """A store whose mutating calls are sent only while the gate is open; reads always are."""

    def __init__(self, inner: Store, gate: Gate) -> None:
        """Put the gate before `inner`."""
        super().__init__(inner)
        self._gate = gate

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        """Send one request. Raises NotLeading instead of sending a write behind a closed gate.

        The gate is asked again at the wire, where a write may have waited for its turn or be tried once more.
        """
        if not request.mutating:
            return await answer()

        def permit() -> None:
            if not self._gate.passes(request.verb):
                raise NotLeading(f"{request} was not sent: this process does not lead any more")

        permit()
        with permits.permitted(permit):
            return await answer()
