"""The ledger as the operator uses it: calls that never block, never raise, and are written in the background."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from controller.ledger import entries
from controller.ledger.buffer import Buffer
from controller.ledger.database import BUSY_TIMEOUT_SECONDS, Database
from controller.ledger.entries import Entry
from controller.ledger.faults import LedgerError
from controller.ledger.queries import LedgerReader
from controller.ledger.retention import Retention
from controller.ledger.rows import (
    ActuationEnd,
    ActuationRow,
    EpochRow,
    LoadRow,
    OutcomeRow,
    PlanId,
    PlanRow,
    PolicyStateRow,
    ReasonRow,
)
from controller.ledger.writer import LedgerState, Writer

log = logging.getLogger("plimsoll.ledger")

MAX_RECORD_BYTES = 32 * 1024 * 1024

_NO_CONNECTION = frozenset({"unreachable", "denied", "crowded"})


class Memory(msgspec.Struct, frozen=True):
    """What survives a leader: the highest epoch anything was written in, and the last state of each policy."""

    highest_epoch: int = 0
    states: tuple[PolicyStateRow, ...] = ()


class Ledger:
    """Takes rows and gets them into the database, whatever happens to it.

    `url` is a SQLite path or URL, or a PostgreSQL URL. The writing calls queue and return; either `start()` lets a
    thread write, or the owner of a virtual clock calls `flush()` when it suits. `now` gives the time of the history
    (UTC seconds), `monotonic` real seconds. Raises LedgerError for a URL that can never work; a database that is
    only unavailable is no error: rows wait in memory, bounded by `max_queued_rows` and `max_queued_bytes`. SQLite
    waits `busy_timeout_seconds` for another process's lock before an attempt counts as failed.
    """

    def __init__(
        self,
        url: str,
        *,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        retention: Retention | None = None,
        max_queued_rows: int = 100_000,
        max_queued_bytes: int = 64 * 1024 * 1024,
        max_record_bytes: int = MAX_RECORD_BYTES,
        busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS,
    ) -> None:
        self._database = Database(url, busy_timeout_seconds=busy_timeout_seconds)
        self._buffer = Buffer(max_queued_rows, max_queued_bytes)
        self._writer = Writer(
            self._database, self._buffer, retention or Retention(), now=now, monotonic=monotonic
        )
        self._max_record_bytes = max_record_bytes
        self._reader = LedgerReader(url)

    @property
    def name(self) -> str:
        """The database's URL for people, without its password."""
        return self._database.name

    @property
    def reader(self) -> LedgerReader:
        """Answers from what is written; call `flush()` first to include what waits."""
        return self._reader

    def state(self) -> LedgerState:
        """Rows waiting, written and lost, and what is wrong, if anything."""
        return self._writer.state()

    def plan(self, plan: PlanRow, reasons: Iterable[ReasonRow] = ()) -> None:
        """Keep a plan with its reasons. A plan of the same epoch, loop and tick that is there already stays."""
        self._queue(lambda: entries.plan_entry(plan, reasons))

    def actuations(self, rows: Iterable[ActuationRow]) -> None:
        """Keep actions as they were issued or dropped."""
        listed = tuple(rows)
        self._queue(lambda: entries.actuation_entry(listed, listed[0].issued_seconds if listed else 0.0))

    def ended(self, end: ActuationEnd) -> None:
        """Keep how an action ended."""
        self._queue(lambda: entries.end_entry(end))

    def load(self, row: LoadRow) -> None:
        """Keep the load of a class over a window."""
        self._queue(lambda: entries.load_entry(row))

    def outcome(self, row: OutcomeRow) -> None:
        """Keep what a class got over a window."""
        self._queue(lambda: entries.outcome_entry(row))

    def policy_state(self, row: PolicyStateRow) -> None:
        """Keep a policy's state; it replaces the one before, unless that is of a newer epoch."""
        self._queue(lambda: entries.state_entry(row))

    def epoch(self, row: EpochRow) -> None:
        """Keep the begin of a leadership, or its end (the same row with `ended_seconds`)."""
        self._queue(lambda: entries.epoch_entry(row))

    def record(self, plan: PlanId, at_seconds: float, payload: bytes) -> bool:
        """Keep a replay record (JSON bytes, compressed in the background); False when it is too large."""
        if len(payload) > self._max_record_bytes:
            log.warning(
                "ledger: the replay record of %s has %d bytes, more than %d; it is not kept",
                plan,
                len(payload),
                self._max_record_bytes,
            )
            self._buffer.reject(1)
            return False
        self._queue(lambda: entries.record_entry(plan, at_seconds, payload))
        return True

    def recall(self) -> Memory:
        """What a new leader starts from. Never raises: a ledger that does not answer remembers nothing."""
        problem: object = ""
        # A server that gives no connection for writing gives none for reading, and a new leader has no time to lose.
        if self.flush(force=True) or self.state().cause not in _NO_CONNECTION:
            try:
                return Memory(self._reader.highest_epoch(), tuple(self._reader.policy_states()))
            except LedgerError as error:
                problem = error
        log.warning("ledger: policies start from their initial states: %s", problem or self.state().problem)
        return Memory()

    def start(self, every_seconds: float = 0.1) -> None:
        """Write in a thread from now on, `every_seconds` after something was queued."""
        self._writer.start(every_seconds)

    def flush(self, *, force: bool = False) -> bool:
        """Write what waits, here and now; True when nothing is left.

        After a failure it returns at once until the pause is over, unless `force`.
        """
        return self._writer.pump(force=force)

    def close(self, timeout_seconds: float = 5.0) -> int:
        """Stop the thread, try once more to write what waits, and close. Returns the rows that had to be given up."""
        self._writer.stop(timeout_seconds)
        self._writer.pump(force=True)
        left = self._buffer.abandon()
        if left:
            log.error("ledger: %d rows are lost: %s", left, self._writer.state().problem)
        self._database.close()
        self._reader.close()
        return left

    def _queue(self, make: Callable[[], Entry]) -> None:
        try:
            entry = make()
        except Exception:
            # A row that cannot be lowered is a defect of its maker; the operator's loop must go on.
            self._buffer.reject(1)
            log.exception("ledger: a row could not be read and is given up")
            return
        self._buffer.put(entry)
