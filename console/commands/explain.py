"""`plimsoll explain KIND/NAME`: everything the ledger knows about an object's latest decision."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.codec import from_json
from cluster.reasons import Reason, render_alternative, render_remedy
from console.ledgers import reading
from controller.ledger.faults import LedgerError
from controller.ledger.queries import LedgerReader
from controller.ledger.rows import Explanation, StoredReason
from controller.resources.kinds import KINDS

NAMES = {
    name.lower(): kind.resource.kind
    for kind in KINDS
    for name in (kind.resource.kind, kind.resource.plural, *kind.short_names)
}
NAMES |= {
    "node": "AcceleratorNode",
    "service": "ModelService",
    "job": "TrainingJob",
    "domain": "PowerDomain",
    "replica": "Replica",
    "pool": "Pool",
}


def run_explain(subject: str, ledger: str, output: str) -> int:
    """Explain; exit code 0, 1 when nothing was ever decided about it, 2 for a question that cannot be asked."""
    errors = Console(stderr=True)
    kind, _, name = subject.partition("/")
    known = NAMES.get(kind.lower())
    if known is None or not name:
        errors.print(
            f"[red]{escape(subject)!s}: write KIND/NAME, e.g. modelservice/shop/chat; kinds: {', '.join(sorted(NAMES))}[/red]"
        )
        return 2
    try:
        with reading(ledger) as reader:
            found = reader.latest_decision(known, name) or _elsewhere(reader, known, name)
    except LedgerError as error:
        errors.print(f"[red]{escape(str(error))}[/red]")
        return 2
    if found is None:
        errors.print(
            f"[yellow]Nothing was decided about {known} {escape(name)} yet. Names are namespace/name for services and jobs.[/yellow]"
        )
        return 1
    if output == "json":
        print(msgspec.json.encode(found).decode())
    else:
        _show(Console(), found)
    return 0


def _elsewhere(reader: LedgerReader, kind: str, name: str) -> Explanation | None:
    """The same name in `default`, for those who leave the namespace out."""
    return None if "/" in name else reader.latest_decision(kind, f"default/{name}")


def reason_of(stored: StoredReason) -> Reason | None:
    """The whole reason behind a row, if this version can read it."""
    try:
        return from_json(stored.row.detail, Reason)
    except msgspec.MsgspecError:
        return None


def newest_of(mentions: Sequence[StoredReason]) -> list[StoredReason]:
    """Each other subject's newest word under each code, in the order given: newest first, as the ledger has them."""
    found: dict[tuple[str, str, str], StoredReason] = {}
    for stored in mentions:
        found.setdefault((stored.row.subject_kind, stored.row.subject_name, stored.row.code), stored)
    return list(found.values())


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")


def _show(console: Console, found: Explanation) -> None:
    console.rule(f"[bold]{found.kind} {escape(found.name)}[/bold]")
    console.print(f"latest decision {found.plan.id} at {_when(found.plan.decided_seconds)} UTC")
    for stored in found.reasons:
        _show_reason(console, stored)
    if found.actuations:
        console.print(_actions(found))
    if found.mentions:
        console.print("\n[bold]Others that touched it[/bold]")
        for stored in newest_of(found.mentions):
            console.print(
                f"  {stored.row.subject_kind} {escape(stored.row.subject_name)}: {escape(stored.row.sentence)}"
            )
    if len(found.history) > 1:
        console.print("\n[bold]Before that[/bold]")
        for entry in found.history[1:12]:
            console.print(
                f"  {_when(entry.last_seconds)}  x{entry.times}  {escape(entry.latest.row.sentence)}"
            )


def _show_reason(console: Console, stored: StoredReason) -> None:
    colour = {"chosen": "green", "kept": "green", "blocked": "red", "rejected": "red", "shed": "red"}.get(
        stored.row.verdict, "yellow"
    )
    console.print(
        f"\n[{colour}]{stored.row.code}[/{colour}] ({stored.plan.loop}, {_when(stored.decided_seconds)})"
    )
    console.print(f"  {escape(stored.row.sentence)}")
    reason = reason_of(stored)
    if reason is None:
        return
    if reason.against:
        table = Table("not chosen", show_header=True, box=None, padding=(0, 2))
        for alternative in reason.against:
            table.add_row(escape(render_alternative(alternative)))
        console.print(table)
    if reason.remedy is not None:
        console.print(f"  [cyan]what would help:[/cyan] {escape(render_remedy(reason.remedy))}")


def _actions(found: Explanation) -> Any:
    table = Table("when", "action", "outcome", "why", title="Actions", box=None, padding=(0, 2))
    for row in found.actuations[:15]:
        table.add_row(
            _when(row.issued_seconds),
            row.kind,
            row.outcome + (f" {row.code}" if row.code else ""),
            escape(row.message),
        )
    return table
