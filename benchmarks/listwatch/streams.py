"""A watch as the server sees it: lines in chunks, and what may become of them."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence

from benchmarks.listwatch.collection import Change, Collection, Snapshot
from benchmarks.listwatch.faults import StreamFault
from benchmarks.listwatch.lists import status

MOST_AT_ONCE = 1_000
MOST_BUFFERED_BYTES = 1 << 20
"""A stream of more objects than the first is sent no faster than its client takes it."""


class Stream:
    """One open watch. `faults` are what becomes of it at its next events."""

    def __init__(
        self,
        transport: asyncio.Transport,
        collection: Collection,
        over: Callable[[Stream], None],
        happened: Counter[str],
        *,
        bookmarks: bool,
    ) -> None:
        self.transport = transport
        self.collection = collection
        self.faults: deque[StreamFault] = deque()
        self.silent = False
        self._over = over
        self._happened = happened
        self._bookmarks = bookmarks
        self._held: Change | None = None
        self._filling = False
        self._task: asyncio.Future[None] | None = None

    def begin(self) -> None:
        """Say that events follow."""
        self._write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )

    def send(self, change: Change) -> None:
        """One change, as arranged; while the stream fills, the log keeps it for later."""
        if self._filling:
            return
        if self._held is not None:
            held, self._held = self._held, None
            self._line(self._framed(change))
            self._line(self._framed(held))
            self._happened[f"stream {StreamFault.SWAP}"] += 1
            return
        fault = self.faults.popleft() if self.faults else None
        if fault is not None and fault is not StreamFault.SWAP:
            self._happened[f"stream {fault}"] += 1
        if fault is StreamFault.SWAP:
            self._held = change
        elif fault is StreamFault.CUT_EVENT:
            line = self._framed(change)
            # The chunk says its whole length, and half of it comes.
            self._write(b"%x\r\n%s" % (len(line), line[: len(line) // 2]))
            self._close()
        elif fault is StreamFault.DUPLICATE:
            self._line(self._framed(change))
            self._line(self._framed(change))
        else:
            self._line(self._framed(change))

    def catch_up(self, version: int) -> None:
        """Everything after a version, or that it is not known any more."""
        missed = self.collection.since(version)
        if missed is None:
            self.gone()
            self.end()
            return
        for change in missed:
            self.send(change)

    def fill(self, snapshot: Snapshot, *, cut: bool = False) -> None:
        """Everything there is, a bookmark that ends it, and what happened since; half of it when it is to be cut."""
        items = snapshot.items[: len(snapshot.items) // 2] if cut else snapshot.items
        self._filling = True
        if len(items) > MOST_AT_ONCE:
            self._task = asyncio.ensure_future(self._fill_slowly(items, snapshot.version))
            return
        for raw in items:
            self._line(self._added(raw))
        if cut:
            self._close()
        else:
            self._filled(snapshot.version)

    async def _fill_slowly(self, items: Sequence[bytes], version: int) -> None:
        """No faster than the client takes it."""
        for raw in items:
            self._line(self._added(raw))
            while self.transport.get_write_buffer_size() > MOST_BUFFERED_BYTES:  # noqa: ASYNC110 - tells nobody
                await asyncio.sleep(0.001)
        self._filled(version)

    def _filled(self, version: int) -> None:
        mark = (
            b'{"metadata":{"resourceVersion":"%d","annotations":{"k8s.io/initial-events-end":"true"}}}'
            % version
        )
        self._line(b'{"type":"BOOKMARK","object":%s}\n' % self.collection.typed(mark))
        self._filling = False
        self.catch_up(version)

    def _added(self, raw: bytes) -> bytes:
        return b'{"type":"ADDED","object":%s}\n' % self.collection.typed(raw)

    def bookmark(self) -> None:
        """Say how far the stream is."""
        if self._held is not None:  # what is held back may not be promised as seen
            held, self._held = self._held, None
            self._line(self._framed(held))
        if self._bookmarks and not self._filling:
            raw = (
                b'{"metadata":{"resourceVersion":"%d","creationTimestamp":null}}'
                % self.collection.world.version
            )
            self._line(b'{"type":"BOOKMARK","object":%s}\n' % self.collection.typed(raw))

    def gone(self) -> None:
        """Say that the version asked for is not kept any more."""
        why = f"too old resource version: compacted at {self.collection.compacted}"
        self._line(b'{"type":"ERROR","object":%s}\n' % status(410, why))

    def end(self) -> None:
        """End in order; the connection may be used again."""
        self._write(b"0\r\n\r\n")
        self._over(self)

    def do(self, fault: StreamFault) -> None:
        """Arrange a fault for the next event, or let it happen now."""
        if fault in {StreamFault.DROP, StreamFault.END, StreamFault.SILENCE}:
            self._happened[f"stream {fault}"] += 1
        if fault is StreamFault.DROP:
            self._close()
        elif fault is StreamFault.END:
            self.end()
        elif fault is StreamFault.SILENCE:
            self.silent = True
        else:
            self.faults.append(fault)

    def _framed(self, change: Change) -> bytes:
        return b'{"type":"%s","object":%s}\n' % (change.type.encode(), self.collection.typed(change.raw))

    def _line(self, line: bytes) -> None:
        self._happened["lines"] += not self.silent
        self._write(b"%x\r\n%s\r\n" % (len(line), line))

    def _write(self, data: bytes) -> None:
        if not self.silent and not self.transport.is_closing():
            self.transport.write(data)

    def _close(self) -> None:
        self.transport.close()
        self._over(self)
