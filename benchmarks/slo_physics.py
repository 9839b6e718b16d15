"""Engines that behave as a throughput profile says: step times and KV room are recovered from the profile's own grid.

A profile lists requests/s of one replica at the largest batch B with T(B) <= TPOT, at most 256 requests and K tokens of KV:

    T(B) = max(W, m B) + m p + a p I + k B (I + O/2) + c0 + c1 B,    p = B I / O,    B (I + O/2) <= K

(research/gpu-selection.md §2.7; prompts in steps of their own). W, m, a, k and K are fitted to the grid; c0 and c1 are read from
the profile's `kind`, else 10 and 0.5 ms. The simulator's engine then steps in chunks, which the mean of this formula is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from benchmarks.base import BenchmarkError
from cluster.size_plan import StepFigures
from simulator.physics.catalogue import L4
from simulator.physics.measured import MeasuredCost
from simulator.physics.specs import EngineSpec, GpuSpec, ModelSpec
from simulator.physics.stepcost import StepCost

Floats = NDArray[np.float64]

MOST_RUNNING = 256
WORST_FIT = 0.03
"""Median relative error of a fit from which the profile is said not to follow the formula."""

MET = 1e-3
"""Largest relative error at which a grid is met and no other start is tried."""

STARTS = ((300e9, 100e12, 15e3), (900e9, 300e12, 50e3), (3e12, 900e12, 120e3))
"""Bandwidth, FLOP/s and KV tokens at which fits begin (7B parameters in 16 bit)."""

MODEL = ModelSpec(
    name="llama-2-7b", parameters=6.74e9, weight_bytes=13_480_000_000, layers=32, hidden=4096, kv_bytes_per_token=524_288
)  # fmt: skip


class Physics(msgspec.Struct, frozen=True):
    """One replica: seconds of the pass over the weights, per token of arithmetic, per pair of a prompt, per token held, fixed
    and per request; KV tokens; and how well the profile's grid is met (median and largest relative error).
    """

    weights: float
    matmul: float
    pair: float
    context: float
    fixed: float
    request: float
    kv_tokens: int
    median_error: float
    largest_error: float

    def steps(self) -> StepFigures:
        """What gateways need to know of it."""
        return StepFigures(
            base_seconds=self.weights + self.fixed, request_seconds=self.request, context_seconds=self.context,
            prompt_seconds=self.matmul, pair_seconds=self.pair,
        )  # fmt: skip

    def engine(self, name: str, chunk: int) -> EngineSpec:
        """The simulator's engine; `name` is the GPU. Its attention counts pairs, of which n tokens have n²/2."""
        cost = StepCost(
            weights=self.weights, matmul=self.matmul, kv=self.context, attention=2.0 * self.pair, comm_token=0.0,
            fixed=self.fixed, per_sequence=self.request,
        )  # fmt: skip
        return EngineSpec(
            max_num_seqs=min(MOST_RUNNING, chunk - 1), chunk_tokens=chunk, admission="grow",
            measured=MeasuredCost(name=name, source="fitted to the profile's grid", cost=cost, kv_tokens=self.kv_tokens),
        )  # fmt: skip


def gpu_spec(name: str) -> GpuSpec:
    """A GPU whose speed and memory the engine's measured cost replaces."""
    return msgspec.structs.replace(L4, product=name)


def fitted(profile: dict[str, Any], name: str) -> Physics:
    """The physics behind one GPU's grid. BenchmarkError where the formula does not describe it."""
    inputs = np.array(profile["input_edges"], dtype=np.float64)[:, None]
    outputs = np.array(profile["output_edges"], dtype=np.float64)[None, :]
    rates = np.array(profile["gpus"][name]["tputs"], dtype=np.float64)
    fixed, request = _overheads(str(profile.get("kind", "")))
    known = rates > 0.0

    def errors(logs: Floats) -> Floats:
        found = _rates(np.exp(logs), inputs, outputs, float(profile["tpot_slo_s"]), fixed, request)
        wrong: Floats = np.log(np.maximum(found[known], 1e-12) / rates[known])
        return np.clip(wrong, -2.0, 2.0)

    if not known.any():
        raise BenchmarkError(
            f"The profile has no feasible size for {name}; leave it out or measure it again."
        )
    best = _best(errors)
    off = np.abs(errors(best))
    if float(np.median(off)) > WORST_FIT:
        raise BenchmarkError(
            f"The throughput of {name} does not follow the step-time formula (median error {np.median(off):.1%}), so no engine "
            "can be simulated for it; give a profile of one continuous-batching engine."
        )
    weights, matmul, pair, context, room = np.exp(best).tolist()
    return Physics(
        weights, matmul, pair, context, fixed, request, int(room), float(np.median(off)), float(off.max())
    )


def _best(errors: Callable[[Floats], Floats]) -> Floats:
    """Logarithms of the coefficients with the least error; the first start that meets the grid ends the search."""
    found: list[tuple[float, Floats]] = []
    for each in STARTS:
        fit = least_squares(errors, _start(*each), loss="soft_l1", f_scale=0.01, max_nfev=60)
        found.append((float(fit.cost), fit.x))
        if float(np.abs(errors(fit.x)).max()) < MET:
            break
    return min(found, key=lambda pair: pair[0])[1]


def _overheads(kind: str) -> tuple[float, float]:
    """c0 and c1 in seconds, as `c0=10ms c1=0.5ms` in the profile's own words."""
    found = [re.search(rf"\b{name}=([0-9.]+)ms", kind) for name in ("c0", "c1")]
    first, second = (
        float(each.group(1)) / 1e3 if each else default
        for each, default in zip(found, (0.010, 0.0005), strict=True)
    )
    return first, second


def _start(bandwidth: float, flops: float, room: float) -> Floats:
    return np.log(
        [
            13.48e9 / bandwidth,
            13.48e9 / flops,
            2.0 * MODEL.hidden * MODEL.layers / flops,
            MODEL.kv_bytes_per_token / bandwidth,
            room,
        ]
    )


def _rates(
    values: Floats, inputs: Floats, outputs: Floats, tpot: float, fixed: float, request: float
) -> Floats:
    """Requests/s [inputs x outputs] of the formula, by bisection for B."""
    weights, matmul, pair, context, room = values
    held = inputs + outputs / 2.0

    def seconds(batch: Floats) -> Floats:
        prefill = batch * inputs / outputs
        found: Floats = (
            np.maximum(weights, matmul * batch)
            + matmul * prefill
            + pair * prefill * inputs
            + context * batch * held
            + fixed
            + request * batch
        )
        return found

    most = np.minimum(float(MOST_RUNNING), room / held)
    low, high = np.zeros_like(held), most.copy()
    for _ in range(40):
        middle = (low + high) / 2.0
        fits = seconds(middle) <= tpot
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    batch = np.where(seconds(most) <= tpot, most, low)
    return np.asarray(batch / (outputs * seconds(batch)))
