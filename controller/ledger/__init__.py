"""The ledger: why everything was done, kept where a person can ask for it.

Plans, reasons, actions and what became of them, load history, policy states and replay records, in SQLite or
PostgreSQL. `Ledger` writes (never blocking, never raising), `LedgerReader` answers. Losing the ledger loses
history, never safety.
"""

from controller.ledger.faults import LedgerError, LedgerUnavailable
from controller.ledger.ledger import Ledger, Memory
from controller.ledger.queries import LedgerReader
from controller.ledger.retention import Retention
from controller.ledger.rows import (
    ActionId,
    ActuationEnd,
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
    json_text,
    plan_row,
    reason_row,
)
from controller.ledger.writer import LedgerState

__all__ = [
    "ActionId",
    "ActuationEnd",
    "ActuationRow",
    "EpochRow",
    "Explanation",
    "GapRow",
    "HistoryEntry",
    "Ledger",
    "LedgerError",
    "LedgerReader",
    "LedgerState",
    "LedgerUnavailable",
    "LoadRow",
    "Memory",
    "OutcomeRow",
    "PlanId",
    "PlanRow",
    "PolicyStateRow",
    "ReasonRow",
    "Retention",
    "StoredReason",
    "json_text",
    "plan_row",
    "reason_row",
]
