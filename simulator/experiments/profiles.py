"""Measured engines as cost models: tables of whole prompts and decode steps fitted, published fits and users' files read.

A fit minimises relative errors with coefficients that are not negative, so that it may be extrapolated without turning
round, and says its median error beside its source.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec
import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import nnls

from simulator.physics.measured import MILLI, MeasuredCost, lines, with_large_batches
from simulator.physics.stepcost import StepCost

LEAST_ROWS = 4
"""Fewer measurements of a phase do not carry its three coefficients."""


class ProfileError(ValueError):
    """A profile that cannot be used; the sentence says what is wrong, where, and what to do."""


class Measurement(NamedTuple):
    """`batch` prompts of `prompt` tokens each took `prefill_seconds`; decoding behind them `decode_seconds` a step.

    `context` is what all sequences together had in their caches at that step, on the mean.
    """

    batch: int
    prompt: int
    context: float
    prefill_seconds: float
    decode_seconds: float


def fit(name: str, source: str, rows: Sequence[Measurement], kv_tokens: int = 0) -> MeasuredCost:
    """The step cost that fits measurements best. Raises ProfileError with too few of them or with one that is no time."""
    if len(rows) < LEAST_ROWS:
        raise ProfileError(
            f"{name}: {len(rows)} measurements, needs {LEAST_ROWS}; measure more prompt and batch sizes."
        )
    if not all(0.0 < t < math.inf for row in rows for t in row[3:]):
        raise ProfileError(f"{name}: a time is not positive and finite; leave that measurement out.")
    tokens = np.array([row.batch * row.prompt for row in rows], dtype=float)
    pairs = np.array([row.batch * row.prompt**2 for row in rows], dtype=float)
    prefill = _relative(
        np.column_stack([np.ones(len(rows)), tokens, pairs]), [row.prefill_seconds for row in rows]
    )
    contexts, batches = ([getattr(row, field) for row in rows] for field in ("context", "batch"))
    decode = _relative(
        np.column_stack([np.ones(len(rows)), contexts, batches]), [row.decode_seconds for row in rows]
    )
    cost = lines(prefill, decode)
    return MeasuredCost(
        name=name,
        source=f"{source}; fitted to {len(rows)} measurements by relative least squares",
        cost=cost,
        error=median(_errors(cost, rows)),
        kv_tokens=kv_tokens,
    )


def _relative(columns: NDArray[np.float64], seconds: Sequence[float]) -> tuple[float, float, float]:
    wanted = np.asarray(seconds)
    scale = np.abs(columns).max(axis=0)
    found, _ = nnls(columns / scale / wanted[:, None], np.ones(len(wanted)))
    first, second, third = (found / scale).tolist()
    return first, second, third


def _errors(cost: StepCost, rows: Iterable[Measurement]) -> list[float]:
    found = []
    for row in rows:
        prefill = cost.seconds(0, row.batch * row.prompt, 0, row.batch * row.prompt**2 / 2)
        decode = cost.at(row.batch).seconds(row.batch, 0, round(row.context), 0.0)
        found += [abs(prefill / row.prefill_seconds - 1.0), abs(decode / row.decode_seconds - 1.0)]
    return found


SPLITWISE = "Splitwise (Patel et al., ISCA'24), measured performance model of splitwise-sim"
SPLITWISE_COLUMNS = (
    "model", "hardware", "tensor_parallel", "prompt_size", "batch_size", "token_size", "prompt_time", "token_time",
)  # fmt: skip


def read_splitwise(path: Path) -> dict[tuple[str, str, int], MeasuredCost]:
    """A cost model for each (model, hardware, tensor parallel degree) of a table of measurements [ms].

    Raises ProfileError for a file that cannot be read, a missing column or a cell that is no number, with its line.
    """
    tables: dict[tuple[str, str, int], list[Measurement]] = {}
    for line, row in _rows(path, SPLITWISE_COLUMNS):
        try:
            prompt, batch, output = (int(row[name]) for name in ("prompt_size", "batch_size", "token_size"))
            times = [float(row[name]) * MILLI for name in ("prompt_time", "token_time")]
            key = (row["model"], row["hardware"], int(row["tensor_parallel"]))
        except ValueError as error:
            raise ProfileError(f"{path}:{line}: {error}. Correct the cell.") from None
        tables.setdefault(key, []).append(Measurement(batch, prompt, batch * (prompt + output / 2), *times))
    return {
        key: fit(f"{key[0]} on {key[2]} x {key[1]}", SPLITWISE, rows) for key, rows in sorted(tables.items())
    }


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in columns if name not in (reader.fieldnames or ())]
            if missing:
                raise ProfileError(
                    f"{path}: line 1 has no column {missing[0]!r}; needed are {', '.join(columns)}."
                )
            return [(reader.line_num, {name: row[name] or "" for name in columns}) for row in reader]
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror or error}. Give the path of a readable file.") from error


class DistServeFit(msgspec.Struct, frozen=True):
    """One entry of simdistserve's profile: `a + b Σl + c Σl²` of prompts, `a + b ΣL + c B` of decode steps [ms]."""

    prefill: tuple[float, float, float]
    decoding_smallbs: tuple[float, float, float]
    decoding_largebs: tuple[float, float, float]
    decoding_large_small_bs_threshold: int


def read_distserve(path: Path) -> dict[tuple[str, int], MeasuredCost]:
    """Cost models by (model, tensor parallel degree) from simdistserve's JSON. Raises ProfileError as `read_splitwise`."""
    try:
        table = msgspec.json.decode(path.read_bytes(), type=dict[str, dict[str, DistServeFit]])
        return {
            (model, int(ways)): _distserve(f"{model}, tensor parallel {ways}", entry)
            for model, by_ways in table.items()
            for ways, entry in by_ways.items()
        }
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror or error}. Give the path of a readable file.") from error
    except ValueError as error:
        raise ProfileError(f"{path}: {error}") from error


def _distserve(name: str, entry: DistServeFit) -> MeasuredCost:
    small, large = (
        lines(_milli(entry.prefill), _milli(line))
        for line in (entry.decoding_smallbs, entry.decoding_largebs)
    )
    cost = with_large_batches(small, large, entry.decoding_large_small_bs_threshold)
    return MeasuredCost(
        name=name, source="simdistserve (Zhong et al., DistServe, OSDI'24), A100 profile", cost=cost
    )


def _milli(values: tuple[float, float, float]) -> tuple[float, float, float]:
    return values[0] * MILLI, values[1] * MILLI, values[2] * MILLI


class UserProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user measured: `name`, `source`, and rows of (batch, prompt tokens, context tokens, prefill s, decode s)."""

    name: str
    source: str
    measurements: tuple[tuple[int, int, float, float, float], ...]
    kv_tokens: int = 0


def read_profile(path: Path) -> MeasuredCost:
    """A user's profile in YAML or JSON. Raises ProfileError naming the file and the field."""
    try:
        given: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        profile = msgspec.convert(given, UserProfile, strict=False)
        return fit(
            profile.name,
            profile.source,
            [Measurement(*row) for row in profile.measurements],
            profile.kv_tokens,
        )
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror or error}. Give the path of a readable file.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ProfileError(f"{path}: {error}") from error
