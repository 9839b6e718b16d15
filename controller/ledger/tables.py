"""The ledger's tables (SQLAlchemy Core), the same on SQLite and PostgreSQL.

Keys are the names of plans and actions, so that a batch whose commit got no answer can be written again without
doubling a row. JSON is kept as text: the ledger searches by its numeric and key columns only. Times are UTC
seconds in double precision. Names are compared by their bytes, on PostgreSQL by its collation "C": the order is the
same on both, and a newer language library on the server cannot spoil an index. The one index that carries `explain`
is `reasons (subject, loop, decided_seconds)`. Changing anything here needs a migration; a test compares both.
"""

from __future__ import annotations

import sqlalchemy as sa

NAME_LENGTH = 512
WORD_LENGTH = 128

metadata = sa.MetaData()


def _bytewise(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _word(name: str, **options: object) -> sa.Column[str]:
    return sa.Column(name, _bytewise(WORD_LENGTH), nullable=False, **options)  # type: ignore[arg-type]


def _name(name: str, **options: object) -> sa.Column[str]:
    return sa.Column(name, _bytewise(NAME_LENGTH), nullable=False, **options)  # type: ignore[arg-type]


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _count(name: str, **options: object) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, **options)  # type: ignore[arg-type]


def _real(name: str, nullable: bool = True) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=nullable)


epochs = sa.Table(
    "epochs",
    metadata,
    _count("epoch", primary_key=True, autoincrement=False),
    _name("identity"),
    _word("version"),
    _real("started_seconds", nullable=False),
    _real("ended_seconds"),
)

plans = sa.Table(
    "plans",
    metadata,
    _word("plan", primary_key=True),
    _count("epoch"),
    _word("loop"),
    _count("tick"),
    _real("decided_seconds", nullable=False),
    _name("scope"),
    _word("policy"),
    _real("objective"),
    _real("bound"),
    sa.Column("degraded", sa.Boolean, nullable=False),
    _count("units_used"),
    _real("took_seconds"),
    _text("evidence"),
    _word("record"),
    _count("actions"),
    _count("reasons"),
    sa.Index("ix_plans_decided", "decided_seconds"),
    sa.Index("ix_plans_loop", "loop", "decided_seconds"),
)

reasons = sa.Table(
    "reasons",
    metadata,
    _word("plan", primary_key=True),
    _count("position", primary_key=True, autoincrement=False),
    _word("loop"),
    _real("decided_seconds", nullable=False),
    _word("code"),
    _word("verdict"),
    _word("subject_kind"),
    _name("subject_name"),
    _text("choice"),
    _real("need_value"),
    _real("have_value"),
    _real("limit_value"),
    _count("merged"),
    _text("sentence"),
    _text("detail"),
    sa.Index("ix_reasons_subject", "subject_kind", "subject_name", "loop", "decided_seconds"),
    sa.Index("ix_reasons_decided", "decided_seconds"),
)

refs = sa.Table(
    "reason_refs",
    metadata,
    _word("plan", primary_key=True),
    _count("position", primary_key=True, autoincrement=False),
    _word("kind", primary_key=True),
    _name("name", primary_key=True),
    _real("decided_seconds", nullable=False),
    sa.Index("ix_reason_refs_object", "kind", "name", "decided_seconds"),
    sa.Index("ix_reason_refs_decided", "decided_seconds"),
)

actuations = sa.Table(
    "actuations",
    metadata,
    _word("action", primary_key=True),
    _word("plan"),
    _word("kind"),
    _word("subject_kind"),
    _name("subject_name"),
    sa.Column("reason", sa.BigInteger),
    _text("payload"),
    _real("issued_seconds", nullable=False),
    _real("deadline_seconds"),
    _word("outcome"),
    _word("code"),
    _text("message"),
    _real("finished_seconds"),
    _count("merged"),
    sa.Index("ix_actuations_subject", "subject_kind", "subject_name", "issued_seconds"),
    sa.Index("ix_actuations_plan", "plan"),
    sa.Index("ix_actuations_issued", "issued_seconds"),
)

loads = sa.Table(
    "loads",
    metadata,
    _name("service", primary_key=True),
    _word("request_class", primary_key=True),
    sa.Column("at_seconds", sa.Double, primary_key=True),
    _real("window_seconds", nullable=False),
    _real("requests_per_second", nullable=False),
    _real("input_tokens_mean"),
    _real("output_tokens_mean"),
    _count("held_requests"),
    _real("rejected_per_second", nullable=False),
    _text("histogram"),
    sa.Index("ix_loads_at", "at_seconds"),
)

outcomes = sa.Table(
    "outcomes",
    metadata,
    _name("service", primary_key=True),
    _word("request_class", primary_key=True),
    sa.Column("at_seconds", sa.Double, primary_key=True),
    _real("window_seconds", nullable=False),
    _count("served"),
    _count("rejected"),
    _count("lost"),
    _real("attainment"),
    _real("ttft_p50_seconds"),
    _real("ttft_p99_seconds"),
    _real("tpot_p99_seconds"),
    _count("ready_replicas"),
    _real("dollars_per_hour"),
    _text("detail"),
    sa.Index("ix_outcomes_at", "at_seconds"),
)

policy_states = sa.Table(
    "policy_states",
    metadata,
    _word("loop", primary_key=True),
    _name("scope", primary_key=True),
    _word("policy"),
    _count("schema_number"),
    _count("epoch"),
    _real("stored_seconds", nullable=False),
    _text("state"),
)

records = sa.Table(
    "records",
    metadata,
    _word("plan", primary_key=True),
    _real("at_seconds", nullable=False),
    _count("raw_bytes"),
    _count("stored_bytes"),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Index("ix_records_at", "at_seconds"),
)

gaps = sa.Table(
    "gaps",
    metadata,
    sa.Column("from_seconds", sa.Double, primary_key=True),
    sa.Column("until_seconds", sa.Double, primary_key=True),
    _word("cause", primary_key=True),
    _count("lost_rows"),
)
