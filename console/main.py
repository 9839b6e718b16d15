"""`plimsoll`: one command, a subcommand a role. Heavy parts are imported only by the subcommand that needs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from console import object_commands, profile_commands, role_commands
from console.options import LEDGER, VERSION, LedgerUrl, Output

app = typer.Typer(
    name="plimsoll",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_show_locals=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"plimsoll {VERSION}")
        raise typer.Exit


@app.callback()
def plimsoll(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Loads a GPU cluster exactly to its Plimsoll line: latency, memory, network, power and money.

    Start with `plimsoll demo`. `plimsoll COMMAND --help` teaches each command.
    """
    del version  # its callback has acted on it


@app.command(rich_help_panel="Look and learn")
def demo(
    trace: Annotated[
        Path | None, typer.Option(help="CSV with TIMESTAMP,ContextTokens,GeneratedTokens.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random; logged.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for report.html, summary.json and the ledger.")] = Path(
        "out"
    ),
    minutes: Annotated[float, typer.Option(help="Simulated length of a generated trace.")] = 60.0,
    replication: Annotated[
        int, typer.Option(help="How often each line of the trace is sent.", min=1, max=20)
    ] = 1,
    cluster: Annotated[
        Literal["local", "kube"],
        typer.Option(
            help="Where objects are kept: in this process, or by a real control plane started for it."
        ),
    ] = "local",
    output: Output = "table",
) -> None:
    """One hour of a mixed cluster in about a minute: serving, training, power, a failing node, all explained."""
    from console.commands.demo import run_demo

    _exit(run_demo(trace, seed, out, minutes, replication, output, cluster))


@app.command(rich_help_panel="Look and learn")
def explain(
    subject: Annotated[
        str, typer.Argument(metavar="KIND/NAME", help="e.g. modelservice/shop/chat or pdom/row-a")
    ],
    ledger: LedgerUrl = LEDGER,
    output: Output = "table",
) -> None:
    """Why is it so: the decision with its numbers, the runner-up and its cost, what would cure it."""
    from console.commands.explain import run_explain

    _exit(run_explain(subject, ledger, output))


@app.command(rich_help_panel="Look and learn")
def plan(
    snapshot: Annotated[Path, typer.Option(help="A replay record, as the demo writes them to OUT/records.")],
    output: Output = "table",
) -> None:
    """Decide again from a record alone, and compare with what was decided then."""
    from console.commands.plan import run_plan

    _exit(run_plan(snapshot, output))


@app.command(rich_help_panel="Look and learn")
def simulate(  # noqa: PLR0913, PLR0917 - the options of one command
    scenario: Annotated[Path, typer.Option("-f", "--file", help="Scenario in YAML; see docs/scenarios.")],
    seeds: Annotated[int, typer.Option(help="How many seeds each point runs with.", min=1)] = 1,
    first_seed: Annotated[int, typer.Option(help="The first of them.")] = 1,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=A,B,C", help="Run with each value at a dotted path; may be given again."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes on this machine.", min=1)] = 1,
    ray: Annotated[str, typer.Option(metavar="ADDRESS", help="Run on this Ray cluster instead.")] = "",
    out: Annotated[Path, typer.Option(help="Folder for report.html, results and finished runs.")] = Path(
        "out"
    ),
    strict: Annotated[bool, typer.Option(help="Stop at the first malformed line of a trace.")] = False,
    parquet: Annotated[bool, typer.Option(help="Write results as Parquet instead of CSV.")] = False,
    output: Output = "table",
) -> None:
    """Run an experiment in the simulated cluster: seeds, sweeps, intervals and a report."""
    from console.commands.simulate import SimulateOptions, run_simulate

    options = SimulateOptions(
        scenario=scenario, seeds=seeds, first_seed=first_seed, sweep=tuple(sweep or ()), workers=workers, ray=ray,
        out=out, strict=strict, parquet=parquet, output=output,
    )  # fmt: skip
    _exit(run_simulate(options))


@app.command(rich_help_panel="Look and learn")
def snapshot(
    out: Annotated[
        Path | None, typer.Option(help="File to write; without it, what was kept is listed.")
    ] = None,
    plan: Annotated[
        str, typer.Option(metavar="EPOCH/LOOP/TICK", help="Which one; the newest unless given.")
    ] = "",
    ledger: LedgerUrl = LEDGER,
) -> None:
    """Capture the cluster as the planner saw it, to decide on it again or to ask what would be if."""
    from console.commands.snapshot import run_snapshot

    _exit(run_snapshot(ledger, plan, out))


def _exit(code: int) -> None:
    if code:
        raise typer.Exit(code)


role_commands.register(app)
object_commands.register(app)
app.add_typer(profile_commands.app, rich_help_panel="Look and learn")


def main() -> None:
    """Entry point of the `plimsoll` script."""
    app()


Command = Callable[..., None]

if __name__ == "__main__":
    main()
