"""Writing the queue to the database, in the background or pumped, and saying so when it does not work.

A failed batch goes back to the head of the queue and is tried again after a growing pause; one log line when it
begins, one a minute while it lasts, one when it is over. A batch that the database refuses for its content is
written entry by entry, so that one bad row costs itself only.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable

import msgspec

from controller.ledger import entries
from controller.ledger.buffer import Buffer
from controller.ledger.database import Database
from controller.ledger.entries import Entry
from controller.ledger.faults import LedgerError, LedgerUnavailable, RowsRefused
from controller.ledger.retention import Retention, Sweeper

log = logging.getLogger("plimsoll.ledger")

BATCH_ROWS = 2_000
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
REMINDER_SECONDS = 60.0


class LedgerState(msgspec.Struct, frozen=True):
    """How the ledger is: rows and bytes waiting, rows written and lost so far, and what is wrong, if anything.

    `lost_rows` is by cause (`overflow`, `too_large`, `refused`, `closed`); `failures` counts failed attempts by
    cause (`locked`, `full`, `gone`, `readonly`, `corrupt`, `schema`, `denied`, `crowded`, `unreachable`, `unusable`). `disk_bytes` is
    the size of a SQLite ledger. `problem` is a sentence and `cause` its word, both empty when all is well.
    """

    queued_rows: int = 0
    queued_bytes: int = 0
    capacity_rows: int = 0
    written_rows: int = 0
    removed_rows: int = 0
    lost_rows: dict[str, int] = {}
    failures: dict[str, int] = {}
    disk_bytes: int | None = None
    problem: str = ""
    cause: str = ""


class Writer:
    """Moves entries from the buffer to the database. `pump()` does it here and now, `start()` in a thread.

    `now` gives the time of the history (virtual or real, for retention), `monotonic` real seconds (for pauses).
    """

    def __init__(
        self,
        database: Database,
        buffer: Buffer,
        retention: Retention,
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._database = database
        self._buffer = buffer
        self._sweeper = Sweeper(database, retention)
        self._now = now
        self._monotonic = monotonic
        self._pumping = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._written = 0
        self._failures: Counter[str] = Counter()
        self._problem = self._cause = ""
        self._failing_since: float | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._retry_at = 0.0
        self._remind_at = 0.0

    def state(self) -> LedgerState:
        """How the ledger is at this moment."""
        return LedgerState(
            queued_rows=self._buffer.rows,
            queued_bytes=self._buffer.size_bytes,
            capacity_rows=self._buffer.max_rows,
            written_rows=self._written,
            removed_rows=self._sweeper.removed_rows,
            lost_rows=self._buffer.lost,
            failures=dict(self._failures),
            disk_bytes=self._database.disk_bytes(),
            problem=self._problem,
            cause=self._cause,
        )

    def pump(self, *, force: bool = False) -> bool:
        """Write everything that waits; True when nothing is left.

        Returns at once while a pause after a failure lasts (unless `force`), and never raises for anything the
        database does. Costs at most the busy timeout when the database is locked.
        """
        with self._pumping:
            if not force and self._monotonic() < self._retry_at:
                return False
            while self._buffer.rows:
                try:
                    self._write_batch()
                except LedgerError as problem:
                    self._buffer.put_back()
                    self._failed(problem)
                    return False
            return self._settle()

    def start(self, every_seconds: float) -> None:
        """Pump in a thread of its own, `every_seconds` at the latest after something was queued."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(
                target=self._run, args=(every_seconds,), name="plimsoll-ledger", daemon=True
            )
            self._thread.start()

    def nudge(self) -> None:
        """Let the thread write now."""
        self._wake.set()

    @property
    def running(self) -> bool:
        """Whether a thread pumps."""
        return self._thread is not None

    def stop(self, timeout_seconds: float) -> None:
        """End the thread, waiting at most `timeout_seconds` for the batch it is writing."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stop.set()
            self._wake.set()
            thread.join(timeout_seconds)

    def _run(self, every_seconds: float) -> None:
        while not self._stop.is_set():
            self._wake.wait(every_seconds)
            self._wake.clear()
            self.pump()

    def _write_batch(self) -> None:
        batch = self._prepared(self._buffer.take(BATCH_ROWS))
        try:
            self._write(batch)
        except RowsRefused:
            for entry in batch:
                self._write_or_refuse(entry)
        self._buffer.done()
        self._recovered()

    def _prepared(self, batch: list[Entry]) -> list[Entry]:
        ready = []
        for entry in batch:
            try:
                entry.prepare()
            except (TypeError, ValueError, MemoryError) as error:
                self._buffer.refuse(entry)
                log.warning("ledger: %d rows at %.0f s are given up: %s", entry.rows, entry.at_seconds, error)
            else:
                ready.append(entry)
        return ready

    def _write(self, batch: list[Entry]) -> None:
        with self._database.begin() as connection:
            written = entries.execute(connection, batch)
        self._written += written

    def _write_or_refuse(self, entry: Entry) -> None:
        try:
            self._write([entry])
        except RowsRefused as problem:
            self._buffer.refuse(entry)
            log.warning("ledger: %d rows at %.0f s are given up: %s", entry.rows, entry.at_seconds, problem)

    def _settle(self) -> bool:
        """With an empty queue: note what was lost, and remove what is too old."""
        try:
            self._database.ensure()
            self._write_gap()
            self._sweeper.sweep(self._now())
        except LedgerError as problem:
            self._failed(problem)
            return False
        self._recovered()
        return True

    def _write_gap(self) -> None:
        gap = self._buffer.take_gap()
        if gap is None:
            return
        try:
            self._write([entries.gap_entry(gap)])
        except LedgerUnavailable:
            self._buffer.return_gap(gap)
            raise

    def _failed(self, problem: LedgerError) -> None:
        now = self._monotonic()
        cause = problem.cause if isinstance(problem, LedgerUnavailable) else "unusable"
        self._failures[cause] += 1
        self._problem, self._cause = f"{self._database.name}: {problem}", cause
        self._retry_at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        if self._failing_since is None:
            self._failing_since = now
        elif now < self._remind_at:
            return
        self._remind_at = now + REMINDER_SECONDS
        log.warning(
            "ledger: cannot write to %s; %d of %d rows wait in memory, %d lost so far",
            self._problem,
            self._buffer.rows,
            self._buffer.max_rows,
            sum(self._buffer.lost.values()),
        )

    def _recovered(self) -> None:
        self._pause = FIRST_PAUSE_SECONDS
        self._retry_at = 0.0
        if self._failing_since is not None:
            log.warning(
                "ledger: writing to %s again after %.1f s; %d rows lost so far",
                self._database.name,
                self._monotonic() - self._failing_since,
                sum(self._buffer.lost.values()),
            )
            self._failing_since = None
            self._problem = self._cause = ""
