"""The bounded queue between the operator and the ledger's database.

First in, first out. When it is full the oldest entries are given up, counted, and remembered as a gap, so that the
newest decisions (the ones people ask about) survive and the history says where it has a hole. Entries with a key
(policy states, leaderships) replace their predecessor and are never given up: there are only as many as policies.
"""

from __future__ import annotations

import threading
from collections import Counter, deque

from controller.ledger.entries import Entry
from controller.ledger.rows import GapRow


class Buffer:
    """Entries waiting to be written, at most `max_rows` rows and `max_bytes` bytes of them. Thread-safe."""

    def __init__(self, max_rows: int = 100_000, max_bytes: int = 64 * 1024 * 1024) -> None:
        self.max_rows = max_rows
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._queue: deque[Entry] = deque()
        self._keyed: dict[tuple[str, ...], Entry] = {}
        self._taken: list[Entry] = []
        self._rows = 0
        self._bytes = 0
        self._lost: Counter[str] = Counter()
        self._gap: GapRow | None = None

    def put(self, entry: Entry) -> None:
        """Queue an entry; never blocks. Gives up the oldest, or this one when it can never fit."""
        if not entry.writes:
            return
        with self._lock:
            if entry.key:
                self._keyed.pop(entry.key, None)
                self._keyed[entry.key] = entry
                return
            if entry.rows > self.max_rows or entry.size_bytes > self.max_bytes:
                self._give_up(entry, "too_large")
                return
            self._queue.append(entry)
            self._rows += entry.rows
            self._bytes += entry.size_bytes
            while self._rows > self.max_rows or self._bytes > self.max_bytes:
                if not self._make_room():
                    break

    def take(self, max_rows: int) -> list[Entry]:
        """The oldest entries of about `max_rows` rows (at least one), until `done` or `put_back`."""
        with self._lock:
            batch, rows = list(self._keyed.values()), len(self._keyed)
            self._keyed.clear()
            while self._queue and (not batch or rows < max_rows):
                entry = self._queue.popleft()
                batch.append(entry)
                rows += entry.rows
            self._taken = batch
            return list(batch)

    def done(self) -> None:
        """The entries taken are written."""
        with self._lock:
            for entry in self._taken:
                self._forget(entry)
            self._taken = []

    def put_back(self) -> None:
        """The entries taken could not be written: they are first again, in their order."""
        with self._lock:
            for entry in reversed(self._taken):
                if entry.key:
                    self._keyed.setdefault(entry.key, entry)
                else:
                    self._queue.appendleft(entry)
            self._taken = []

    def refuse(self, entry: Entry) -> None:
        """Count one of the entries taken as given up for what it contains."""
        with self._lock:
            self._taken = [other for other in self._taken if other is not entry]
            self._forget(entry)
            self._give_up(entry, "refused")

    def reject(self, rows: int) -> None:
        """Count rows that could not even be made into an entry."""
        with self._lock:
            self._lost["refused"] += rows

    def abandon(self) -> int:
        """Give up everything that is left (at the end of the process); the number of rows."""
        with self._lock:
            left = [*self._keyed.values(), *self._taken, *self._queue]
            for entry in left:
                self._give_up(entry, "closed")
            self._keyed.clear()
            self._queue.clear()
            self._taken = []
            self._rows = self._bytes = 0
            return sum(entry.rows for entry in left)

    def take_gap(self) -> GapRow | None:
        """The hole since the last call, to be written into the history; None when nothing was lost."""
        with self._lock:
            gap, self._gap = self._gap, None
            return gap

    def return_gap(self, gap: GapRow) -> None:
        """The hole could not be written either: keep it, joined with what was lost meanwhile."""
        with self._lock:
            self._gap = gap if self._gap is None else _join(gap, self._gap)

    @property
    def rows(self) -> int:
        """Rows waiting, those being written included."""
        with self._lock:
            return self._rows + len(self._keyed) + sum(1 for entry in self._taken if entry.key)

    @property
    def size_bytes(self) -> int:
        """Bytes waiting, roughly, keyed entries not counted."""
        with self._lock:
            return self._bytes

    @property
    def lost(self) -> dict[str, int]:
        """Rows given up so far, by cause: `overflow`, `too_large`, `refused`, `closed`."""
        with self._lock:
            return dict(self._lost)

    def _make_room(self) -> bool:
        # What is being written at this moment stays: its fate is open.
        if not self._queue:
            return False
        entry = self._queue.popleft()
        self._forget(entry)
        self._give_up(entry, "overflow")
        return True

    def _forget(self, entry: Entry) -> None:
        if not entry.key:
            self._rows -= entry.rows
            self._bytes -= entry.size_bytes

    def _give_up(self, entry: Entry, cause: str) -> None:
        self._lost[cause] += entry.rows
        hole = GapRow(
            from_seconds=entry.at_seconds, until_seconds=entry.at_seconds, rows=entry.rows, cause=cause
        )
        self._gap = hole if self._gap is None else _join(self._gap, hole)


def _join(one: GapRow, other: GapRow) -> GapRow:
    return GapRow(
        from_seconds=min(one.from_seconds, other.from_seconds),
        until_seconds=max(one.until_seconds, other.until_seconds),
        rows=one.rows + other.rows,
        cause=one.cause if one.cause == other.cause else "several",
    )
