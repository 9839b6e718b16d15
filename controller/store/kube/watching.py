"""A watch on the API server: a task reads the stream into a bounded queue, its reader pumps it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import aiohttp
import msgspec

from controller.store.errors import StoreError, Unavailable
from controller.store.interface import EventType, WatchEvent
from controller.store.kube.answers import refusal, status_of, unanswered
from controller.store.kube.splitting import Lines, line_of
from controller.store.kube.transport import NO_ANSWER

MOST_EVENTS = 10_000
MOST_BYTES = 32 * 1024 * 1024
"""A reader that lets so much pile up loses the stream, and resumes from the last version it saw."""

LONGEST_LINE = 16 * 1024 * 1024
"""No object is bigger than a tenth of this; a line that goes on for longer is no watch."""

_TYPES = {kind.value: kind for kind in EventType}


class KubeWatch:
    """Events of one stream, in order. Belongs to the event loop it was made in."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        endpoint: str,
        doing: str,
        *,
        over: Callable[[KubeWatch], None] | None = None,
        heard: Callable[[int], None] | None = None,
        most_events: int = MOST_EVENTS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._response = response
        self._endpoint = endpoint
        self._doing = doing
        self._over = over
        self._heard = heard
        self._limits = (most_events, most_bytes)
        self._queue: deque[WatchEvent] = deque()
        self._bytes = 0
        self._open = True
        self._error: StoreError | None = None
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name=doing)

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
            return events
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return []

    async def wait(self) -> None:
        """Return when `drain` has something to say."""
        while self._open and not self._queue:
            self._news.clear()
            await self._news.wait()

    def close(self) -> None:
        """Give the stream up; harmless twice."""
        self._queue.clear()
        self._error = None
        self._stop()
        self._reading.cancel()
        self._response.close()

    async def closed(self) -> None:
        """Give the stream up and wait until nothing of it is left."""
        self.close()
        await asyncio.gather(self._reading, return_exceptions=True)

    # -------------------------------------------------------------------------------------------- reading

    async def _read(self) -> None:
        lines = Lines()
        error: StoreError | None = None
        try:
            while self._open:
                chunk = await self._response.content.readany()
                if not chunk:
                    return
                if self._heard is not None:
                    self._heard(len(chunk))
                self._take_in(lines.feed(chunk))
                if lines.pending_bytes > LONGEST_LINE:
                    raise ValueError(f"a line of more than {LONGEST_LINE} bytes")
        except NO_ANSWER as broken:
            error = unanswered(broken, self._endpoint, self._doing)
        except (ValueError, msgspec.MsgspecError) as broken:
            error = Unavailable(f"{self._doing}: what {self._endpoint} sends is no watch: {broken}")
        finally:
            self._fail(error)
            self._response.close()

    def _take_in(self, lines: Sequence[bytes]) -> None:
        most_events, most_bytes = self._limits
        for line in lines:
            told = line_of(line)
            kind = _TYPES.get(told.type)
            if kind is None:
                if told.type == "ERROR":
                    self._fail(self._refused(told.raw))
                    return
                continue
            if len(self._queue) >= most_events or self._bytes >= most_bytes:
                self._stop()  # the reader is too slow: it resumes from what it has seen
                return
            self._queue.append(WatchEvent(kind, told.version, told.raw))
            self._bytes += len(told.raw)
        if self._queue:
            self._news.set()

    def _refused(self, raw: bytes) -> StoreError:
        """An ERROR event: 410 is `Gone`; of anything else the stream is to be taken up again."""
        error = refusal(status_of(raw, 0), self._doing)
        return error if error.code in {410, 429, 503} else Unavailable(f"{self._doing}: {error.message}")

    def _fail(self, error: StoreError | None) -> None:
        """The stream is over: for an ordinary reason (None) or with an error, told after what is queued."""
        if self._open:
            self._error = error
            self._stop()

    def _stop(self) -> None:
        if self._open:
            self._open = False
            if self._over is not None:
                self._over(self)
        self._news.set()
