"""Throughput of one replica under a latency objective, from the step-time formula alone.

For requests of I input and O output tokens in steady state with B requests running, the mean context is I + O / 2 and the mean
step takes TPOT(B): of O steps a prompt's chunks fill some, and the others read all weights too (`placement.profiles.steady`).
With p = B I / O, the prompt tokens that come in a step's time, the replica runs at the largest B with

    time per output token   TPOT(B) <= tpot_seconds
    time to first token     TPOT(B) + ceil(I / chunk) T(B, q) <= ttft_seconds,   q = max(p, min(I, chunk))
    memory                  B (I + O) <= KV tokens beside the weights,   B <= max_sequences

and carries B / (O TPOT) requests per second. Both times grow with B, and but for mixtures of experts they are convex in it, so a few
Newton steps between two bounds give the largest B of all sizes at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.reasons import Unit
from placement.profiles.grid import Grid
from placement.profiles.steady import carrying_seconds, steady_seconds
from placement.profiles.steptime import StepTime

Floats = NDArray[np.float64]

ROUNDS = 40
"""Most rounds on the way to the largest batch; some six do but for kinks."""

CLOSE = 1e-9
"""Relative distance from a limit that counts as none."""


class Limits(msgspec.Struct, frozen=True):
    """The latency objective: seconds per output token and seconds to the first one (inf: not asked)."""

    tpot_seconds: float
    ttft_seconds: float = math.inf


class Infeasible(msgspec.Struct, frozen=True):
    """Why a variant serves nothing: a reason code with the numbers that decided it and the sentence."""

    code: str
    need: float
    have: float
    unit: Unit
    sentence: str


class ThroughputGrid(msgspec.Struct, frozen=True):
    """Requests per second [inputs x outputs] of one replica (0 = infeasible) and the running requests B there.

    ``infeasible`` is set when not even the smallest size can be served.
    """

    grid: Grid
    requests_per_second: Floats
    concurrency: Floats
    infeasible: Infeasible | None = None


def throughput_grid(step: StepTime, grid: Grid, limits: Limits) -> ThroughputGrid:
    """Throughput of ``step``'s replica over all sizes of ``grid`` under ``limits``.

    Raises ValueError when a limit is not a positive number.
    """
    _check(limits)
    inputs = np.array(grid.input_edges, dtype=np.float64)[:, None]
    outputs = np.array(grid.output_edges, dtype=np.float64)[None, :]
    size_in, size_out = (np.asarray(each) for each in np.broadcast_arrays(inputs, outputs))
    batch = _memory_batch(step, size_in, size_out)
    batch = _largest(lambda most: steady_seconds(step, most, size_in, size_out), batch, limits.tpot_seconds)
    if math.isfinite(limits.ttft_seconds):
        batch = _largest(
            lambda most: _first_seconds(step, most, size_in, size_out), batch, limits.ttft_seconds
        )
    feasible = batch >= 1.0
    safe = np.where(feasible, batch, 1.0)
    seconds = steady_seconds(step, safe, size_in, size_out)
    rate = np.where(feasible, safe / (outputs * seconds), 0.0)
    reason = None if feasible.any() else explain_infeasible(step, grid, limits)
    return ThroughputGrid(grid, rate, np.where(feasible, safe, 0.0), reason)


def explain_infeasible(step: StepTime, grid: Grid, limits: Limits) -> Infeasible:
    """The limit that excludes the smallest size of the grid, memory first, then time per token, then first token."""
    smallest_in, smallest_out = float(grid.input_edges[0]), float(grid.output_edges[0])
    name = f"{step.model.name} {step.precision} on {step.tensor} x {step.gpu.name}"
    weights = step.model.weight_bytes(step.precision) + step.constants.reserve_bytes
    need = weights + step.model.kv_bytes_per_token * (smallest_in + smallest_out)
    have = step.constants.memory_fraction * step.gpu.memory_bytes * step.tensor
    if need > have:
        text = f"{name} needs {need / 1e9:.1f} GB for weights and one request, usable are {have / 1e9:.1f} GB"
        return Infeasible("MemoryTooSmall", need, have, "B", text)
    floor, asked = step.floor_seconds() * 1e3, limits.tpot_seconds * 1e3
    one, size = np.ones((1, 1)), (np.full((1, 1), smallest_in), np.full((1, 1), smallest_out))
    alone = float(steady_seconds(step, one, *size)[0, 0]) * 1e3
    if floor > asked:
        text = f"{name} reads its weights in {floor:.0f} ms a token, {asked:.0f} ms are asked"
        return Infeasible("TpotFloor", asked, floor, "ms", text)
    if alone > asked:
        text = f"{name} takes {alone:.0f} ms a token for one request alone, {asked:.0f} ms are asked"
        return Infeasible("TpotFloor", asked, alone, "ms", text)
    first, limit = float(_first_seconds(step, one, *size)[0, 0]) * 1e3, limits.ttft_seconds * 1e3
    text = f"{name} needs {first:.0f} ms to the first token of one request alone, {limit:.0f} ms are asked"
    return Infeasible("TtftFloor", limit, first, "ms", text)


def _check(limits: Limits) -> None:
    if not 0.0 < limits.tpot_seconds < math.inf:
        raise ValueError(f"tpot_seconds is {limits.tpot_seconds}; ask for a positive time per output token")
    if not limits.ttft_seconds > 0.0:
        raise ValueError(f"ttft_seconds is {limits.ttft_seconds}; ask for a positive time to the first token")


def _memory_batch(step: StepTime, inputs: Floats, outputs: Floats) -> Floats:
    room = step.kv_capacity_tokens() / (inputs + outputs)
    batch: Floats = np.minimum(float(step.constants.max_sequences), room)
    return batch


def _prompt_seconds(step: StepTime, batch: Floats, inputs: Floats, outputs: Floats) -> Floats:
    """Time of a step that carries a chunk of a prompt of the size besides the steady work."""
    chunk = np.minimum(inputs, float(step.constants.chunk_tokens))
    prefill = np.maximum(batch * inputs / outputs, chunk)
    return carrying_seconds(step, batch, prefill, batch * (inputs + outputs / 2.0), inputs)


def _first_seconds(step: StepTime, batch: Floats, inputs: Floats, outputs: Floats) -> Floats:
    """Time to the first token: the step under way, then the prompt's own chunks."""
    chunks = np.ceil(inputs / step.constants.chunk_tokens)
    return steady_seconds(step, batch, inputs, outputs) + chunks * _prompt_seconds(
        step, batch, inputs, outputs
    )


def _largest(seconds: Callable[[Floats], Floats], most: Floats, limit: float) -> Floats:
    """Largest batch per cell with ``seconds(batch) <= limit``, from 1 to ``most``; 0 where that is below 1 or one takes longer.

    ``seconds`` grows. Newton's method, between the longest batch known to be in time and the shortest known to be too long;
    where a step would leave these it halves them instead.
    """
    able = (most >= 1.0) & (seconds(np.ones_like(most)) <= limit)
    low, high = np.where(able, 1.0, 0.0), np.where(able, most, 0.0)
    batch = high
    for _ in range(ROUNDS):
        now = seconds(batch)
        kept = now <= limit
        low, high = np.where(kept, np.maximum(low, batch), low), np.where(kept, high, batch)
        if ((high - low <= CLOSE * high) | (kept & ((batch >= high) | (now >= limit * (1.0 - CLOSE))))).all():
            break
        width = 1e-6 * np.maximum(batch, 1.0)
        slope = (now - seconds(batch - width)) / width
        guess = batch - (now - limit) / np.maximum(slope, 1e-300)
        batch = np.where((guess > low) & (guess < high), guess, (low + high) / 2.0)
    return low
