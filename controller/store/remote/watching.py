"""A watch on the store of another process: a task fills a bounded queue, its reader pumps it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import grpc
import grpc.aio

from controller.store.errors import StoreError, Unavailable
from controller.store.interface import WatchEvent
from controller.store.remote.messages import error_of, events_of, refusal, unanswered
from runtime.channels import EOF, MIB

MOST_EVENTS = 10_000
MOST_BYTES = 16 * MIB
"""A reader that lets so much pile up is not read for any further: the server's own queue fills, and at its limit the
server ends the stream, as it would with a reader in its own process."""


class RemoteWatch:
    """Events of one stream, in order. Belongs to the event loop it was made in."""

    def __init__(self, call: Any, endpoint: str, doing: str) -> None:
        self._call = call
        self._endpoint = endpoint
        self._doing = doing
        self._queue: deque[WatchEvent] = deque()
        self._bytes = 0
        self._open = True
        self._error: StoreError | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._reading: asyncio.Task[None] | None = None

    async def opened(self, deadline_seconds: float) -> None:
        """Wait until the server says that the watch stands. Raises what it answers instead, or `Unavailable`."""
        try:
            async with asyncio.timeout(deadline_seconds):
                first = await self._call.read()
                if first is EOF:
                    raise await self._end()
        except (TimeoutError, grpc.RpcError, asyncio.InvalidStateError) as error:
            self._call.cancel()
            raise unanswered(error, self._endpoint, self._doing) from error
        if first.HasField("fault"):
            self._call.cancel()
            raise error_of(first.fault)
        self._take_in(first)
        self._reading = asyncio.create_task(self._read())

    @property
    def ended(self) -> bool:
        """True once the stream is over and drained."""
        return not self._open and not self._queue and self._error is None

    def drain(self) -> Sequence[WatchEvent]:
        """Everything that has arrived; raises the stream's error when that is next."""
        if self._queue:
            events = list(self._queue)
            self._queue.clear()
            self._bytes = 0
            self._room.set()
            return events
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        if self._open:
            self._news.clear()
        return []

    async def wait(self) -> None:
        """Return when `drain` has something to say."""
        while self._open and not self._queue:
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        """Give the stream up."""
        self._queue.clear()
        self._error = None
        self._stop()
        if self._reading is not None:
            self._reading.cancel()
        self._call.cancel()

    def _stop(self) -> None:
        self._open = False
        self._news.set()

    async def _read(self) -> None:
        error: StoreError | None = Unavailable(f"{self._doing}: the connection to the operator was closed")
        try:
            while self._open:
                await self._room.wait()
                message = await self._call.read()
                if message is EOF:
                    error = None if await self._call.code() is grpc.StatusCode.OK else await self._end()
                    return
                self._take_in(message)
        except (grpc.RpcError, asyncio.InvalidStateError) as broken:
            error = unanswered(broken, self._endpoint, self._doing)
        finally:
            self._fail(error)

    def _take_in(self, message: Any) -> None:
        if message.HasField("fault"):
            self._fail(error_of(message.fault))
            return
        events = events_of(message)
        self._queue.extend(events)
        self._bytes += sum(len(event.raw) for event in events)
        if len(self._queue) >= MOST_EVENTS or self._bytes >= MOST_BYTES:
            self._room.clear()
        if events:
            self._news.set()

    def _fail(self, error: StoreError | None) -> None:
        """The stream is over: for an ordinary reason (None) or with an error, told after what is queued."""
        if self._open:
            self._error = error
            self._stop()

    async def _end(self) -> StoreError:
        """What a status at the end of the stream means."""
        details = await self._call.details()
        return refusal(await self._call.code(), details or "the stream ended", self._endpoint, self._doing)
