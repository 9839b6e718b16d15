"""The first tables: leaderships, plans, reasons, actions, load and outcome history, policy states, records, gaps.

Written out rather than taken from `controller.ledger.tables`: a migration must not change when the code does.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _bytewise(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _word(name: str, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, _bytewise(128), nullable=False, primary_key=key)


def _name(name: str, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, _bytewise(512), nullable=False, primary_key=key)


def _text(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=False)


def _count(name: str, key: bool = False, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=nullable, primary_key=key, autoincrement=False)


def _time(name: str, key: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Double, nullable=False, primary_key=key)


def _real(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Double, nullable=True)


def upgrade() -> None:
    """Create everything."""
    _create_decisions()
    _create_actuations()
    _create_history()
    _create_keepsakes()


def downgrade() -> None:
    """Remove everything."""
    for table in (
        "epochs",
        "plans",
        "reasons",
        "reason_refs",
        "actuations",
        "loads",
        "outcomes",
        "policy_states",
        "records",
        "gaps",
    ):
        op.drop_table(table)


def _create_decisions() -> None:
    op.create_table(
        "plans",
        *(_word("plan", key=True), _count("epoch"), _word("loop"), _count("tick"), _time("decided_seconds")),
        *(_name("scope"), _word("policy"), _real("objective"), _real("bound")),
        *(sa.Column("degraded", sa.Boolean, nullable=False), _count("units_used"), _real("took_seconds")),
        *(_text("evidence"), _word("record"), _count("actions"), _count("reasons")),
    )
    op.create_index("ix_plans_decided", "plans", ["decided_seconds"])
    op.create_index("ix_plans_loop", "plans", ["loop", "decided_seconds"])
    op.create_table(
        "reasons",
        *(_word("plan", key=True), _count("position", key=True), _word("loop"), _time("decided_seconds")),
        *(_word("code"), _word("verdict"), _word("subject_kind"), _name("subject_name"), _text("choice")),
        *(_real("need_value"), _real("have_value"), _real("limit_value"), _count("merged")),
        *(_text("sentence"), _text("detail")),
    )
    op.create_index(
        "ix_reasons_subject", "reasons", ["subject_kind", "subject_name", "loop", "decided_seconds"]
    )
    op.create_index("ix_reasons_decided", "reasons", ["decided_seconds"])
    op.create_table(
        "reason_refs",
        *(
            _word("plan", key=True),
            _count("position", key=True),
            _word("kind", key=True),
            _name("name", key=True),
        ),
        _time("decided_seconds"),
    )
    op.create_index("ix_reason_refs_object", "reason_refs", ["kind", "name", "decided_seconds"])
    op.create_index("ix_reason_refs_decided", "reason_refs", ["decided_seconds"])


def _create_actuations() -> None:
    op.create_table(
        "actuations",
        *(
            _word("action", key=True),
            _word("plan"),
            _word("kind"),
            _word("subject_kind"),
            _name("subject_name"),
        ),
        *(
            _count("reason", nullable=True),
            _text("payload"),
            _time("issued_seconds"),
            _real("deadline_seconds"),
        ),
        *(_word("outcome"), _word("code"), _text("message"), _real("finished_seconds"), _count("merged")),
    )
    op.create_index("ix_actuations_subject", "actuations", ["subject_kind", "subject_name", "issued_seconds"])
    op.create_index("ix_actuations_plan", "actuations", ["plan"])
    op.create_index("ix_actuations_issued", "actuations", ["issued_seconds"])


def _create_history() -> None:
    op.create_table(
        "loads",
        *(_name("service", key=True), _word("request_class", key=True), _time("at_seconds", key=True)),
        *(_time("window_seconds"), _time("requests_per_second")),
        *(_real("input_tokens_mean"), _real("output_tokens_mean"), _count("held_requests")),
        *(_time("rejected_per_second"), _text("histogram")),
    )
    op.create_index("ix_loads_at", "loads", ["at_seconds"])
    op.create_table(
        "outcomes",
        *(_name("service", key=True), _word("request_class", key=True), _time("at_seconds", key=True)),
        *(_time("window_seconds"), _count("served"), _count("rejected"), _count("lost"), _real("attainment")),
        *(_real("ttft_p50_seconds"), _real("ttft_p99_seconds"), _real("tpot_p99_seconds")),
        *(_count("ready_replicas"), _real("dollars_per_hour"), _text("detail")),
    )
    op.create_index("ix_outcomes_at", "outcomes", ["at_seconds"])


def _create_keepsakes() -> None:
    op.create_table(
        "epochs",
        *(_count("epoch", key=True), _name("identity"), _word("version")),
        *(_time("started_seconds"), _real("ended_seconds")),
    )
    op.create_table(
        "policy_states",
        *(_word("loop", key=True), _name("scope", key=True), _word("policy"), _count("schema_number")),
        *(_count("epoch"), _time("stored_seconds"), _text("state")),
    )
    op.create_table(
        "records",
        *(_word("plan", key=True), _time("at_seconds"), _count("raw_bytes"), _count("stored_bytes")),
        sa.Column("payload", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_records_at", "records", ["at_seconds"])
    op.create_table(
        "gaps",
        *(_time("from_seconds", key=True), _time("until_seconds", key=True), _word("cause", key=True)),
        _count("lost_rows"),
    )
