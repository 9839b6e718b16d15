"""The queries behind the reader's answers, on a connection, and the structs made from their rows."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any

import msgspec
import sqlalchemy as sa

from controller.ledger.database import Database
from controller.ledger.entries import clean
from controller.ledger.rows import (
    ActionId,
    ActuationRow,
    HistoryEntry,
    PlanId,
    PlanRow,
    PolicyStateRow,
    ReasonRow,
    StoredReason,
)
from controller.ledger.tables import actuations, plans, reasons, refs

# How far back one loop's reasons about an object are read to find the stretches of its history.
_HISTORY_READ = 300

# Bound parameters are limited; two for each key.
_KEYS_AT_ONCE = 200

# A reason without its texts, which are most of its bytes.
BRIEF = tuple(column for column in reasons.columns if column.name not in {"sentence", "detail"})


def stored(column: str, value: str) -> str:
    """A name as the ledger keeps it: cut when it is too long for its column, in the same way as when written."""
    return str(clean(column, value))


def loops_about(connection: sa.Connection, kind: str, name: str) -> Iterator[str]:
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


def stream(connection: sa.Connection, kind: str, name: str, loop: str) -> list[StoredReason]:
    """One loop's last reasons about an object, newest plan first, in the plan's order, without their texts."""
    query = (
        sa.select(*BRIEF)
        .where(reasons.c.subject_kind == kind, reasons.c.subject_name == name, reasons.c.loop == loop)
        .order_by(reasons.c.decided_seconds.desc())
        .limit(_HISTORY_READ)
    )
    found = [brief_reason(row) for row in connection.execute(query).mappings()]
    return sorted(found, key=recency, reverse=True)


def mentions_of(connection: sa.Connection, kind: str, name: str, limit: int) -> list[StoredReason]:
    """The last reasons of other subjects that name the object."""
    query = (
        sa.select(*BRIEF)
        .join(refs, sa.and_(refs.c.plan == reasons.c.plan, refs.c.position == reasons.c.position))
        .where(refs.c.kind == kind, refs.c.name == name)
        .where(sa.or_(reasons.c.subject_kind != kind, reasons.c.subject_name != name))
        .order_by(refs.c.decided_seconds.desc())
        .limit(limit)
    )
    found = [brief_reason(row) for row in connection.execute(query).mappings()]
    return sorted(found, key=recency, reverse=True)


def actuations_on(connection: sa.Connection, kind: str, name: str, limit: int) -> list[ActuationRow]:
    """The last actions on the object, newest first."""
    query = (
        sa.select(actuations)
        .where(actuations.c.subject_kind == kind, actuations.c.subject_name == name)
        .order_by(actuations.c.issued_seconds.desc())
        .limit(limit)
    )
    found = [actuation_row(row) for row in connection.execute(query).mappings()]
    return sorted(found, key=lambda action: (action.issued_seconds, action.id), reverse=True)


def stretches(streams: list[list[StoredReason]], limit: int) -> list[HistoryEntry]:
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
    return heapq.nlargest(limit, entries, key=lambda entry: (entry.last_seconds, recency(entry.latest)))


def _says_the_same(one: ReasonRow, other: ReasonRow) -> bool:
    return (one.verdict, one.choice) == (other.verdict, other.choice)


def recency(reason: StoredReason) -> tuple[float, int, int, str, int]:
    """Sorts reasons by time, then by plan; within a plan, its order."""
    plan = reason.plan
    return reason.decided_seconds, plan.epoch, plan.tick, plan.loop, -reason.index


def plans_where(
    connection: sa.Connection, condition: Any, limit: int, oldest_first: bool = False
) -> list[PlanRow]:
    """Plans that meet a condition, newest first unless `oldest_first`."""
    keys = (plans.c.decided_seconds, plans.c.epoch, plans.c.tick, plans.c.loop)
    order = keys if oldest_first else tuple(key.desc() for key in keys)
    query = sa.select(plans).where(condition).order_by(*order).limit(limit)
    found = []
    for row in connection.execute(query).mappings():
        values = {name: row[name] for name in PlanRow.__struct_fields__ if name != "id"}
        values["degraded"] = bool(values["degraded"])
        found.append(PlanRow(id=PlanId(row["epoch"], row["loop"], row["tick"]), **values))
    return found


def brief_reason(row: Any) -> StoredReason:
    """A reason without its texts, from a row of `BRIEF`."""
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


def complete(connection: sa.Connection, found: list[StoredReason]) -> list[StoredReason]:
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


def with_latest(stretch: HistoryEntry, latest: StoredReason) -> HistoryEntry:
    """The stretch with its last reason complete."""
    return msgspec.structs.replace(stretch, latest=latest)


def actuation_row(row: Any) -> ActuationRow:
    """An action from its row."""
    values = {name: row[name] for name in ActuationRow.__struct_fields__ if name not in {"id", "count"}}
    return ActuationRow(id=ActionId.parse(row["action"]), count=row["merged"], **values)


def state_row(row: Any) -> PolicyStateRow:
    """A policy's state from its row."""
    values = {name: row[name] for name in PolicyStateRow.__struct_fields__ if name != "schema"}
    return PolicyStateRow(schema=row["schema_number"], **values)


def series(
    database: Database,
    table: sa.Table,
    kind: type[Any],
    service: str,
    request_class: str,
    span: tuple[float, float],
    limit: int,
) -> list[Any]:
    """Rows of a history table for one service within a span of time, oldest first."""
    query = sa.select(table).where(
        table.c.service == stored("service", service), table.c.at_seconds.between(*span)
    )
    if request_class:
        query = query.where(table.c.request_class == stored("request_class", request_class))
    query = query.order_by(table.c.at_seconds, table.c.request_class).limit(limit)
    with database.read() as connection:
        return [
            kind(**{name: row[name] for name in kind.__struct_fields__})
            for row in connection.execute(query).mappings()
        ]
