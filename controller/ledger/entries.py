"""From rows to statements: what one write to the ledger consists of, and how a batch of them is executed.

An entry is one caller's write (a plan with all its reasons is one) and is kept or given up as a whole. A batch is
executed statement by statement in one transaction: first every insert, then the updates in the order they came.
That keeps each row's own order, because nothing updates a row before it was inserted.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from controller.ledger import rows, tables

Values = dict[str, Any]

MAX_TEXT_BYTES = 1024 * 1024
MAX_STATE_BYTES = 16 * 1024 * 1024
_ROW_OVERHEAD_BYTES = 200


class Write(NamedTuple):
    """One row for one statement: `statement` is a key of `STATEMENTS`."""

    statement: str
    values: Values


class Entry:
    """One write of a caller: its rows, its size, and the time of the history it belongs to."""

    __slots__ = ("at_seconds", "key", "size_bytes", "writes")

    def __init__(self, writes: Iterable[Write], at_seconds: float, key: tuple[str, ...] = ()) -> None:
        self.writes = [
            Write(write.statement, {k: clean(k, v) for k, v in write.values.items()}) for write in writes
        ]
        self.at_seconds = at_seconds
        self.key = key
        self.size_bytes = sum(_size(write.values) for write in self.writes)

    @property
    def rows(self) -> int:
        """How many rows it writes."""
        return len(self.writes)

    def prepare(self) -> None:
        """Do what should not be done on the caller's thread: compress a replay record."""
        for write in self.writes:
            if write.statement == "records" and not write.values["stored_bytes"]:
                packed = zlib.compress(write.values["payload"], 6)
                write.values.update(payload=packed, stored_bytes=len(packed))


def clean(column: str, value: object) -> Any:
    """A value that both databases take: bounded names and texts, no NUL, no lone surrogate, no NaN.

    Bounds are of UTF-8 bytes: PostgreSQL keeps 2.7 kB of a row in an index, and two names of 512 bytes fit.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if not isinstance(value, str):
        return value
    bound = _BOUNDS.get(column, tables.WORD_LENGTH)
    if value.isascii() and len(value) <= bound and "\x00" not in value:
        return value
    text = value.encode("utf-8", "replace").replace(b"\x00", "\ufffd".encode())
    if len(text) <= bound:
        return text.decode()
    if column in _JSON_COLUMNS:
        return f'{{"clipped_bytes":{len(text)}}}'
    if bound == MAX_TEXT_BYTES:
        return text[: bound - 3].decode(errors="ignore") + "…"
    # A name stays distinct when it is cut, and reading cuts it the same way.
    digest = hashlib.sha256(text).hexdigest()[:16]
    return f"{text[: bound - 17].decode(errors='ignore')}~{digest}"


_JSON_COLUMNS = frozenset({"evidence", "detail", "payload", "histogram"})
_BOUNDS = {
    column.name: column.type.length or MAX_TEXT_BYTES
    for table in tables.metadata.sorted_tables
    for column in table.columns
    if isinstance(column.type, sa.String)
} | {"state": MAX_STATE_BYTES}


def plan_entry(plan: rows.PlanRow, reasons: Iterable[rows.ReasonRow]) -> Entry:
    """A plan with its reasons and the objects they speak of."""
    name = str(plan.id)
    values = _fields(plan, id=None)
    values.update(plan=name, epoch=plan.id.epoch, loop=plan.id.loop, tick=plan.id.tick)
    writes = [Write("plans", values)]
    for position, reason in enumerate(reasons):
        writes.append(Write("reasons", _reason_values(plan, name, position, reason)))
        writes.extend(
            Write("reason_refs", _ref_values(plan, name, position, kind, subject))
            for kind, subject in sorted(set(reason.refs))
        )
    return Entry(writes, plan.decided_seconds)


def actuation_entry(actuations: Iterable[rows.ActuationRow], at_seconds: float) -> Entry:
    """Actions as issued or dropped."""
    return Entry((Write("actuations", _actuation_values(row)) for row in actuations), at_seconds)


def end_entry(end: rows.ActuationEnd) -> Entry:
    """How an action ended."""
    values = {
        "key_action": str(end.id),
        "outcome": end.outcome,
        "code": end.code,
        "message": end.message,
        "finished_seconds": end.finished_seconds,
    }
    return Entry([Write("actuation_ends", values)], end.finished_seconds)


def load_entry(row: rows.LoadRow) -> Entry:
    """Load of one class."""
    return Entry([Write("loads", _fields(row))], row.at_seconds)


def outcome_entry(row: rows.OutcomeRow) -> Entry:
    """What one class got."""
    return Entry([Write("outcomes", _fields(row))], row.at_seconds)


def state_entry(row: rows.PolicyStateRow) -> Entry:
    """A policy's state; only the last of a loop and scope matters. Raises ValueError when it is too large to keep."""
    if len(row.state) > MAX_STATE_BYTES:
        raise ValueError(
            f"the state of {row.loop} for {row.scope!r} has {len(row.state)} bytes, more than {MAX_STATE_BYTES}"
        )
    values = _fields(row, schema="schema_number")
    return Entry([Write("policy_states", values)], row.stored_seconds, ("state", row.loop, row.scope))


def epoch_entry(row: rows.EpochRow) -> Entry:
    """A leadership, as begun or as ended."""
    return Entry([Write("epochs", _fields(row))], row.started_seconds, ("epoch", str(row.epoch)))


def record_entry(plan: rows.PlanId, at_seconds: float, payload: bytes) -> Entry:
    """A replay record; compressed when it is written."""
    values = {
        "plan": str(plan),
        "at_seconds": at_seconds,
        "raw_bytes": len(payload),
        "stored_bytes": 0,
        "payload": payload,
    }
    return Entry([Write("records", values)], at_seconds)


def gap_entry(row: rows.GapRow) -> Entry:
    """A hole in the history."""
    values = {
        "from_seconds": row.from_seconds,
        "until_seconds": row.until_seconds,
        "lost_rows": row.rows,
        "cause": row.cause,
    }
    return Entry([Write("gaps", values)], row.until_seconds)


def execute(connection: sa.Connection, entries: Iterable[Entry]) -> int:
    """Write the entries inside the caller's transaction; the number of rows sent."""
    groups: dict[str, list[Values]] = {}
    for entry in entries:
        for write in entry.writes:
            groups.setdefault(write.statement, []).append(write.values)
    for key, build in STATEMENTS.items():
        if key in groups:
            # Rows that replace others in the order of their keys: two leaders never wait for each other in a ring.
            if key in _REPLACING:
                names = [column.name for column in _REPLACING[key].primary_key.columns]
                groups[key].sort(key=lambda values: [values[name] for name in names])
            connection.execute(build(connection.dialect.name), groups[key])
    return sum(map(len, groups.values()))


def _fields(row: msgspec.Struct, **renamed: str | None) -> Values:
    return {
        renamed.get(name, name) or name: getattr(row, name)
        for name in row.__struct_fields__
        if renamed.get(name, name) is not None
    }


def _reason_values(plan: rows.PlanRow, name: str, position: int, reason: rows.ReasonRow) -> Values:
    return {
        "plan": name,
        "position": position,
        "loop": plan.id.loop,
        "decided_seconds": plan.decided_seconds,
        "code": reason.code,
        "verdict": reason.verdict,
        "subject_kind": reason.subject_kind,
        "subject_name": reason.subject_name,
        "choice": reason.choice,
        "need_value": reason.need,
        "have_value": reason.have,
        "limit_value": reason.limit,
        "merged": reason.count,
        "sentence": reason.sentence,
        "detail": reason.detail,
    }


def _ref_values(plan: rows.PlanRow, name: str, position: int, kind: str, subject: str) -> Values:
    return {
        "plan": name,
        "position": position,
        "kind": kind,
        "name": subject,
        "decided_seconds": plan.decided_seconds,
    }


def _actuation_values(row: rows.ActuationRow) -> Values:
    values = _fields(row, id=None, count="merged")
    values.update(action=str(row.id), plan=str(row.id.plan))
    return values


def _size(values: Mapping[str, object]) -> int:
    texts = sum(len(value) for value in values.values() if isinstance(value, (str, bytes)))
    return texts + _ROW_OVERHEAD_BYTES


def _insert(table: sa.Table, dialect: str) -> Any:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def _add(table: sa.Table) -> Callable[[str], sa.Executable]:
    """Insert; a row that is there already stays, so that a batch may be written again."""
    return lambda dialect: _insert(table, dialect).on_conflict_do_nothing()


def _put(table: sa.Table) -> Callable[[str], sa.Executable]:
    """Insert or replace; a row of a newer epoch is not replaced by an older leader."""

    def build(dialect: str) -> sa.Executable:
        insert = _insert(table, dialect)
        keys = list(table.primary_key.columns)
        names = {key.name for key in keys}
        changed = {
            column.name: insert.excluded[column.name] for column in table.columns if column.name not in names
        }
        return insert.on_conflict_do_update(  # type: ignore[no-any-return]
            index_elements=keys, set_=changed, where=table.c.epoch <= insert.excluded.epoch
        )

    return build


def _join_gaps(dialect: str) -> sa.Executable:
    """Insert; a hole of the same span and cause grows."""
    insert = _insert(tables.gaps, dialect)
    joined = {"lost_rows": tables.gaps.c.lost_rows + insert.excluded.lost_rows}
    keys = list(tables.gaps.primary_key.columns)
    return insert.on_conflict_do_update(index_elements=keys, set_=joined)  # type: ignore[no-any-return]


def _end(_: str) -> sa.Executable:
    return sa.update(tables.actuations).where(tables.actuations.c.action == sa.bindparam("key_action"))


_REPLACING = {"epochs": tables.epochs, "policy_states": tables.policy_states}

# In the order in which a batch executes them.
STATEMENTS: dict[str, Callable[[str], sa.Executable]] = {
    "epochs": _put(tables.epochs),
    "plans": _add(tables.plans),
    "reasons": _add(tables.reasons),
    "reason_refs": _add(tables.refs),
    "actuations": _add(tables.actuations),
    "loads": _add(tables.loads),
    "outcomes": _add(tables.outcomes),
    "records": _add(tables.records),
    "gaps": _join_gaps,
    "actuation_ends": _end,
    "policy_states": _put(tables.policy_states),
}
