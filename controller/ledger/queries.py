"""Asking the ledger: the latest decision about an object, lists of decisions, load history, states, records.

Every query walks an index and is bounded; the answers are the structs of `rows`. SQL is plain enough for SQLite
and PostgreSQL alike.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import msgspec
import sqlalchemy as sa

from controller.ledger import lookup
from controller.ledger.database import Database
from controller.ledger.faults import LedgerError
from controller.ledger.rows import (
    ActuationRow,
    EpochRow,
    Explanation,
    GapRow,
    LoadRow,
    OutcomeRow,
    PlanId,
    PlanRow,
    PolicyStateRow,
    StoredReason,
)
from controller.ledger.tables import (
    actuations,
    epochs,
    gaps,
    loads,
    outcomes,
    plans,
    policy_states,
    reasons,
    records,
)


class LedgerReader:
    """Answers from one ledger. Every method raises LedgerUnavailable while the database does not answer."""

    def __init__(self, url: str) -> None:
        self._database = Database(url, create=False, busy_timeout_seconds=2.0)

    def close(self) -> None:
        """Close the connections; the next question opens them again."""
        self._database.close()

    def latest_decision(
        self, kind: str, name: str, *, mentions: int = 20, actions: int = 50, history: int = 20
    ) -> Explanation | None:
        """Everything about an object's latest decision; None when no reason was ever about it.

        `mentions`, `actions` and `history` bound the lists of the answer.
        """
        kind, name = lookup.stored("subject_kind", kind), lookup.stored("subject_name", name)
        with self._database.read() as connection:
            streams = [
                lookup.stream(connection, kind, name, loop)
                for loop in lookup.loops_about(connection, kind, name)
            ]
            newest = [reason for told in streams for reason in told if reason.plan == told[0].plan]
            if not newest:
                return None
            newest.sort(key=lookup.recency, reverse=True)
            plan = lookup.plans_where(connection, plans.c.plan == str(newest[0].plan), limit=1)
            past = lookup.stretches(streams, history)
            last_words = lookup.complete(connection, [stretch.latest for stretch in past])
            return Explanation(
                kind=kind,
                name=name,
                plan=plan[0] if plan else PlanRow(newest[0].plan, newest[0].decided_seconds),
                reasons=tuple(lookup.complete(connection, newest)),
                mentions=tuple(
                    lookup.complete(connection, lookup.mentions_of(connection, kind, name, mentions))
                ),
                actuations=tuple(lookup.actuations_on(connection, kind, name, actions)),
                history=tuple(map(lookup.with_latest, past, last_words)),
            )

    def decisions(
        self, since_seconds: float = 0.0, limit: int = 100, *, loop: str = "", oldest_first: bool = False
    ) -> list[PlanRow]:
        """Plans decided at or after a time, newest first unless `oldest_first`; of one loop when it is given."""
        condition = plans.c.decided_seconds >= since_seconds
        if loop:
            condition = sa.and_(condition, plans.c.loop == loop)
        with self._database.read() as connection:
            return lookup.plans_where(connection, condition, limit, oldest_first)

    def plan(self, plan: PlanId) -> tuple[PlanRow, list[StoredReason], list[ActuationRow]] | None:
        """One plan with its reasons and actions, in their order; None when it is not (or no longer) there."""
        key = str(plan)
        with self._database.read() as connection:
            found = lookup.plans_where(connection, plans.c.plan == key, limit=1)
            if not found:
                return None
            told = sa.select(*lookup.BRIEF).where(reasons.c.plan == key).order_by(reasons.c.position)
            done = sa.select(actuations).where(actuations.c.plan == key)
            actions = [lookup.actuation_row(row) for row in connection.execute(done).mappings()]
            return (
                found[0],
                lookup.complete(
                    connection, [lookup.brief_reason(row) for row in connection.execute(told).mappings()]
                ),
                sorted(actions, key=lambda action: action.id),
            )

    def load_history(
        self,
        service: str,
        since_seconds: float,
        until_seconds: float,
        *,
        request_class: str = "",
        limit: int = 10_000,
    ) -> list[LoadRow]:
        """Load of a service in [since, until], oldest first, over all classes unless one is given."""
        return lookup.series(
            self._database, loads, LoadRow, service, request_class, (since_seconds, until_seconds), limit
        )

    def outcome_history(
        self,
        service: str,
        since_seconds: float,
        until_seconds: float,
        *,
        request_class: str = "",
        limit: int = 10_000,
    ) -> list[OutcomeRow]:
        """What a service's requests got in [since, until], oldest first."""
        return lookup.series(
            self._database,
            outcomes,
            OutcomeRow,
            service,
            request_class,
            (since_seconds, until_seconds),
            limit,
        )

    def policy_state(self, loop: str, scope: str) -> PolicyStateRow | None:
        """The last state stored for a loop and scope."""
        key = sa.and_(
            policy_states.c.loop == lookup.stored("loop", loop),
            policy_states.c.scope == lookup.stored("scope", scope),
        )
        with self._database.read() as connection:
            row = connection.execute(sa.select(policy_states).where(key)).mappings().one_or_none()
            return None if row is None else lookup.state_row(row)

    def policy_states(self) -> list[PolicyStateRow]:
        """Every state lookup.stored, by loop and scope: what a new leader starts from."""
        query = sa.select(policy_states).order_by(policy_states.c.loop, policy_states.c.scope)
        with self._database.read() as connection:
            return [lookup.state_row(row) for row in connection.execute(query).mappings()]

    def epochs(self, limit: int = 100) -> list[EpochRow]:
        """Leaderships, newest first."""
        query = sa.select(epochs).order_by(epochs.c.epoch.desc()).limit(limit)
        with self._database.read() as connection:
            return [EpochRow(**row) for row in connection.execute(query).mappings()]

    def highest_epoch(self) -> int:
        """The highest epoch anything was written in, 0 for none: a new leader's must be above it."""
        with self._database.read() as connection:
            led = connection.execute(sa.select(sa.func.max(epochs.c.epoch))).scalar_one()
            return int(led or 0)

    def gaps(self, limit: int = 100) -> list[GapRow]:
        """Holes in the history, newest first."""
        query = sa.select(gaps).order_by(gaps.c.until_seconds.desc()).limit(limit)
        with self._database.read() as connection:
            return [
                GapRow(row.from_seconds, row.until_seconds, row.lost_rows, row.cause)
                for row in connection.execute(query)
            ]

    def record(self, plan: PlanId) -> bytes | None:
        """The replay record of a plan, as it was given; None when none was kept or it is gone by retention."""
        query = sa.select(records.c.payload, records.c.raw_bytes).where(records.c.plan == str(plan))
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        try:
            payload = zlib.decompressobj().decompress(row.payload, row.raw_bytes + 1)
        except zlib.error as error:
            raise LedgerError(f"The replay record of {plan} is damaged: {error}.") from error
        if len(payload) != row.raw_bytes:
            raise LedgerError(
                f"The replay record of {plan} is damaged: its size is not {row.raw_bytes} bytes."
            )
        return payload

    def records(self, limit: int = 100) -> list[PlanId]:
        """Plans with a replay record, newest first."""
        query = (
            sa.select(records.c.plan)
            .order_by(records.c.at_seconds.desc(), records.c.plan.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return [PlanId.parse(name) for name in connection.execute(query).scalars()]

    def decision_log(self) -> Iterator[bytes]:
        """Every plan, reason and action as one JSON line each, in a canonical order: equal runs give equal lines."""
        with self._database.read() as connection:
            for table, order in (
                (plans, (plans.c.decided_seconds, plans.c.epoch, plans.c.loop, plans.c.tick)),
                (reasons, (reasons.c.decided_seconds, reasons.c.loop, reasons.c.plan, reasons.c.position)),
                (actuations, (actuations.c.issued_seconds, actuations.c.action)),
            ):
                # How long a decision took is no part of what was decided.
                columns = [column for column in table.columns if column.name != "took_seconds"]
                for row in connection.execute(sa.select(*columns).order_by(*order)).mappings():
                    yield msgspec.json.encode({"table": str(table.name), **row}, order="sorted")
