"""`plimsoll simulate -f scenario.yaml`: runs a scenario with seeds and sweeps, and reports with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from console.simulating.page import cell, page, rows_of
from console.simulating.plots import short
from simulator.experiments.on_ray import on_ray
from simulator.experiments.outcomes import Outcome, OutcomeFolder
from simulator.experiments.processes import on_processes
from simulator.experiments.runs import Run, SweepError, parse_sweep, runs_of
from simulator.experiments.scenario import load
from simulator.experiments.simulating import TARGET, promise_of, sources, verify
from simulator.experiments.statistics import by_point
from simulator.experiments.tables import write_decisions, write_table
from simulator.world.spec import ScenarioError

LINES_TOLD = 5
"""Malformed lines of a trace that the terminal shows; the report has more."""
SIDE_BY_SIDE = 3
"""Points that fit beside each other in a terminal of 80 columns."""


class SimulateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line said."""

    scenario: Path
    seeds: int = 1
    first_seed: int = 1
    sweep: tuple[str, ...] = ()
    workers: int = 1
    ray: str = ""
    out: Path = Path("out")
    strict: bool = False
    parquet: bool = False
    output: str = "table"


def run_simulate(options: SimulateOptions) -> int:
    """Run it all; exit code 0, 1 when a run failed or is partial, 2 for what is refused before any run."""
    errors = Console(stderr=True)
    try:
        given, runs = _prepared(options)
        options.out.mkdir(parents=True, exist_ok=True)
        outcomes = _carried_out(options, given, runs, errors)
        _write(options, given, outcomes)
    except (ScenarioError, SweepError) as error:
        errors.print(f"[red]{escape(str(options.scenario))}: {escape(str(error))}[/red]")
        return 2
    except (ConnectionError, ValueError) as error:
        errors.print(f"[red]{escape(str(error))}[/red]")
        return 2
    except OSError as error:
        errors.print(
            f"[red]{escape(str(options.out))}: {error.strerror or error}. Give a folder to write to.[/red]"
        )
        return 2
    _show(options, given, outcomes)
    whole = all(not each.error and each.figures.get("complete", 1.0) for each in outcomes)
    return 0 if whole else 1


def _prepared(options: SimulateOptions) -> tuple[dict[str, Any], list[Run]]:
    """The scenario and its runs, each point judged before the first of them begins."""
    given = load(options.scenario)
    if (
        options.strict
        and isinstance(given.get("traffic"), dict)
        and isinstance(given["traffic"].get("trace"), dict)
    ):
        given["traffic"]["trace"]["strict"] = True
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    runs = runs_of(parse_sweep(options.sweep), seeds)
    for run in {run.settings: run for run in runs}.values():
        try:
            verify(given, run)
        except ScenarioError as error:
            raise ScenarioError(
                error.path, f"{str(error).removeprefix(error.path).strip()} ({run.point})"
            ) from None
    return given, runs


def _carried_out(
    options: SimulateOptions, given: dict[str, Any], runs: Sequence[Run], errors: Console
) -> list[Outcome]:
    scenario = msgspec.json.encode(given)
    folder = OutcomeFolder(options.out / "runs", scenario)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        task = progress.add_task("simulating", total=len(runs))
        done: Callable[[Outcome], None] = lambda _: progress.advance(task)  # noqa: E731
        if options.ray:
            return on_ray(options.ray, TARGET, scenario, runs, folder, done)
        return on_processes(TARGET, scenario, runs, folder, options.workers, done)


def _write(options: SimulateOptions, given: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    write_table(options.out / ("results.parquet" if options.parquet else "results.csv"), outcomes)
    if any(outcome.log for outcome in outcomes):
        write_decisions(options.out / "decisions.csv", outcomes)
    seconds = promise_of(given)
    html = page(given.get("name", ""), given, outcomes, seconds, command_of(options), sources(given))
    (options.out / "report.html").write_text(html, encoding="utf-8")


def command_of(options: SimulateOptions) -> str:
    """The command line that does the same again."""
    words = [
        f"plimsoll simulate -f {options.scenario} --seeds {options.seeds} --first-seed {options.first_seed}"
    ]
    words += [f"--sweep {text}" for text in options.sweep]
    return " ".join(words + (["--strict"] if options.strict else []))


def _show(options: SimulateOptions, given: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    estimates = by_point(outcomes)
    if options.output == "json":
        found = {
            point: {name: [each.mean, each.half_width] for name, each in figures.items()}
            for point, figures in estimates.items()
        }
        failed = [{"point": e.run.point, "seed": e.run.seed, "error": e.error} for e in outcomes if e.error]
        print(msgspec.json.encode({"points": found, "failed": failed}).decode())
        return
    console = Console()
    named = list(short(estimates).items())
    for start in range(0, len(named), SIDE_BY_SIDE):
        part = named[start : start + SIDE_BY_SIDE]
        table = Table("", *(escape(label) for _, label in part), title=given.get("name") or None)
        for name, title, factor, unit in rows_of(estimates):
            table.add_row(title, *(cell(estimates[point].get(name), factor, unit) for point, _ in part))
        console.print(table)
    for each in outcomes:
        if each.error:
            console.print(f"[red]{escape(each.run.point)}, seed {each.run.seed}: {escape(each.error)}[/red]")
        elif not each.figures.get("complete", 1.0):
            console.print(
                f"[yellow]{escape(each.run.point)}, seed {each.run.seed}: partial, the event budget was spent[/yellow]"
            )
    left_out = list(dict.fromkeys(note for each in outcomes for note in each.notes))
    for note in left_out[:LINES_TOLD]:
        console.print(f"[yellow]left out: {escape(note)}[/yellow]")
    if len(left_out) > LINES_TOLD:
        console.print(f"[yellow]{len(left_out) - LINES_TOLD} more are in the report[/yellow]")
    console.print(f"report: {options.out / 'report.html'}")
