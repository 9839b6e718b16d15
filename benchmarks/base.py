"""What a benchmark is: a module with `run(args) -> Result`.

A benchmark measures, judges its goals and returns plain data; printing, plotting and docs/benchmarks.md are
made from that data by `benchmarks.__main__` and `benchmarks.report`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

Figure = int | float | str | bool | None
"""A value of the JSON line. None where a figure does not exist in this run."""

Table = Mapping[str, Figure | Mapping[str, Figure]]
"""Values by one name or two, such as a trace and a policy."""


class Arguments(msgspec.Struct, frozen=True, kw_only=True):
    """The command line of a benchmark.

    `data` is None when the user gave none: a benchmark that needs data says where it looks by default, and
    raises `BenchmarkError` with that place when there is nothing. `quick` asks for a small run that shows that
    everything works; its figures are no results. `runs` is how often something random is tried (None: as the
    benchmark thinks right), `plant` a defect to switch on; both matter to those that name them. `one_seed`: the user
    named the seed, so a benchmark that runs several runs this one alone.
    """

    data: Path | None = None
    seed: int = 1
    one_seed: bool = False
    quick: bool = False
    runs: int | None = None
    plant: str = ""


def data_folder(args: Arguments, part: str = "") -> Path:
    """Where a benchmark's data lies: as given, else the folder `shared/data` beside the checkout, and in it `part`."""
    return args.data or Path(__file__).resolve().parents[2] / "shared" / "data" / part


class Row(msgspec.Struct, frozen=True):
    """One line of the table for people: what was measured, its value as text, and the goal with its verdict.

    `met` is None where there is no goal.
    """

    name: str
    value: str
    goal: str = ""
    met: bool | None = None


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """A picture for docs/benchmarks.md: named series of (x, y) points, all in the units of the axis labels."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: dict[str, tuple[tuple[float, float], ...]]
    log_x: bool = False
    log_y: bool = False


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found: rows for people, figures for the JSON line (in this order), plots and a remark."""

    rows: tuple[Row, ...]
    figures: Mapping[str, Figure | Table]
    plots: tuple[Plot, ...] = ()
    remark: str = ""


class BenchmarkError(Exception):
    """The benchmark cannot run; the text is a sentence with what to do."""


class Benchmark(Protocol):
    """The shape of a benchmark's module."""

    def run(self, args: Arguments) -> Result:
        """Measures and judges. Raises: BenchmarkError when something it needs is not there."""
        ...


def at_most(name: str, value: float, limit: float, unit: str = "", digits: int = 3) -> Row:
    """A row whose goal is an upper limit."""
    suffix = f" {unit}" if unit else ""
    return Row(name, f"{value:.{digits}g}{suffix}", f"≤ {limit:g}{suffix}", value <= limit)


def at_least(name: str, value: float, limit: float, unit: str = "", digits: int = 3) -> Row:
    """A row whose goal is a lower limit."""
    suffix = f" {unit}" if unit else ""
    return Row(name, f"{value:.{digits}g}{suffix}", f"≥ {limit:g}{suffix}", value >= limit)
