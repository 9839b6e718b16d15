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

from simulator.physics.measured import (
    MILLI,
    Band,
    MeasuredCost,
    MeasuredPower,
    lines,
    with_large_batches,
)
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
    errors = _errors(cost, rows)
    return MeasuredCost(
        name=name,
        source=f"{source}; fitted to {len(rows)} measurements by relative least squares",
        cost=cost,
        error=median(abs(error) for error in errors),
        band=_band(errors),
        kv_tokens=kv_tokens,
    )


def _band(errors: Sequence[float]) -> Band:
    low, high = np.quantile(errors, [0.05, 0.95]).tolist()
    return low, high


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
        found += [prefill / row.prefill_seconds - 1.0, decode / row.decode_seconds - 1.0]
    return found


class PowerRow(NamedTuple):
    """Fractions of TDP over a prompt phase of `tokens` and the decode behind it: the peak and the mean of both phases."""

    tokens: int
    prefill_seconds: float
    decode_seconds: float
    peak: float
    mean: float


FILLING_TOKENS = 1_024
"""Prompts of so many tokens keep the arithmetic units of every measured engine busy."""
MOSTLY = 0.95
"""Where decode took at least this share of the time, the mean is that of decode."""


def fit_power(source: str, rows: Sequence[PowerRow]) -> MeasuredPower | None:
    """Fractions of TDP from measured peaks and means; None where no row has power, or none tells one of the two phases.

    The error counts all peaks and means, those too that chose neither number: short prompts peak lower.
    """
    rows = [row for row in rows if row.peak > 0.0 and row.mean > 0.0]
    peaks = [row.peak for row in rows if row.tokens >= FILLING_TOKENS]
    means = [
        row.mean for row in rows if row.decode_seconds >= MOSTLY * (row.prefill_seconds + row.decode_seconds)
    ]
    if not (peaks and means):
        return None
    prefill, decode = median(peaks), median(means)
    errors = []
    for row in rows:
        joules = prefill * row.prefill_seconds + decode * row.decode_seconds
        errors += [
            prefill / row.peak - 1.0,
            joules / (row.prefill_seconds + row.decode_seconds) / row.mean - 1.0,
        ]
    return MeasuredPower(
        source=f"{source}; medians of {len(peaks)} peaks behind {FILLING_TOKENS} tokens or more, and of {len(means)} means",
        prefill_fraction=prefill,
        decode_fraction=decode,
        error=median(abs(error) for error in errors),
        band=_band(errors),
    )


SPLITWISE = "Splitwise (Patel et al., ISCA'24), measured performance model of splitwise-sim"
SPLITWISE_COLUMNS = (
    "model", "hardware", "tensor_parallel", "prompt_size", "batch_size", "token_size", "prompt_time", "token_time",
    "e2e_time", "peak_power", "average_power",
)  # fmt: skip
APART = 1.5
"""A request that took so many times its prompt and steps did not run with its whole batch at once: no step of that batch."""


def read_splitwise(path: Path) -> dict[tuple[str, str, int], MeasuredCost]:
    """A cost model for each (model, hardware, tensor parallel degree) of a table of measurements [ms, fractions of TDP].

    A power of 0 means that none was measured. Batches that did not run at once are left out, and answers that ended early count
    as long as they took. Raises ProfileError for a file that cannot be read, a missing column or a cell that is no number, with
    its line.
    """
    tables: dict[tuple[str, str, int], list[Measurement]] = {}
    powers: dict[tuple[str, str, int], list[PowerRow]] = {}
    for line, row in _rows(path, SPLITWISE_COLUMNS):
        try:
            prompt, batch, asked = (int(row[name]) for name in ("prompt_size", "batch_size", "token_size"))
            first, step, whole = (
                float(row[name]) * MILLI for name in ("prompt_time", "token_time", "e2e_time")
            )
            peak, mean = float(row["peak_power"]), float(row["average_power"])
            key = (row["model"], row["hardware"], int(row["tensor_parallel"]))
        except ValueError as error:
            raise ProfileError(f"{path}:{line}: {error}. Correct the cell.") from None
        table, power = tables.setdefault(key, []), powers.setdefault(key, [])
        if whole > APART * (first + asked * step):
            continue
        output = min(asked, (whole - first) / step) if step > 0.0 else asked
        table.append(Measurement(batch, prompt, batch * (prompt + output / 2), first, step))
        power.append(PowerRow(batch * prompt, first, max(whole - first, 0.0), peak, mean))
    return {key: _splitwise(key, tables[key], powers[key]) for key in sorted(tables)}


def _splitwise(key: tuple[str, str, int], rows: list[Measurement], powers: list[PowerRow]) -> MeasuredCost:
    model, hardware, ways = key
    found = fit(f"{model} on {ways} x {hardware}", SPLITWISE, rows)
    return msgspec.structs.replace(found, gpus=ways, power=fit_power(SPLITWISE, powers))


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
    """What a user measured: `name`, `source`, and rows of (batch, prompt tokens, context tokens, prefill s, decode s).

    `gpus` is the tensor parallel degree it was measured at, `power` the fractions of TDP that were seen, with a source of its own.
    """

    name: str
    source: str
    measurements: tuple[tuple[int, int, float, float, float], ...]
    kv_tokens: int = 0
    gpus: int = 0
    power: MeasuredPower | None = None


def read_profile(path: Path) -> MeasuredCost:
    """A user's profile in YAML or JSON. Raises ProfileError naming the file and the field."""
    try:
        given: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        profile = msgspec.convert(given, UserProfile, strict=False)
        found = fit(
            profile.name,
            profile.source,
            [Measurement(*row) for row in profile.measurements],
            profile.kv_tokens,
        )
        return msgspec.structs.replace(found, gpus=profile.gpus, power=profile.power)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror or error}. Give the path of a readable file.") from error
    except (ValueError, yaml.YAMLError) as error:
        raise ProfileError(f"{path}: {error}") from error
