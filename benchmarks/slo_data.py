"""The data of `selection-slo`: grid, variants with the physics behind them, histograms and scenarios of one folder."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.base import BenchmarkError
from benchmarks.mix import FOUR_TYPES
from benchmarks.slo_physics import Physics, fitted
from placement.profiles.grid import Grid, check_profile
from placement.selection.sized import SizedVariant


class Scenario(msgspec.Struct, frozen=True):
    """A row of the table: workload, requests/s, and the cost that was published for Mélange's rule."""

    workload: str
    per_second: float
    published: float

    @property
    def name(self) -> str:
        """`workload_rate`."""
        return f"{self.workload}_{self.per_second:g}"


class Data(msgspec.Struct, frozen=True):
    """The folder read: grid, variants with the physics behind them, histograms, scenarios."""

    folder: Path
    grid: Grid
    tpot_seconds: float
    variants: tuple[SizedVariant, ...]
    physics: dict[str, Physics]
    workloads: dict[str, Any]
    scenarios: tuple[Scenario, ...]


def read(folder: Path) -> Data:
    """The folder's data. Raises BenchmarkError naming the file and what is wrong with it."""
    table, histograms = folder / "slo_simulation_headtohead.csv", folder / "workloads_10x6.json"
    profiles = sorted(folder.glob("profile_roofline*_tpot*ms.json"), key=_preference)
    for path in (table, histograms):
        if not path.is_file():
            raise BenchmarkError(f"{path} is missing; give the folder that holds it with --data DIR.")
    if not profiles:
        raise BenchmarkError(
            f"{folder} has no profile_roofline*_tpot*ms.json; give a folder with one by --data DIR."
        )
    profile = json.loads(profiles[0].read_text())
    grid = Grid(tuple(profile["input_edges"]), tuple(profile["output_edges"])).checked()
    names = [name for name in FOUR_TYPES if name in profile["gpus"]]
    names = names if len(names) == len(FOUR_TYPES) else list(profile["gpus"])
    workloads = json.loads(histograms.read_text())["workloads"]
    scenarios = _scenarios(table, workloads)
    for name in names:
        check_profile(name, grid, np.array(profile["gpus"][name]["tputs"], dtype=np.float64))
    physics = {name: fitted(profile, name) for name in names}
    variants = tuple(
        SizedVariant(
            name=name,
            dollars_per_hour=float(profile["gpus"][name]["cost_usd_h"]),
            throughput=tuple(tuple(row) for row in profile["gpus"][name]["tputs"]),
            steps=physics[name].steps(),
        )
        for name in names
    )
    return Data(folder, grid, float(profile["tpot_slo_s"]), variants, physics, workloads, scenarios)


def _preference(path: Path) -> tuple[bool, str]:
    """The profile of 120 ms first, as in the published comparison."""
    return re.search(r"_tpot120ms", path.name) is None, path.name


def _scenarios(table: Path, workloads: dict[str, Any]) -> tuple[Scenario, ...]:
    with table.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["tag"].startswith("melange")]
    if not rows:
        raise BenchmarkError(f"{table} has no row whose tag begins with melange; it names the scenarios.")
    unknown = sorted({row["wl"] for row in rows} - set(workloads))
    if unknown:
        raise BenchmarkError(
            f"{table} names the workload {unknown[0]}, which workloads_10x6.json does not have."
        )
    return tuple(Scenario(row["wl"], float(row["rate"]), float(row["cost"])) for row in rows)
