"""`plimsoll plan --snapshot FILE`: replay a record and say whether it decides the same."""

from __future__ import annotations

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from cluster.checks import subject_of
from cluster.codec import to_builtins
from cluster.reasons import sentence
from controller.records import Record, differences, read_record, replay, stages_of
from policies.planner import PlannerRun


def run_plan(path: Path, output: str) -> int:
    """Replay; exit code 0 when the plan is the same, 1 when it differs, 2 when the file cannot be read."""
    console = Console(stderr=True)
    try:
        record = read_record(path.read_bytes())
    except OSError as error:
        console.print(f"[red]{path}: {error.strerror or error}. Give the path of a record.[/red]")
        return 2
    except msgspec.MsgspecError as error:
        console.print(
            f"[red]{path} is no replay record: {error}. Records are written by the operator and the demo.[/red]"
        )
        return 2
    run = replay(record)
    found = differences(record, run)
    if output == "json":
        body = {"same": not found, "differences": found, "stages": to_builtins(stages_of(run))}
        print(msgspec.json.encode(body).decode())
    else:
        _show(Console(), record, run, found)
    return 1 if found else 0


def _show(console: Console, record: Record, run: PlannerRun, found: list[str]) -> None:
    console.print(
        f"epoch {record.epoch}, tick {record.tick}, seed {record.seed}: {len(record.snapshot.nodes)} nodes, "
        f"{len(record.snapshot.services)} services, {len(record.snapshot.jobs)} jobs"
    )
    table = Table("stage", "policy", "action", "about", "why", title="Plan", show_lines=False)
    for staged in run.stages:
        for action in staged.actions:
            reason = staged.plan.reasons[action.reason]
            table.add_row(staged.stage, staged.policy, action.kind, str(subject_of(action)), sentence(reason))
    console.print(table)
    if found:
        for line in found:
            console.print(f"[red]{line}[/red]")
    elif record.stages:
        console.print("[green]The same plan as recorded, byte for byte.[/green]")
