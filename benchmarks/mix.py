"""GPU selection against known optima: the operator's own function on every row of a reference table.

Data (`--data DIR`): reference_costs_single_model.csv, workloads_10x6.json (hard upper-edge histograms) and the
profile of the row's TPOT, profile_roofline_llama2-7b_12gpu_tpot<ms>ms.json (requests per second per GPU). A row with
4 GPU types uses L4, A10G, A100 and H100, one with 12 all types of the profile. A separate checker recomputes cost,
routing sums, feasibility and capacity from the exported counts and routing; any fault is a failure and counts as an
infinite gap.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.base import Arguments, BenchmarkError, Figure, Plot, Result, Row, at_most, data_folder
from benchmarks.selection_data import check_same_grid, number, read_profile, read_rows, read_workloads
from placement.profiles.grid import Grid, check_profile, implied_concurrency, mean_concurrency
from placement.selection.checker import check, recomputed_cost
from placement.selection.linear import SolverError
from placement.selection.mix import solve_mix
from placement.selection.problem import MixProblem, MixSolution, SelectionInputError, VariantOption

COLUMNS = ("n_gpu_types", "tpot_slo_ms", "workload", "rate_rps", "optimal_fractional_cost")
"""Columns of the table that are needed; those of other planners' costs are shown where they are."""

OTHERS = ("melange_exact_sf4", "best_single_type", "wva_greedy", "aibrix_fraction100")

FOUR_TYPES = ("L4", "A10G", "A100", "H100")
ALL_TYPES = 12
"""Types that the profiles were made for, as their names say."""

UNSERVED_DOLLARS = 1e5
"""Least price of leaving a request per second unserved for an hour."""

UNITS_WORTH = 1_000.0
"""Units of the dearest type that leaving all requests of one size unserved costs at least: serving them always pays."""

REPEATS = 3
"""Each row is solved this often in each mode; every run is a sample of the percentiles."""


class Solved(msgspec.Struct, frozen=True):
    """One row: relative gap to the published optimum, milliseconds of each run with headroom off and on, faults."""

    name: str
    optimum: float
    cost: float
    gap: float
    milliseconds: tuple[float, ...]
    milliseconds_headroom: tuple[float, ...]
    faults: tuple[str, ...]


def run(args: Arguments) -> Result:
    """Solves every row with pool headroom off and on. Raises BenchmarkError when the data is not there."""
    folder = data_folder(args, "gpu-selection")
    rows, workloads = load(folder)
    if args.quick:
        rows = rows[::8]
    profiles: dict[str, dict[str, Any]] = {}
    solved = [_solve_row(folder, row, workloads, profiles) for row in rows]
    off = [sample for each in solved for sample in each.milliseconds]
    on = [sample for each in solved for sample in each.milliseconds_headroom]
    figures: dict[str, Figure] = {
        "rows": len(solved),
        "failures": sum(1 for each in solved if each.faults),
        "max_rel_gap": max((each.gap for each in solved), default=math.inf),
        "p50_ms": _percentile(off, 50),
        "p99_ms": _percentile(off, 99),
        "p50_ms_headroom": _percentile(on, 50),
        "p99_ms_headroom": _percentile(on, 99),
    }
    return Result(
        rows=_table(solved, figures), figures=figures, plots=(_plot(solved),), remark=_remark(solved)
    )


def load(folder: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Rows of the reference table and the histograms. Raises BenchmarkError with file, line and remedy."""
    table = folder / "reference_costs_single_model.csv"
    rows = read_rows(table, COLUMNS)
    for line, row in enumerate(rows, start=2):
        for name in ("rate_rps", "optimal_fractional_cost"):
            number(f"{table}, line {line}: {name}", row[name])
        for name in OTHERS:
            if row.get(name):
                number(f"{table}, line {line}: {name}", row[name])
        row["tpot_slo_ms"] = (
            f"{number(f'{table}, line {line}: tpot_slo_ms', row['tpot_slo_ms'], above=True):g}"
        )
        types = number(f"{table}, line {line}: n_gpu_types", row["n_gpu_types"], least=1.0)
        if types != int(types):
            raise BenchmarkError(f"{table}, line {line}: n_gpu_types is {types:g}; give a whole number.")
        row["n_gpu_types"] = str(int(types))
    return rows, read_workloads(folder / "workloads_10x6.json", (row["workload"] for row in rows), table)


def profile_of(
    folder: Path, tpot_ms: str, profiles: dict[str, dict[str, Any]], workloads: dict[str, Any]
) -> dict[str, Any]:
    """The profile of a TPOT, read once, on the grid of the workloads. Raises BenchmarkError."""
    if tpot_ms not in profiles:
        usual = f"profile_roofline_llama2-7b_12gpu_tpot{tpot_ms}ms.json"
        found = sorted(
            folder.glob(f"profile_roofline*_tpot{tpot_ms}ms.json"),
            key=lambda each: (each.name != usual, each.name),
        )
        if not found:
            raise BenchmarkError(
                f"{folder / usual} is missing; the table has rows with a TPOT of {tpot_ms} ms."
            )
        path = found[0]
        profiles[tpot_ms] = read_profile(path)
        check_same_grid(workloads, profiles[tpot_ms], path)
    return profiles[tpot_ms]


def instance(
    row: dict[str, str], workloads: dict[str, Any], profile: dict[str, Any], headroom: bool
) -> MixProblem:
    """The selection problem of one row of the table."""
    cells = np.array(workloads["workloads"][row["workload"]]) * float(row["rate_rps"])
    grid = Grid(tuple(profile["input_edges"]), tuple(profile["output_edges"]))
    names = _types(row, tuple(profile["gpus"]))
    options = []
    for name in names:
        throughput = np.array(profile["gpus"][name]["tputs"], dtype=np.float64)
        check_profile(name, grid, throughput)
        running = implied_concurrency(grid, throughput, float(profile["tpot_slo_s"]))
        options.append(
            VariantOption(
                name=name,
                pool=name,
                dollars_per_hour=float(profile["gpus"][name]["cost_usd_h"]),
                throughput=tuple(throughput.ravel().tolist()),
                concurrency=mean_concurrency(cells, throughput, running),
            )
        )
    return MixProblem(
        demand=tuple(cells.ravel().tolist()),
        variants=tuple(options),
        inventory=dict.fromkeys(names),
        cell_unserved_dollars=serving_pays(cells, max(option.dollars_per_hour for option in options)),
        headroom=headroom,
    )


def serving_pays(cells: np.ndarray, dearest: float) -> tuple[float, ...]:
    """Prices of unserved requests by size [$/h per request/s], at which even the rarest size is worth a unit of its own."""
    rates = cells.ravel()
    least = np.divide(UNITS_WORTH * dearest, rates, out=np.zeros(rates.shape), where=rates > 0.0)
    return tuple(np.maximum(UNSERVED_DOLLARS, least).tolist())


def _types(row: dict[str, str], known: tuple[str, ...]) -> tuple[str, ...]:
    """Types of a row: all of the profile, or the usual four. A profile leaves out those that serve nothing under its TPOT."""
    count = int(row["n_gpu_types"])
    four = tuple(name for name in FOUR_TYPES if name in known)
    if count == len(FOUR_TYPES) != len(known) and four:
        return four
    if count in (len(known), ALL_TYPES):
        return known
    raise BenchmarkError(
        f"reference_costs_single_model.csv, row of {row['workload']} at {row['rate_rps']} req/s: n_gpu_types is {count}; give "
        f"{len(known)}, as many as the profile of {row['tpot_slo_ms']} ms has, or 4 for {', '.join(FOUR_TYPES)}."
    )


def _solve_row(
    folder: Path, row: dict[str, str], workloads: dict[str, Any], profiles: dict[str, dict[str, Any]]
) -> Solved:
    profile = profile_of(folder, row["tpot_slo_ms"], profiles, workloads)
    plain = instance(row, workloads, profile, headroom=False)
    padded = instance(row, workloads, profile, headroom=True)
    off, off_ms = timed(plain)
    on, on_ms = timed(padded)
    faults = (*faults_of(plain, off), *faults_of(padded, on))
    optimum = float(row["optimal_fractional_cost"])
    cost = recomputed_cost(plain, off) if not faults else math.inf
    name = f"{row['n_gpu_types']} types, {row['workload']}, {row['rate_rps']} req/s"
    return Solved(name, optimum, cost, relative_gap(cost, optimum), off_ms, on_ms, faults)


def relative_gap(cost: float, optimum: float) -> float:
    """|cost - optimum| over the optimum; of an optimum of 0, 0 or infinite."""
    if optimum > 0.0:
        return abs(cost - optimum) / optimum
    return 0.0 if cost == optimum else math.inf


def timed(problem: MixProblem) -> tuple[MixSolution, tuple[float, ...]]:
    """The solution, and milliseconds of each of `REPEATS` runs."""
    solution, times, _ = timed_both(problem)
    return solution, times


def timed_both(problem: MixProblem) -> tuple[MixSolution, tuple[float, ...], tuple[float, ...]]:
    """The same with milliseconds of the process's own CPU time beside, which a loaded machine leaves alone."""
    times, busy = [], []
    solution = MixSolution(feasible=False, why="not solved")
    for _ in range(REPEATS):
        started, worked = time.perf_counter(), time.process_time()
        try:
            solution = solve_mix(problem)
        except (SelectionInputError, SolverError) as error:
            solution = MixSolution(feasible=False, why=str(error))
        times.append((time.perf_counter() - started) * 1e3)
        busy.append((time.process_time() - worked) * 1e3)
    return solution, tuple(times), tuple(busy)


def faults_of(problem: MixProblem, solution: MixSolution) -> tuple[str, ...]:
    """What the checker finds, demand left unserved, or a missing proof of optimality."""
    faults = check(problem, solution)
    if not solution.feasible:
        return (*faults, solution.why)
    if solution.unserved_per_second > 1e-9:
        faults = (*faults, f"{solution.unserved_per_second} requests/s are left unserved")
    if not solution.optimal:
        faults = (*faults, "the search ended without a proof of optimality")
    return faults


def _percentile(values: list[float], share: float) -> float:
    return float(np.percentile(values, share)) if values else math.inf


def _table(solved: list[Solved], figures: dict[str, Figure]) -> tuple[Row, ...]:
    worst = sorted(solved, key=lambda each: -max(each.milliseconds_headroom))[:3]
    return (
        Row("rows", str(figures["rows"])),
        at_most("failures (checker)", float(figures["failures"] or 0), 0),
        at_most("largest relative gap", float(figures["max_rel_gap"] or 0), 1e-4),
        at_most("headroom off, p50", float(figures["p50_ms"] or 0), 50, "ms"),
        at_most("headroom off, p99", float(figures["p99_ms"] or 0), 300, "ms"),
        at_most("headroom on, p50", float(figures["p50_ms_headroom"] or 0), 500, "ms"),
        at_most("headroom on, p99", float(figures["p99_ms_headroom"] or 0), 1300, "ms"),
        *(Row(f"slow: {each.name}", f"{max(each.milliseconds_headroom):.1f} ms") for each in worst),
    )


def _remark(solved: list[Solved]) -> str:
    faults = [f"{each.name}: {fault}" for each in solved for fault in each.faults]
    return "Every plan passed the checker." if not faults else "Faults: " + "; ".join(faults[:10])


def _plot(solved: list[Solved]) -> Plot:
    off = tuple((each.optimum, min(each.milliseconds)) for each in solved)
    on = tuple((each.optimum, min(each.milliseconds_headroom)) for each in solved)
    return Plot(
        name="mix",
        title="Exact GPU selection: time per instance",
        x_label="cost of the optimal mix ($/h)",
        y_label="milliseconds",
        series={"headroom off": off, "headroom on": on},
        log_x=True,
        log_y=True,
    )
