"""Runs every benchmark and writes docs/benchmarks.md with its plots.

A benchmark that cannot run (its data is not there) keeps the section that a former run wrote, and says so on the
console: a missing figure is never made up, and never erases a measured one.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import re
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.__main__ import BENCHMARKS, load, show
from benchmarks.base import Arguments, BenchmarkError, Plot, Result

PAGE = "benchmarks.md"
PICTURES = "images"
HEAD = """# Benchmarks

Written by `make bench` (`python -m benchmarks report`); each section says when and where it was measured.
Goals are for a quiet machine. Reproduce one with `python -m benchmarks NAME`.
"""


def write(args: Arguments, docs: Path, console: Console) -> None:
    """Measures all and rewrites the page and its pictures under `docs`."""
    page = docs / PAGE
    former = sections(page.read_text()) if page.exists() else {}
    parts = [HEAD]
    for name in BENCHMARKS:
        console.rule(name)
        try:
            result = load(name).run(args)
        except BenchmarkError as error:
            console.print(f"[yellow]{name} was not measured:[/] {error}")
            parts += [former[name]] if name in former else []
            continue
        show(name, result, console)
        pictures = [draw(plot, docs / PICTURES) for plot in result.plots]
        parts.append(section(name, result, pictures, stamp()))
    docs.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(part.strip() + "\n" for part in parts))
    console.print(f"Wrote {page}.")


def stamp() -> str:
    """When and on what it was measured."""
    day = dt.datetime.now(dt.UTC).date().isoformat()
    return f"{day}, Python {platform.python_version()}, {platform.machine()}, {_processor()}"


def section(name: str, result: Result, pictures: list[str], measured: str) -> str:
    """One benchmark as markdown: table, remark, pictures, the JSON line."""
    lines = [
        f"## {name}",
        "",
        f"{BENCHMARKS[name][1][0].upper()}{BENCHMARKS[name][1][1:]}. Measured {measured}.",
        "",
    ]
    lines += ["| figure | value | goal | |", "|---|---:|---:|---|"]
    verdicts = {True: "met", False: "**missed**", None: ""}
    lines += [f"| {row.name} | {row.value} | {row.goal} | {verdicts[row.met]} |" for row in result.rows]
    if result.remark:
        lines += ["", result.remark]
    for plot, picture in zip(result.plots, pictures, strict=True):
        lines += ["", f"![{plot.title}]({PICTURES}/{picture})"]
    lines += ["", "```json", msgspec.json.encode(result.figures).decode(), "```", ""]
    return "\n".join(lines)


def sections(page: str) -> dict[str, str]:
    """The sections of a page written before, by benchmark."""
    found = re.split(r"^## (\S+)$", page, flags=re.MULTILINE)
    return {name: f"## {name}\n{text}" for name, text in zip(found[1::2], found[2::2], strict=True)}


def draw(plot: Plot, folder: Path) -> str:
    """Draws a plot as SVG; returns its file name. Raises: BenchmarkError without matplotlib."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - only the report draws

        mpl.use("Agg")
        from matplotlib import pyplot as plt  # noqa: PLC0415
    except ImportError as error:
        raise BenchmarkError("Plots need matplotlib: run `make setup`.") from error
    mpl.rcParams["svg.hashsalt"] = "plimsoll"  # the same plot is the same file
    figure, axes = plt.subplots(figsize=(7.0, 4.0), layout="constrained")
    for label, points in plot.series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], label=label, linewidth=1.8)
    axes.set(title=plot.title, xlabel=plot.x_label, ylabel=plot.y_label)
    if plot.log_x:
        axes.set_xscale("log")
    if plot.log_y:
        axes.set_yscale("log")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{plot.name}.svg"
    figure.savefig(folder / name, metadata={"Date": None})
    plt.close(figure)
    return name


def _processor() -> str:
    """The processor's name and how many of it this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or "unknown processor"
    return f"{len(os.sched_getaffinity(0))} cores of {model}"
