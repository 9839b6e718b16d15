"""Asking the ledger: the latest decision about an object, lists of decisions, load history, states, records.

Every query walks an index and is bounded; the answers are the structs of `rows`. SQL is plain enough for SQLite
and PostgreSQL alike.
"""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec
import sqlalchemy as sa

from controller.ledger.database import Database
from controller.ledger.entries import clean
from controller.ledger.faults import LedgerError
from controller.ledger.rows import (
    ActionId,
    ActuationRow,
    EpochRow,
    Explanation,
    GapRow,
    HistoryEntry,
    LoadRow,
    OutcomeRow,
    PlanId,
    PlanRow,
    PolicyStateRow,
    ReasonRow,
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
    refs,
)

# How far back one loop's reasons about an object are read to find the stretches of its history.
_HISTORY_READ = 300

# Bound parameters are limited; two for each key.
_KEYS_AT_ONCE = 200

# A reason without its texts, which are most of its bytes.
_BRIEF = tuple(column for column in reasons.columns if column.name not in {"sentence", "detail"})


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
        kind, name = _key("subject_kind", kind), _key("subject_name", name)
        with self._database.read() as connection:
            streams = [_stream(connection, kind, name, loop) for loop in _loops(connection, kind, name)]
            newest = [reason for stream in streams for reason in stream if reason.plan == stream[0].plan]
            if not newest:
                return None
            newest.sort(key=_recency, reverse=True)
            plan = _plans(connection, plans.c.plan == str(newest[0].plan), limit=1)
            stretches = _history(streams, history)
            last_words = _complete(connection, [stretch.latest for stretch in stretches])
            return Explanation(
                kind=kind,
                name=name,
                plan=plan[0] if plan else PlanRow(newest[0].plan, newest[0].decided_seconds),
                reasons=tuple(_complete(connection, newest)),
                mentions=tuple(_complete(connection, _mentions(connection, kind, name, mentions))),
                actuations=tuple(_actuations(connection, kind, name, actions)),
                history=tuple(map(_with_latest, stretches, last_words)),
            )

    def decisions(
        self, since_seconds: float = 0.0, limit: int = 100, *, loop: str = "", oldest_first: bool = False
    ) -> list[PlanRow]:
        """Plans decided at or after a time, newest first unless `oldest_first`; of one loop when it is given."""
        condition = plans.c.decided_seconds >= since_seconds
        if loop:
            condition = sa.and_(condition, plans.c.loop == loop)
        with self._database.read() as connection:
            return _plans(connection, condition, limit, oldest_first)

    def plan(self, plan: PlanId) -> tuple[PlanRow, list[StoredReason], list[ActuationRow]] | None:
        """One plan with its reasons and actions, in their order; None when it is not (or no longer) there."""
        key = str(plan)
        with self._database.read() as connection:
            found = _plans(connection, plans.c.plan == key, limit=1)
            if not found:
                return None
            told = sa.select(*_BRIEF).where(reasons.c.plan == key).order_by(reasons.c.position)
            done = sa.select(actuations).where(actuations.c.plan == key)
            actions = [_actuation(row) for row in connection.execute(done).mappings()]
            return (
                found[0],
                _complete(connection, [_reason(row) for row in connection.execute(told).mappings()]),
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
        return _series(
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
        return _series(
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
            policy_states.c.loop == _key("loop", loop), policy_states.c.scope == _key("scope", scope)
        )
        with self._database.read() as connection:
            row = connection.execute(sa.select(policy_states).where(key)).mappings().one_or_none()
            return None if row is None else _state(row)

    def policy_states(self) -> list[PolicyStateRow]:
        """Every state stored, by loop and scope: what a new leader starts from."""
        query = sa.select(policy_states).order_by(policy_states.c.loop, policy_states.c.scope)
        with self._database.read() as connection:
            return [_state(row) for row in connection.execute(query).mappings()]

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


def _key(column: str, value: str) -> str:
    return str(clean(column, value))


def _loops(connection: sa.Connection, kind: str, name: str) -> Iterator[str]:
    """Loops that ever gave a reason about the object: one index seek each, however many reasons there are."""
    loop = ""
    while True:
        query = (
            sa.select(reasons.c.loop)
            .where(reasons.c.subject_kind == kind, reasons.c.subject_name == name, reasons.c.loop > loop)
            .order_by(reasons.c.loop)
            .limit(1)
        )
        found = connection.execute(query).scalar_one_or_none()
        if found is None:
            return
        loop = found
        yield loop


def _stream(connection: sa.Connection, kind: str, name: str, loop: str) -> list[StoredReason]:
    """One loop's last reasons about an object, newest plan first, in the plan's order, without their texts."""
    query = (
        sa.select(*_BRIEF)
        .where(reasons.c.subject_kind == kind, reasons.c.subject_name == name, reasons.c.loop == loop)
        .order_by(reasons.c.decided_seconds.desc())
        .limit(_HISTORY_READ)
    )
    found = [_reason(row) for row in connection.execute(query).mappings()]
    return sorted(found, key=_recency, reverse=True)


def _mentions(connection: sa.Connection, kind: str, name: str, limit: int) -> list[StoredReason]:
    """The last reasons of other subjects that name the object."""
    query = (
        sa.select(*_BRIEF)
        .join(refs, sa.and_(refs.c.plan == reasons.c.plan, refs.c.position == reasons.c.position))
        .where(refs.c.kind == kind, refs.c.name == name)
        .where(sa.or_(reasons.c.subject_kind != kind, reasons.c.subject_name != name))
        .order_by(refs.c.decided_seconds.desc())
        .limit(limit)
    )
    found = [_reason(row) for row in connection.execute(query).mappings()]
    return sorted(found, key=_recency, reverse=True)


def _actuations(connection: sa.Connection, kind: str, name: str, limit: int) -> list[ActuationRow]:
    """The last actions on the object, newest first."""
    query = (
        sa.select(actuations)
        .where(actuations.c.subject_kind == kind, actuations.c.subject_name == name)
        .order_by(actuations.c.issued_seconds.desc())
        .limit(limit)
    )
    found = [_actuation(row) for row in connection.execute(query).mappings()]
    return sorted(found, key=lambda action: (action.issued_seconds, action.id), reverse=True)


def _history(streams: list[list[StoredReason]], limit: int) -> list[HistoryEntry]:
    """Stretches of equal reasons per loop and code, merged over the loops, newest first."""
    entries: list[HistoryEntry] = []
    for stream in streams:
        running: dict[str, HistoryEntry] = {}
        for reason in reversed(stream):
            before = running.get(reason.row.code)
            if before is not None and _says_the_same(before.latest.row, reason.row):
                first, times = before.first_seconds, before.times + 1
            else:
                if before is not None:
                    entries.append(before)
                first, times = reason.decided_seconds, 1
            running[reason.row.code] = HistoryEntry(first, reason.decided_seconds, times, reason)
        entries.extend(running.values())
    return heapq.nlargest(limit, entries, key=lambda entry: (entry.last_seconds, _recency(entry.latest)))


def _says_the_same(one: ReasonRow, other: ReasonRow) -> bool:
    return (one.verdict, one.choice) == (other.verdict, other.choice)


def _recency(reason: StoredReason) -> tuple[float, int, int, str, int]:
    plan = reason.plan
    return reason.decided_seconds, plan.epoch, plan.tick, plan.loop, -reason.index


def _plans(
    connection: sa.Connection, condition: Any, limit: int, oldest_first: bool = False
) -> list[PlanRow]:
    keys = (plans.c.decided_seconds, plans.c.epoch, plans.c.tick, plans.c.loop)
    order = keys if oldest_first else tuple(key.desc() for key in keys)
    query = sa.select(plans).where(condition).order_by(*order).limit(limit)
    found = []
    for row in connection.execute(query).mappings():
        values = {name: row[name] for name in PlanRow.__struct_fields__ if name != "id"}
        values["degraded"] = bool(values["degraded"])
        found.append(PlanRow(id=PlanId(row["epoch"], row["loop"], row["tick"]), **values))
    return found


def _reason(row: Any) -> StoredReason:
    return StoredReason(
        plan=PlanId.parse(row["plan"]),
        index=row["position"],
        decided_seconds=row["decided_seconds"],
        row=ReasonRow(
            code=row["code"],
            verdict=row["verdict"],
            subject_kind=row["subject_kind"],
            subject_name=row["subject_name"],
            choice=row["choice"],
            need=row["need_value"],
            have=row["have_value"],
            limit=row["limit_value"],
            count=row["merged"],
        ),
    )


def _complete(connection: sa.Connection, found: list[StoredReason]) -> list[StoredReason]:
    """The reasons with sentence, details and the objects they speak of: read only for those that are shown."""
    texts: dict[tuple[str, int], tuple[str, str]] = {}
    named: dict[tuple[str, int], list[tuple[str, str]]] = {}
    keys = [(str(reason.plan), reason.index) for reason in found]
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        # A few rows too many, by the index: SQLite answers IN over pairs by reading the whole table.
        told = sa.select(reasons.c.plan, reasons.c.position, reasons.c.sentence, reasons.c.detail)
        for row in connection.execute(told.where(*_among(reasons, some))):
            texts[row.plan, row.position] = (row.sentence, row.detail)
        spoken = sa.select(refs).where(*_among(refs, some)).order_by(refs.c.kind, refs.c.name)
        for row in connection.execute(spoken):
            named.setdefault((row.plan, row.position), []).append((row.kind, row.name))
    return [
        _with_texts(reason, texts[key], named.get(key, [])) for reason, key in zip(found, keys, strict=True)
    ]


def _among(table: sa.Table, keys: list[tuple[str, int]]) -> tuple[sa.ColumnElement[bool], ...]:
    plan_names = sorted({plan for plan, _ in keys})
    positions = sorted({position for _, position in keys})
    return table.c.plan.in_(plan_names), table.c.position.in_(positions)


def _with_texts(reason: StoredReason, texts: tuple[str, str], named: list[tuple[str, str]]) -> StoredReason:
    row = msgspec.structs.replace(reason.row, sentence=texts[0], detail=texts[1], refs=tuple(named))
    return msgspec.structs.replace(reason, row=row)


def _with_latest(stretch: HistoryEntry, latest: StoredReason) -> HistoryEntry:
    return msgspec.structs.replace(stretch, latest=latest)


def _actuation(row: Any) -> ActuationRow:
    values = {name: row[name] for name in ActuationRow.__struct_fields__ if name not in {"id", "count"}}
    return ActuationRow(id=ActionId.parse(row["action"]), count=row["merged"], **values)


def _state(row: Any) -> PolicyStateRow:
    values = {name: row[name] for name in PolicyStateRow.__struct_fields__ if name != "schema"}
    return PolicyStateRow(schema=row["schema_number"], **values)


def _series(
    database: Database,
    table: sa.Table,
    kind: type[Any],
    service: str,
    request_class: str,
    span: tuple[float, float],
    limit: int,
) -> list[Any]:
    query = sa.select(table).where(
        table.c.service == _key("service", service), table.c.at_seconds.between(*span)
    )
    if request_class:
        query = query.where(table.c.request_class == _key("request_class", request_class))
    query = query.order_by(table.c.at_seconds, table.c.request_class).limit(limit)
    with database.read() as connection:
        return [
            kind(**{name: row[name] for name in kind.__struct_fields__})
            for row in connection.execute(query).mappings()
        ]
