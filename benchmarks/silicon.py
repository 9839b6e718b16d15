"""Rows of measured_silicon_*.csv as samples of deployments; what cannot be used is counted by reason, with file and line.

Columns as in aiconfigurator's silicon table: backend, backend_version, model_path, system, precision, isl, osl, batch_size,
tp_size, attention_dp_size, moe_tp_size, moe_ep_size, silicon_ttft_ms, silicon_tpot_ms. `batch_size` is per attention rank. An
empty precision is the checkpoint's own: what its name says, else that of the published weights. TensorRT-LLM keeps an 8-bit KV
cache for dense checkpoints of 8 and 4 bits, as their configurations ask.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from benchmarks.base import BenchmarkError
from placement.catalogue import Catalogue, CatalogueError, load
from placement.profiles.calibration import Deployment, Samples
from placement.profiles.figures import GpuFigures
from placement.profiles.shapes import figures_of

COLUMNS = (
    "backend",
    "model_path",
    "system",
    "precision",
    "isl",
    "osl",
    "batch_size",
    "tp_size",
    "silicon_tpot_ms",
)
PRECISIONS = (
    "fp4",
    "w4a",
    "fp8",
    "bf16",
    "bfloat16",
    "fp16",
    "float16",
    "int8",
    "w8a8",
    "int4",
    "awq",
    "gptq",
)
"""What a precision's name is searched for, in this order: fp8_block is fp8, nvfp4 and mxfp4 are fp4, the weights of w4afp8 int4."""

SAME = {"bfloat16": "bf16", "float16": "fp16", "w8a8": "int8", "w4a": "int4", "awq": "int4", "gptq": "int4"}


MOST = 1e9
"""What no column's number reaches: tokens, requests, GPUs, milliseconds."""


class Measured(NamedTuple):
    """One usable row: what ran, its load, and the time per output token in seconds."""

    system: str
    deployment: Deployment
    batch: float
    inputs: float
    outputs: float
    seconds: float


class Table(NamedTuple):
    """All rows of a folder: usable ones, how many were skipped for which reason, an example of each, and models guessed at."""

    rows: tuple[Measured, ...]
    skipped: dict[str, int]
    examples: dict[str, str]
    guessed: tuple[str, ...]

    @property
    def total(self) -> int:
        """Rows of the files."""
        return len(self.rows) + sum(self.skipped.values())


class _Unusable(Exception):
    def __init__(self, reason: str, told: str) -> None:
        super().__init__(told)
        self.reason = reason


def read(folder: Path) -> Table:
    """Every measured_silicon_*.csv of the folder. Raises: BenchmarkError when there is none, or columns are missing."""
    files = sorted(folder.glob("measured_silicon_*.csv"))
    if not files:
        raise BenchmarkError(
            f"{folder}: there is no measured_silicon_*.csv; name the folder that has it with --data."
        )
    catalogue = load()
    rows: list[Measured] = []
    skipped: Counter[str] = Counter()
    examples: dict[str, str] = {}
    guessed: set[str] = set()
    for path in files:
        for number, row in _lines(path):
            try:
                found, guess = _row(row, catalogue)
            except _Unusable as why:
                skipped[why.reason] += 1
                examples.setdefault(why.reason, f"{path.name} line {number}: {why}")
                continue
            rows.append(found)
            guessed |= {row["model_path"]} if guess else set()
    if not rows:
        told = "; ".join(examples.values()) or f"{', '.join(path.name for path in files)} has no rows"
        raise BenchmarkError(f"{folder}: no row can be used ({told}); give a table with at least one.")
    return Table(tuple(rows), dict(sorted(skipped.items())), examples, tuple(sorted(guessed)))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a file by line, what is missing at the end of a short one empty. BenchmarkError for columns or another encoding."""
    with path.open(newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines, restval="")
        try:
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise BenchmarkError(
                    f"{path.name} lacks the column {missing[0]}; it needs {', '.join(COLUMNS)}."
                )
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise BenchmarkError(
                f"{path.name} line {reader.line_num + 1}: {error}; save it as comma-separated values."
            ) from error
        except UnicodeDecodeError as error:
            raise BenchmarkError(
                f"{path.name} is no UTF-8 text ({error.reason}); save it as UTF-8."
            ) from error


def grouped(rows: Sequence[Measured]) -> list[Samples]:
    """Rows by deployment, in the order in which each comes first."""
    by: dict[Deployment, list[Measured]] = {}
    for row in rows:
        by.setdefault(row.deployment, []).append(row)
    return [
        Samples(
            deployment,
            np.array([row.batch for row in group]),
            np.array([row.inputs for row in group]),
            np.array([row.outputs for row in group]),
            np.array([row.seconds for row in group]),
        )
        for deployment, group in by.items()
    ]


def _row(row: dict[str, str], catalogue: Catalogue) -> tuple[Measured, bool]:
    batch, inputs, outputs = (_number(row, name) for name in ("batch_size", "isl", "osl"))
    milliseconds = _number(row, "silicon_tpot_ms")
    gpu = _product(row["system"], catalogue)
    try:
        model, guess, own = figures_of(row["model_path"])
    except KeyError as error:
        raise _Unusable("unknown model", str(error.args[0])) from error
    precision = _precision(row, own)
    engine = row["backend"].strip().lower()
    if engine == "trtllm" and precision in ("fp8", "fp4") and not model.experts:
        model = msgspec.structs.replace(model, kv_bytes_per_token=model.kv_bytes_per_token / 2.0)
    if not _absent(row, "pp_size") and _whole(row, "pp_size") > 1:
        told = f"pp_size is {row['pp_size']}; the formula has no stages, give rows of whole replicas"
        raise _Unusable("pipeline parallel", told)
    deployment = Deployment(
        gpu=gpu,
        model=model,
        tensor=_whole(row, "tp_size"),
        data=_absent(row, "attention_dp_size") or _whole(row, "attention_dp_size"),
        precision=precision,
        engine=engine,
        release=(row.get("backend_version") or "").strip(),
    )
    return Measured(row["system"], deployment, batch, inputs, outputs, milliseconds / 1e3), guess


def _precision(row: dict[str, str], own: str) -> str:
    said = (row["precision"] or "").strip().lower()
    named = next((each for each in PRECISIONS if each in (said or row["model_path"].lower())), "")
    if said and not named:
        raise _Unusable(
            "unknown precision",
            f"precision is {said[:40]!r}; name one of {', '.join(PRECISIONS)}, or leave it empty",
        )
    return SAME.get(named, named) or own


def _product(name: str, catalogue: Catalogue) -> GpuFigures:
    """The product of a system's name; of one with an unknown last part (`h200_nvl8`) that of the rest."""
    try:
        return catalogue.find(name).figures()
    except CatalogueError as error:
        shorter = name.rpartition("_")[0]
        try:
            return catalogue.find(shorter or name).figures()
        except CatalogueError:
            raise _Unusable("unknown GPU", str(error)) from error


def _whole(row: dict[str, str], column: str) -> int:
    value = _number(row, column)
    if value != int(value):
        raise _Unusable(f"no {column}", f"{column} is {value:g}; give a whole number of GPUs")
    return int(value)


def _number(row: dict[str, str], column: str) -> float:
    """A positive number that can be one of tokens, requests, GPUs or milliseconds."""
    text = (row[column] or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < MOST:
        raise _Unusable(
            f"no {column}", f"{column} is {text[:40]!r}; measure the point again or give a positive number"
        )
    return value


def _absent(row: dict[str, str], column: str) -> int:
    """1 where the column is absent, empty or 0, as tools write what they do not split; else 0."""
    return int(not (row.get(column) or "").strip().strip("0."))
