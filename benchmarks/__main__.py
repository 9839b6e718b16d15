"""`python -m benchmarks NAME [--data DIR] [--seed N] [--runs N] [--plant DEFECT]`: a table for people, then one JSON line last.

`python -m benchmarks list` names them, `python -m benchmarks report` runs all and writes docs/benchmarks.md.
Exit status: 0 measured (whether or not every goal is met: a figure is a figure), 2 could not run.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import cast

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.base import Arguments, Benchmark, BenchmarkError, Result

BENCHMARKS: dict[str, tuple[str, str]] = {
    "hub": (
        "benchmarks.hub",
        "1,000 agents over mutual TLS on one hub: command latency, CPU, memory, reconnect",
    ),
    "decide": ("benchmarks.decide", "planner on 1,000 nodes x 8 GPUs, 100 services, 50 jobs"),
    "place": (
        "benchmarks.place",
        "3,000 replicas onto 1,000 nodes of a real control plane, beside the stock scheduler",
    ),
    "failover": (
        "benchmarks.failover",
        "two operators under load on a real control plane: the leader killed, stopped, paused",
    ),
    "kube-sync": (
        "benchmarks.kube_sync",
        "cache of 5,000 nodes and 50,000 pods, beside the official client's informer",
    ),
    "kube-faults": (
        "benchmarks.kube_faults",
        "cache of the API server's objects under random faults: must end equal to the server, always",
    ),
    "manners": (
        "benchmarks.manners",
        "requests to the API server: idle, in a rollout, under a permanent 403, under a storm of 409",
    ),
    "simulator-speed": (
        "benchmarks.simulator_speed",
        "requests simulated per second: published traces at high utilisation, and a million requests",
    ),
    "simulator-truth": (
        "benchmarks.simulator_truth",
        "the twin beside what is known: Llumnix's figures, measured silicon, queues with closed forms",
    ),
    "mix": ("benchmarks.mix", "GPU selection against the published optima, row by row"),
    "selection": (
        "benchmarks.selection",
        "GPU selection for one model: exact optima without and with headroom, dense loads, AIBrix's and WVA's rules beside",
    ),
    "selection-multi": (
        "benchmarks.selection_multi",
        "GPU selection for many models on one inventory: reference instances, and generated ones of 20 and 100 models",
    ),
    "selection-day": (
        "benchmarks.selection_day",
        "a day of six services that compete for GPUs in the simulator: planned jointly, and one after the other",
    ),
    "profiles": (
        "benchmarks.profiles",
        "predicted time per output token on measured silicon, one GPU product left out at a time",
    ),
    "selection-slo": (
        "benchmarks.selection_slo",
        "our plan against Melange's rule in the simulator: cost, and promises kept over all arrivals",
    ),
    "packing": (
        "benchmarks.packing",
        "GPU allocation on Alibaba's openb traces at 130 % arrival, beside FGD and the other published rules",
    ),
    "packing-gangs": (
        "benchmarks.packing_gangs",
        "largest gang that could start while pods come and go on openb's nodes, with and without the term that keeps it",
    ),
}
"""Name → (module, one line). Modules are imported only when they run: each has its own dependencies."""


def load(name: str) -> Benchmark:
    """The benchmark's module. Raises: BenchmarkError for an unknown name, or one whose packages are not installed."""
    if name not in BENCHMARKS:
        raise BenchmarkError(
            f"There is no benchmark {name!r}; choose one of {', '.join(sorted(BENCHMARKS))}."
        )
    try:
        return cast("Benchmark", importlib.import_module(BENCHMARKS[name][0]))
    except ModuleNotFoundError as missing:
        raise BenchmarkError(
            f"Benchmark {name!r} needs the module {missing.name!r}, which is not installed: run `make setup`."
        ) from missing


def show(name: str, result: Result, console: Console) -> None:
    """Prints the table, the remark, and the JSON line last."""
    table = Table(title=f"{name}: {BENCHMARKS[name][1]}", title_justify="left")
    for column, justify in (("figure", "left"), ("value", "right"), ("goal", "right"), ("", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in result.rows:
        verdict = {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[row.met]
        table.add_row(row.name, row.value, row.goal, verdict)
    console.print(table)
    if result.remark:
        console.print(result.remark)
    console.file.flush()
    print(msgspec.json.encode(result.figures).decode(), flush=True)


def parse(argv: list[str]) -> tuple[str, Arguments]:
    """Name and arguments from the command line; argparse answers --help and mistakes itself."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", help="one of: " + ", ".join([*BENCHMARKS, "list", "report"]))
    parser.add_argument("--data", type=Path, default=None, help="folder of the input data")
    parser.add_argument(
        "--seed", type=int, default=None, help="1 unless given; several seeds become this one"
    )
    parser.add_argument("--quick", action="store_true", help="a small run that shows that it works")
    parser.add_argument("--runs", type=int, default=None, help="how many random sequences (kube-faults)")
    parser.add_argument(
        "--plant", default="", help="a defect to switch on, which must be noticed (kube-faults)"
    )
    found = parser.parse_args(argv)
    return found.name, Arguments(
        data=found.data,
        seed=1 if found.seed is None else found.seed,
        one_seed=found.seed is not None,
        quick=found.quick,
        runs=found.runs,
        plant=found.plant,
    )


def main(argv: list[str] | None = None) -> int:
    """Runs one benchmark (or all, for the report) and returns the exit status."""
    name, args = parse(sys.argv[1:] if argv is None else argv)
    console = Console()
    try:
        if name == "list":
            for each, (_, line) in BENCHMARKS.items():
                console.print(f"{each:12} {line}")
        elif name == "report":
            from benchmarks.report import write  # noqa: PLC0415 - plots need matplotlib, the figures do not

            write(args, Path("docs"), console)
        else:
            show(name, load(name).run(args), console)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
