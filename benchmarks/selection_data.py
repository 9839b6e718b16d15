"""Files of the folder gpu-selection, read and judged: what is wrong is told as file, place in it, and what to do."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.base import BenchmarkError
from placement.profiles.grid import Grid, GridError, check_profile

TableRow = dict[str, str]


def read_json(path: Path, kind: type = dict) -> Any:
    """A file's JSON, an object or (``kind``) a list. BenchmarkError where it is missing, is no JSON, or holds something else."""
    if not path.is_file():
        raise BenchmarkError(f"{path} is missing; give the folder that holds it with --data DIR.")
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{path} is not JSON ({error}); write it again.") from error
    if not isinstance(found, kind):
        wanted = "an object" if kind is dict else "a list"
        raise BenchmarkError(f"{path} holds a {type(found).__name__}; it must be {wanted}.")
    return found


def read_rows(path: Path, columns: Iterable[str]) -> list[TableRow]:
    """Rows of a table that has ``columns``. BenchmarkError where file, columns, or all rows are missing, or a row is short."""
    if not path.is_file():
        raise BenchmarkError(f"{path} is missing; give the folder that holds it with --data DIR.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            heads, rows = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BenchmarkError(f"{path} is no table of text ({error}); write it as CSV in UTF-8.") from error
    missing = [name for name in columns if name not in heads]
    if missing:
        raise BenchmarkError(f"{path} lacks the column {missing[0]}; it has {', '.join(heads) or 'none'}.")
    if not rows:
        raise BenchmarkError(f"{path} has no rows; give a table with at least one.")
    for number, row in enumerate(rows, start=2):
        short = next((name for name in columns if row[name] is None), None)
        if short is not None:
            raise BenchmarkError(f"{path}, line {number}: nothing stands under {short}; complete the line.")
    return rows


def number(where: str, value: object, least: float = 0.0, above: bool = False) -> float:
    """A finite number of at least ``least`` (``above``: greater), from text or as JSON has it. BenchmarkError names ``where``."""
    try:
        found = (
            float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
        )
    except ValueError:
        found = math.nan
    if not (found > least if above else found >= least) or math.isinf(found):
        bound = f"greater than {least:g}" if above else f"of at least {least:g}"
        raise BenchmarkError(f"{where} is {value!r}; give a number {bound}.")
    return found


def rates(where: str, value: object, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Finite numbers of at least 0, [inputs x outputs]. BenchmarkError names ``where``, and a shape that fits turned round."""
    try:
        found = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise BenchmarkError(f"{where} is no table of numbers; give rows of equal length.") from None
    if found.ndim != 2 or not found.size or (shape is not None and found.shape != shape):
        hint = "; it looks transposed" if shape is not None and found.shape == shape[::-1] else ""
        wanted = f"{shape[0]} x {shape[1]}" if shape else "a table"
        raise BenchmarkError(
            f"{where} has shape {found.shape}; it must be {wanted}, a row for each input size{hint}."
        )
    bad = np.argwhere(~(np.isfinite(found) & (found >= 0.0)))
    if len(bad):
        i, j = bad[0].tolist()
        raise BenchmarkError(
            f"{where}, row {i + 1}, column {j + 1} is {found[i, j]}; measure that size again, or write 0."
        )
    return found


def read_profile(path: Path) -> dict[str, Any]:
    """A profile of GPUs on a grid: `tpot_slo_s`, `input_edges`, `output_edges`, `gpus` {name: {`cost_usd_h`, `tputs`}}.

    BenchmarkError for prices that are missing or not positive, and tables that do not fit the grid; holes are told.
    """
    profile: dict[str, Any] = read_json(path)
    grid = grid_of(path, profile)
    number(f"{path}: tpot_slo_s", profile.get("tpot_slo_s"), above=True)
    gpus = profile.get("gpus")
    if not isinstance(gpus, dict) or not gpus:
        raise BenchmarkError(f"{path}: gpus is empty; list at least one GPU with its price and throughputs.")
    for name, gpu in gpus.items():
        where = f"{path}: gpus.{name}"
        if not isinstance(gpu, dict):
            raise BenchmarkError(f"{where} holds no figures; give cost_usd_h and tputs.")
        number(f"{where}.cost_usd_h", gpu.get("cost_usd_h"), above=True)
        for told in check_profile(name, grid, rates(f"{where}.tputs", gpu.get("tputs"), grid.shape)):
            print(f"{path}: {told}.", file=sys.stderr)
    return profile


def grid_of(path: Path, content: dict[str, Any]) -> Grid:
    """The grid that a file names. BenchmarkError where edges are missing, are no numbers, or do not rise."""
    edges = []
    for name in ("input_edges", "output_edges"):
        given = content.get(name)
        if not isinstance(given, list) or not all(isinstance(each, int | float) for each in given):
            raise BenchmarkError(f"{path}: {name} is {given!r}; list the token counts of the grid.")
        edges.append(tuple(given))
    try:
        return Grid(*edges).checked()
    except GridError as error:
        raise BenchmarkError(f"{path}: {error}.") from error


def read_workloads(path: Path, names: Iterable[str], table: Path) -> dict[str, Any]:
    """Histograms by name, those that ``table`` names judged. BenchmarkError for one that is missing, empty or negative."""
    content: dict[str, Any] = read_json(path)
    found = content.get("workloads")
    if not isinstance(found, dict):
        raise BenchmarkError(f"{path} has no object `workloads`; list histograms by name there.")
    shape = grid_of(path, content).shape if "input_edges" in content else None
    for name in sorted(set(names)):
        if name not in found:
            raise BenchmarkError(
                f"{table} names the workload {name!r}, which {path.name} does not have; it has {', '.join(sorted(found))}."
            )
        if not rates(f"{path}: workloads.{name}", found[name], shape).sum() > 0.0:
            raise BenchmarkError(f"{path}: workloads.{name} is 0 everywhere; give shares of requests.")
    return content


def check_same_grid(workloads: dict[str, Any], profile: dict[str, Any], path: Path) -> None:
    """BenchmarkError where histograms and a profile have edges of their own that differ."""
    for name in ("input_edges", "output_edges"):
        ours, theirs = workloads.get(name), profile[name]
        if ours is not None and list(ours) != list(theirs):
            raise BenchmarkError(
                f"{path}: {name} are {theirs}, those of workloads_10x6.json {ours}; make both on the same grid."
            )


def check_instance(where: str, instance: object) -> None:
    """BenchmarkError unless an instance of many models has what its programme needs, naming model and variant."""
    if not isinstance(instance, dict) or not str(instance.get("name") or ""):
        raise BenchmarkError(f"{where} is no object with a name; give name, models and available_gpus.")
    where = f"{where} ({instance['name']})"
    gpus, models = instance.get("available_gpus"), instance.get("models")
    if not isinstance(gpus, dict):
        raise BenchmarkError(f"{where}: available_gpus is {gpus!r}; map each GPU type to how many are free.")
    for gpu, count in gpus.items():
        if number(f"{where}: available_gpus.{gpu}", count) != int(count):
            raise BenchmarkError(f"{where}: available_gpus.{gpu} is {count}; give a whole number.")
    number(f"{where}: shed_penalty_usd_h_per_rps", instance.get("shed_penalty_usd_h_per_rps"), above=True)
    if number(f"{where}: max_utilisation", instance.get("max_utilisation"), above=True) > 1.0:
        raise BenchmarkError(f"{where}: max_utilisation is above 1; give a share of a replica's throughput.")
    if not isinstance(models, list) or not models:
        raise BenchmarkError(f"{where}: models is empty; list at least one.")
    names = [str(each.get("name") or "") if isinstance(each, dict) else "" for each in models]
    for place, (name, model) in enumerate(zip(names, models, strict=True), start=1):
        if not name or names.count(name) > 1:
            raise BenchmarkError(f"{where}, model {place}: its name is {name!r}; give each one of its own.")
        _check_model(f"{where}, model {name}", model)
    best = (instance.get("reference") or {}).get("best_known")
    if best is not None:
        number(f"{where}: reference.best_known", best)


def _check_model(where: str, model: dict[str, Any]) -> None:
    number(f"{where}: rate_rps", model.get("rate_rps"))
    shape = rates(f"{where}: workload", model.get("workload")).shape
    variants = model.get("variants")
    if not isinstance(variants, dict):
        raise BenchmarkError(
            f"{where}: variants is {variants!r}; map names to gpu, gpus_per_replica, cost_usd_h, tputs."
        )
    for name, variant in variants.items():
        at = f"{where}, variant {name}"
        if not isinstance(variant, dict) or not str(variant.get("gpu") or ""):
            raise BenchmarkError(f"{at}: gpu is missing; name a type of available_gpus.")
        count = number(f"{at}: gpus_per_replica", variant.get("gpus_per_replica"), least=1.0)
        if count != int(count):
            raise BenchmarkError(f"{at}: gpus_per_replica is {count}; give a whole number.")
        number(f"{at}: cost_usd_h", variant.get("cost_usd_h"), above=True)
        rates(f"{at}: tputs", variant.get("tputs"), (shape[0], shape[1]))
