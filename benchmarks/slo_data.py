"""The data of `selection-slo`: grid, variants with the physics behind them, histograms and scenarios of one folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.base import BenchmarkError
from benchmarks.mix import FOUR_TYPES
from benchmarks.selection_data import check_same_grid, number, read_profile, read_rows, read_workloads
from benchmarks.slo_physics import Physics, fitted
from placement.profiles.grid import Grid
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
    scenarios = _scenarios(table)
    workloads = read_workloads(histograms, (each.workload for each in scenarios), table)
    if not profiles:
        raise BenchmarkError(
            f"{folder} has no profile_roofline*_tpot*ms.json; give a folder with one by --data DIR."
        )
    profile = read_profile(profiles[0])
    check_same_grid(workloads, profile, profiles[0])
    grid = Grid(tuple(profile["input_edges"]), tuple(profile["output_edges"]))
    names = [name for name in FOUR_TYPES if name in profile["gpus"]]
    names = names if len(names) == len(FOUR_TYPES) else list(profile["gpus"])
    names = [name for name in names if np.any(np.array(profile["gpus"][name]["tputs"]) > 0.0)]
    if not names:
        raise BenchmarkError(f"{profiles[0]}: no GPU serves any size; measure under a looser promise.")
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
    return Data(
        folder, grid, float(profile["tpot_slo_s"]), variants, physics, workloads["workloads"], scenarios
    )


def _preference(path: Path) -> tuple[bool, str]:
    """The profile of 120 ms first, as in the published comparison."""
    return re.search(r"_tpot120ms", path.name) is None, path.name


def _scenarios(table: Path) -> tuple[Scenario, ...]:
    found = []
    for line, row in enumerate(read_rows(table, ("wl", "rate", "tag", "cost")), start=2):
        if row["tag"].startswith("melange"):
            rate, cost = (
                number(f"{table}, line {line}: {name}", row[name], above=True) for name in ("rate", "cost")
            )
            found.append(Scenario(row["wl"], rate, cost))
    if not found:
        raise BenchmarkError(f"{table} has no row whose tag begins with melange; it names the scenarios.")
    return tuple(found)
