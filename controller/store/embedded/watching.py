"""A watch on the embedded store: a bounded queue that its reader pumps."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from controller.store.embedded.selectors import Match
from controller.store.embedded.tables import Change, Table, as_event, bookmark
from controller.store.interface import StoreError, WatchEvent
from runtime.clock import Clock

BOOKMARK_SECONDS = 60.0
"""How often an idle watch is told the current version; the API server's own interval."""


class EmbeddedWatch:
    """Events of one table for one reader.

    A reader that lets more than `capacity` events pile up loses the stream, as with the API server: what
    is queued can still be drained, then the watch has ended and must be resumed. `limit_seconds` ends it
    by age, as the server's timeoutSeconds does.
    """

    __slots__ = (
        "_born", "_capacity", "_clock", "_error", "_limit", "_match", "_namespace", "_open", "_queue",
        "_table", "_told", "_version", "_waiter",
    )  # fmt: skip

    def __init__(
        self,
        table: Table,
        clock: Clock,
        version: Callable[[], int],
        *,
        namespace: str,
        match: Match | None,
        capacity: int,
        limit_seconds: float,
    ) -> None:
        self._table = table
        self._clock = clock
        self._version = version
        self._namespace = namespace
        self._match = match
        self._capacity = capacity
        self._limit = limit_seconds
        self._queue: deque[WatchEvent] = deque()
        self._open = True
        self._error: StoreError | None = None
        self._born = self._told = clock.monotonic()
        self._waiter: asyncio.Future[None] | None = None
        table.listeners.append(self._hear)

    @property
    def ended(self) -> bool:
        """True once the stream is over and drained."""
        return not self._open and not self._queue and self._error is None

    def feed(self, event: WatchEvent) -> None:
        """Queue an event from before the watch began (the state it starts with, or what it missed)."""
        self._queue.append(event)

    def fail(self, error: StoreError) -> None:
        """End the stream with an error, after what is queued."""
        if self._open:
            self._error = error
            self._stop()

    def drain(self) -> Sequence[WatchEvent]:
        """Everything queued, and a bookmark when one is due; raises the stream's error when that is next."""
        if self._queue:
            events = list(self._queue)
            self._queue.clear()
        else:
            events = []
        if not events and self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._open:
            self._mark(events)
        return events

    def _mark(self, events: list[WatchEvent]) -> None:
        now = self._clock.monotonic()
        if now - self._told >= BOOKMARK_SECONDS:
            self._told = now
            events.append(bookmark(self._table.resource, self._version()))
        if self._limit and now - self._born >= self._limit:
            self._stop()

    async def wait(self) -> None:
        """Return when `drain` has something to say."""
        while self._open and not self._queue:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def close(self) -> None:
        """Give the stream up."""
        self._queue.clear()
        self._error = None
        self._stop()

    def _stop(self) -> None:
        if self._open:
            self._open = False
            self._table.listeners.remove(self._hear)
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None

    def _hear(self, change: Change) -> None:
        event = as_event(change, self._namespace, self._match)
        if event is None:
            return
        if len(self._queue) >= self._capacity:
            self._stop()
            return
        self._queue.append(event)
        self._wake()
