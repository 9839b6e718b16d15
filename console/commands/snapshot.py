"""`plimsoll snapshot`: the cluster as the planner saw it, out of the ledger into a file that replays and simulates."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape

from console.ledgers import reading
from controller.ledger.faults import LedgerError
from controller.ledger.rows import PlanId
from controller.records import Record, read_record

LISTED = 100


def run_snapshot(ledger: str, plan: str, out: Path | None) -> int:
    """List what was kept (no `out`), or write one record, the newest unless `plan` names it.

    Exit code 0, 1 when there is none, 2 for a question that cannot be asked or a file that cannot be written.
    """
    errors = Console(stderr=True)
    try:
        with reading(ledger) as reader:
            names = [str(each) for each in reader.records(LISTED)]
            if out is None:
                return _list(names, ledger, errors)
            wanted = plan or (names[0] if names else "")
            body = reader.record(PlanId.parse(wanted)) if wanted else None
    except (LedgerError, ValueError) as error:
        errors.print(f"[red]{escape(str(error))}[/red]")
        return 2
    if body is None:
        errors.print(
            f"[yellow]No record {escape(wanted) or 'at all'} in the ledger. The operator keeps one of each planner run "
            "that did something; `plimsoll snapshot` without --out lists them.[/yellow]"
        )
        return 1
    return _write(body, out, errors)


def _list(names: list[str], ledger: str, errors: Console) -> int:
    if not names:
        errors.print(f"[yellow]{escape(ledger)}: no record was kept yet.[/yellow]")
        return 1
    for name in names:
        print(name)
    return 0


def _write(body: bytes, out: Path, errors: Console) -> int:
    try:
        record = read_record(body)
        out.write_bytes(body)
    except msgspec.MsgspecError as error:
        errors.print(f"[red]The record is of another version: {escape(str(error))}.[/red]")
        return 2
    except OSError as error:
        errors.print(
            f"[red]{escape(str(out))}: {error.strerror or error}. Give a path that can be written.[/red]"
        )
        return 2
    errors.print(_told(record, out, len(body)))
    return 0


def _told(record: Record, out: Path, size: int) -> str:
    at = datetime.fromtimestamp(record.now_seconds, UTC)
    seen = record.snapshot
    return (
        f"{escape(str(out))}: {size:,} bytes, {at:%Y-%m-%d %H:%M:%S} UTC, {len(seen.nodes)} nodes, "
        f"{len(seen.services)} services, {len(seen.jobs)} jobs. It has the names of your nodes and objects and no secret; "
        f"`plimsoll plan --snapshot {escape(str(out))}` decides on it again."
    )
