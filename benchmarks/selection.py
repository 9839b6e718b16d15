"""GPU selection for one model: the operator's function against exact optima, with and without headroom, and dense.

Data (`--data DIR`): reference_costs_single_model.csv, workloads_10x6.json and the profile of each row's TPOT, as for
`mix`. A separate checker recomputes cost, routing sums, feasibility and capacity from counts and routing; whatever it
finds is a failure and an infinite gap. Where headroom is on, the exact optimum comes from a plain mixed-integer
programme with ordered binaries (scipy); where that does not close in its time, its bound or ours stands in, whichever is
higher, so the gap is never shown too small. Dense instances are drawn (`--seed`): every one of the grid's sizes
occurs. AIBrix's and WVA's rules are solved beside, for the same loads.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks import mix
from benchmarks.base import Arguments, BenchmarkError, Figure, Result, Row, at_most, data_folder
from benchmarks.selection_exact import ordered_binaries
from placement.profiles.grid import GridError
from placement.selection.baselines import BaselinePlan, aibrix, wva_greedy
from placement.selection.checker import recomputed_cost
from placement.selection.problem import MixProblem, MixSolution

Dense = tuple[tuple[str, ...], "Samples"]
"""Faults and times of one dense instance."""

DENSE_DRAWS = 16
"""Dense instances drawn; their rates go round `DENSE_RATES`."""

TABLE = "reference_costs_single_model.csv"

DENSE_RATES = (1.0, 4.0, 8.0, 32.0)

EXACT_SECONDS, EXACT_SECONDS_IN_ALL = 60.0, 1_920.0
"""Most time of the plain programme per row, and for all rows of a long table; ours needs none of it."""


class Samples(msgspec.Struct, frozen=True):
    """Milliseconds of each run: by the clock on the wall, and of this process alone."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]


class Solved(msgspec.Struct, frozen=True):
    """One row: gaps, milliseconds of each run, whether Melange is cheaper, baselines' costs over the optimum."""

    name: str
    types: int
    gap: float
    worse_than_melange: bool
    plain: Samples
    headroom: Samples
    headroom_gap: float
    closed: bool
    over_optimum: dict[str, float]
    faults: tuple[str, ...]


def run(args: Arguments) -> Result:
    """Solves every row of the table and the dense draws. Raises BenchmarkError when the data is not there."""
    folder = data_folder(args, "gpu-selection")
    rows, workloads = mix.load(folder)
    if args.quick:
        rows = rows[::8]
    profiles: dict[str, dict[str, Any]] = {}
    seconds = min(EXACT_SECONDS, EXACT_SECONDS_IN_ALL / len(rows))
    solved = [_row(folder, row, workloads, profiles, seconds) for row in rows]
    most = max(each.types for each in solved)
    dense = _dense(folder, rows, profiles, workloads, args.seed, 2 if args.quick else DENSE_DRAWS)
    plain = [each.plain for each in solved]
    padded = [each.headroom for each in solved if each.types == most]
    drawn = [times for _, times in dense]
    figures: dict[str, Figure] = {
        "rows": len(solved),
        "failures": sum(1 for each in solved if each.faults) + sum(1 for faults, _ in dense if faults),
        "max_rel_gap": max(each.gap for each in solved),
        "worse_than_melange": sum(1 for each in solved if each.worse_than_melange),
        **_percentiles("", plain),
        **_percentiles("dense_", drawn),
        **_percentiles("headroom_", padded),
        "headroom_max_rel_gap": max(each.headroom_gap for each in solved),
    }
    cpu = [_cpu("headroom off", plain), _cpu("dense", drawn), _cpu(f"headroom on, {most} types", padded)]
    rows_told = (*_table(solved, figures, most), *cpu, *_beside(solved))
    return Result(rows=rows_told, figures=figures, remark=_remark(solved, dense))


def _percentiles(prefix: str, samples: list[Samples]) -> dict[str, Figure]:
    wall = [sample for each in samples for sample in each.wall]
    return {f"{prefix}p{share}_ms": float(np.percentile(wall, share)) for share in (50, 99)}


def _cpu(name: str, samples: list[Samples]) -> Row:
    """The same in CPU time of the process, for judging a run on a machine that others use too."""
    cpu = [sample for each in samples for sample in each.cpu]
    return Row(
        f"{name}, p50 / p99 of CPU time", " / ".join(f"{np.percentile(cpu, q):.1f}" for q in (50, 99)) + " ms"
    )


def _row(
    folder: Path,
    row: dict[str, str],
    workloads: dict[str, Any],
    profiles: dict[str, dict[str, Any]],
    exact_seconds: float,
) -> Solved:
    name = f"{row['n_gpu_types']} types, {row['workload']}, {row['rate_rps']} req/s, {row['tpot_slo_ms']} ms"
    profile = mix.profile_of(folder, row["tpot_slo_ms"], profiles, workloads)
    try:
        plain = mix.instance(row, workloads, profile, headroom=False)
        padded = mix.instance(row, workloads, profile, headroom=True)
        optimum = float(row["optimal_fractional_cost"])
    except (GridError, KeyError, ValueError) as error:
        raise BenchmarkError(
            f"{folder / TABLE}, row {name}: {type(error).__name__}: {error}; look at the row, its workload in "
            "workloads_10x6.json and its profile."
        ) from error
    off, *off_ms = mix.timed_both(plain)
    on, *on_ms = mix.timed_both(padded)
    faults = (*mix.faults_of(plain, off), *mix.faults_of(padded, on))
    cost = math.inf if faults else recomputed_cost(plain, off)
    melange = row.get("melange_exact_sf4") or "inf"
    gap, closed = _headroom_gap(padded, on, exact_seconds)
    return Solved(
        name=name,
        types=len(plain.variants),
        gap=mix.relative_gap(cost, optimum),
        worse_than_melange=cost > float(melange) * (1.0 + 1e-9),
        plain=Samples(*off_ms),
        headroom=Samples(*on_ms),
        headroom_gap=math.inf if faults else gap,
        closed=closed,
        over_optimum=_baselines(plain, row, optimum),
        faults=faults,
    )


def _headroom_gap(problem: MixProblem, solution: MixSolution, seconds: float) -> tuple[float, bool]:
    """Relative gap to the exact optimum by another road, and whether that road came to its end."""
    if not solution.feasible:
        return math.inf, False
    exact = ordered_binaries(problem, seconds)
    reference = exact.objective if exact.closed else max(exact.bound, solution.bound)
    return abs(solution.objective_per_hour - reference) / max(reference, 1e-9), exact.closed


def _baselines(problem: MixProblem, row: dict[str, str], optimum: float) -> dict[str, float]:
    """Costs over the optimum of what others would buy: computed here, and as the table has them."""
    found = {
        name: plan.cost_per_hour / optimum
        for name, plan in (("AIBrix-like", aibrix(problem)), ("WVA-like", wva_greedy(problem)))
        if _is_answer(plan) and optimum > 0.0
    }
    for column in mix.OTHERS:
        if row.get(column) and optimum > 0.0:
            found[f"{column} (table)"] = float(row[column]) / optimum
    return found


def _is_answer(plan: BaselinePlan) -> bool:
    return bool(plan.counts)


def _dense(
    folder: Path,
    rows: list[dict[str, str]],
    profiles: dict[str, dict[str, Any]],
    workloads: dict[str, Any],
    seed: int,
    draws: int,
) -> list[Dense]:
    """Faults and milliseconds of instances in which every size of the grid occurs, on all types of the profile."""
    profile = mix.profile_of(folder, rows[0]["tpot_slo_ms"], profiles, workloads)
    shape = len(profile["input_edges"]), len(profile["output_edges"])
    able = np.max([np.array(gpu["tputs"]) for gpu in profile["gpus"].values()], axis=0) > 0.0
    found = []
    for draw in range(draws):
        rng = np.random.default_rng((seed, draw))
        cells = np.where(able, rng.dirichlet(np.ones(able.size)).reshape(shape), 0.0)
        row = {
            "workload": "dense",
            "rate_rps": str(DENSE_RATES[draw % len(DENSE_RATES)]),
            "n_gpu_types": str(len(profile["gpus"])),
        }
        drawn = {"workloads": {"dense": (cells / cells.sum()).tolist()}}
        problem = mix.instance(row, drawn, profile, headroom=False)
        solution, *milliseconds = mix.timed_both(problem)
        found.append((mix.faults_of(problem, solution), Samples(*milliseconds)))
    return found


def _table(solved: list[Solved], figures: dict[str, Figure], most: int) -> tuple[Row, ...]:
    number = {name: float(value or 0) for name, value in figures.items()}
    return (
        Row("rows", str(figures["rows"])),
        at_most("failures (checker)", number["failures"], 0),
        at_most("largest relative gap", number["max_rel_gap"], 1e-4),
        at_most("rows where Melange (sf 4) is cheaper", number["worse_than_melange"], 0),
        at_most("headroom off, p50", number["p50_ms"], 50, "ms"),
        at_most("headroom off, p99", number["p99_ms"], 300, "ms"),
        at_most("dense, p50", number["dense_p50_ms"], 150, "ms"),
        at_most("dense, p99", number["dense_p99_ms"], 300, "ms"),
        at_most(f"headroom on, {most} types, p50", number["headroom_p50_ms"], 150, "ms"),
        at_most(f"headroom on, {most} types, p99", number["headroom_p99_ms"], 600, "ms"),
        at_most("headroom on, largest relative gap", number["headroom_max_rel_gap"], 1e-3),
        Row(
            "rows whose exact optimum with headroom was closed by the plain programme",
            f"{sum(1 for each in solved if each.closed)} of {len(solved)}",
        ),
    )


def _beside(solved: list[Solved]) -> list[Row]:
    rows = []
    for types in sorted({each.types for each in solved}):
        group = [each for each in solved if each.types == types]
        for name in sorted({name for each in group for name in each.over_optimum}):
            ratios = [each.over_optimum[name] for each in group if name in each.over_optimum]
            text = f"{np.mean(ratios):.3f} / {max(ratios):.3f} (n {len(ratios)})"
            rows.append(Row(f"{types} types: cost over optimum, {name}, mean / max", text))
    return rows


def _remark(solved: list[Solved], dense: list[Dense]) -> str:
    faults = [f"{each.name}: {fault}" for each in solved for fault in each.faults]
    faults += [f"dense {number}: {fault}" for number, (found, _) in enumerate(dense) for fault in found]
    return "Every plan passed the checker." if not faults else "Faults: " + "; ".join(faults[:10])
