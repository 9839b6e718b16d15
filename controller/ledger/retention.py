"""How much history is kept, and removing the rest a little at a time.

Each kind of history is bounded by age and by rows; replay records also by bytes. One sweep removes a bounded
number of rows in short transactions, so that it never holds the database for long, and continues with the next.
"""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from controller.ledger.database import Database
from controller.ledger.tables import actuations, gaps, loads, outcomes, plans, reasons, records, refs

DAY_SECONDS = 86_400.0

Time = sa.Column[Any]

_VACUUM_PAGES = 2_000


class Retention(msgspec.Struct, frozen=True):
    """Bounds of the history. Rows beyond any of them go, oldest first.

    `every_seconds` of history pass between sweeps; a sweep runs at most `chunks` transactions for each kind of
    history, of about `chunk_rows` rows each, and is due again sooner when that was not enough.
    """

    max_age_seconds: float = 30 * DAY_SECONDS
    max_plans: int = 100_000
    max_reasons: int = 300_000
    max_actuations: int = 300_000
    max_loads: int = 500_000
    max_outcomes: int = 500_000
    max_records: int = 2_000
    max_record_bytes: int = 256 * 1024 * 1024
    every_seconds: float = 60.0
    chunk_rows: int = 2_000
    chunks: int = 5


class Sweeper:
    """Removes what is beyond the bounds; `sweep(now)` does nothing until it is due."""

    def __init__(self, database: Database, retention: Retention) -> None:
        self._database = database
        self._retention = retention
        self._due: float | None = None
        self.removed_rows = 0

    def sweep(self, now_seconds: float) -> int:
        """Remove some of what is beyond the bounds, when due; the number of rows. Raises LedgerError."""
        bounds = self._retention
        if self._due is None:
            self._due = now_seconds + bounds.every_seconds
        if now_seconds < self._due:
            return 0
        oldest = now_seconds - bounds.max_age_seconds
        families: tuple[tuple[tuple[Time, int], ...], ...] = (
            # A plan goes with its reasons and their references: they carry the same time.
            (
                (plans.c.decided_seconds, bounds.max_plans),
                (reasons.c.decided_seconds, bounds.max_reasons),
                (refs.c.decided_seconds, 2 * bounds.max_reasons),
            ),
            ((actuations.c.issued_seconds, bounds.max_actuations),),
            ((loads.c.at_seconds, bounds.max_loads),),
            ((outcomes.c.at_seconds, bounds.max_outcomes),),
            ((gaps.c.until_seconds, bounds.max_plans),),
        )
        removed = self._sweep_records(oldest)
        finished = True
        for family in families:
            count, complete = self._sweep_family(family, oldest)
            removed += count
            finished = finished and complete
        self._due = now_seconds + (bounds.every_seconds if finished else bounds.every_seconds / 30.0)
        self.removed_rows += removed
        if removed:
            self._database.give_back_space(_VACUUM_PAGES)
        return removed

    def _sweep_family(self, family: tuple[tuple[Time, int], ...], oldest: float) -> tuple[int, bool]:
        """Remove one kind of history before its cutoff; the rows removed, and whether nothing is left to remove."""
        with self._database.begin() as connection:
            cutoff = max(oldest, *(_cutoff(connection, time, bound) for time, bound in family))
        removed = 0
        for _ in range(self._retention.chunks):
            with self._database.begin() as connection:
                marks = [_mark(connection, time, cutoff, self._retention.chunk_rows) for time, _ in family]
                upto = min((mark for mark in marks if mark is not None), default=None)
                for time, _ in family:
                    within = time < cutoff if upto is None else time <= upto
                    removed += max(0, connection.execute(sa.delete(time.table).where(within)).rowcount)
            if upto is None:
                return removed, True
        return removed, False

    def _sweep_records(self, oldest: float) -> int:
        bounds = self._retention
        newest_first = sa.select(records.c.plan, records.c.at_seconds, records.c.stored_bytes).order_by(
            records.c.at_seconds.desc(), records.c.plan.desc()
        )
        with self._database.begin() as connection:
            kept_bytes, doomed = 0, []
            for position, (plan, at_seconds, stored_bytes) in enumerate(connection.execute(newest_first)):
                kept_bytes += stored_bytes
                over = kept_bytes > bounds.max_record_bytes or position >= bounds.max_records
                if over or at_seconds < oldest:
                    doomed.append({"doomed_plan": plan})
            doomed = doomed[-bounds.chunk_rows :]
            if doomed:
                connection.execute(
                    sa.delete(records).where(records.c.plan == sa.bindparam("doomed_plan")), doomed
                )
            return len(doomed)


def _cutoff(connection: sa.Connection, time: Time, bound: int) -> float:
    """The time before which rows are beyond the newest `bound` ones."""
    query = sa.select(time).order_by(time.desc()).offset(max(0, bound - 1)).limit(1)
    found = connection.execute(query).scalar_one_or_none()
    return float("-inf") if found is None else float(found)


def _mark(connection: sa.Connection, time: Time, cutoff: float, rows: int) -> float | None:
    """The time of the `rows`-th oldest row before the cutoff; None when there are fewer."""
    query = sa.select(time).where(time < cutoff).order_by(time).offset(rows - 1).limit(1)
    return connection.execute(query).scalar_one_or_none()
