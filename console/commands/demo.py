"""`plimsoll demo`: run, show, write the report and the summary."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from pathlib import Path

from rich.console import Console

from console.controlplane.errors import ControlPlaneError
from console.demo.explaining import explain_all
from console.demo.live import LiveTable, print_summary
from console.demo.report import write_report
from console.demo.runner import Demo, DemoFailed
from console.demo.shipped import examples
from console.demo.summary import summarise, verdicts
from console.demo.trace import Trace, generate_trace, parse_trace, read_trace
from controller.resources.manifests import ManifestError, load
from simulator.traces.requests import TraceError


def run_demo(
    trace: Path | None,
    seed: int,
    out: Path,
    minutes: float,
    replication: int,
    output: str,
    cluster: str = "local",
) -> int:
    """Run; exit code 0 when every promise was kept, 1 when not, 2 for input that cannot be used."""
    console = Console(stderr=output == "json")
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    try:
        _clean(out)
        found = _trace(trace, seed, minutes, out)
        manifests = load(examples())
    except (TraceError, ManifestError, OSError) as error:
        console.print(f"[red]{error}[/red]")
        return 2
    _announce(console, found, seed, replication)
    with LiveTable(found.seconds, console) as live:
        demo = Demo(
            found,
            manifests,
            seed=seed,
            replication=replication,
            out=out,
            progress=live.update,
            cluster=cluster,
            say=lambda text: console.print(text, soft_wrap=True, highlight=False),
        )
        try:
            asyncio.run(demo.run())
        except (DemoFailed, ControlPlaneError) as error:
            console.print(f"[red]{error}[/red]")
            return 2
    return _tell(console, demo, out, output)


def _tell(console: Console, demo: Demo, out: Path, output: str) -> int:
    explain_all(demo.run_data, demo.cluster.operator)
    summary = summarise(demo)
    demo.run_data.summary = summary
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    (out / "decisions.log").write_text("\n".join(demo.log.lines) + "\n")
    records = out / "records"
    records.mkdir()
    for number, body in enumerate(demo.cluster.operator.recorder.latest):
        (records / f"{number:02d}.json").write_bytes(body)
    write_report(demo.run_data, out / "report.html")
    promises = verdicts(demo.run_data, summary)
    if output == "json":
        print(json.dumps(summary))
    else:
        print_summary(demo.run_data, console)
        for promise, kept in promises:
            console.print(
                f"  [green]kept[/green]    {promise}" if kept else f"  [red]BROKEN[/red]  {promise}"
            )
        console.print(f"\nreport: {out / 'report.html'}   numbers: {out / 'summary.json'}")
        console.print(f"ask why: plimsoll explain modelservice/shop/chat --ledger {out / 'ledger.db'}")
    return 0 if all(kept for _, kept in promises) else 1


def _clean(out: Path) -> None:
    """An earlier run's files go; nothing else in the folder is touched."""
    out.mkdir(parents=True, exist_ok=True)
    for name in (
        "ledger.db",
        "ledger.db-wal",
        "ledger.db-shm",
        "summary.json",
        "report.html",
        "decisions.log",
        "trace.csv",
    ):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "records", ignore_errors=True)


def _trace(path: Path | None, seed: int, minutes: float, out: Path) -> Trace:
    if path is not None:
        return read_trace(path)
    data = generate_trace(seed, minutes * 60.0)
    (out / "trace.csv").write_bytes(data)
    return parse_trace(data, "generated from the published statistics of the Azure 2023 conversation trace")


def _announce(console: Console, trace: Trace, seed: int, replication: int) -> None:
    console.print(
        f"[bold]{len(trace.requests)} requests[/bold] over {trace.seconds / 60:.0f} min, each sent {replication} times; "
        f"seed {seed}; trace: {trace.name}"
    )
    for fault in trace.malformed:
        console.print(f"  [yellow]line {fault.line}: {fault.why}; counted as malformed[/yellow]")
    if trace.out_of_order:
        console.print(
            f"  [yellow]{trace.out_of_order} lines go back in time; sorted by TIMESTAMP, none dropped[/yellow]"
        )
