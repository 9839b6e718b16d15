"""Step times that were measured on an engine, in place of the roofline; each says where it comes from.

Published fits give a prompt of n tokens as ``a + b n + c n²`` and a decode step as ``a' + b' context + c' batch``. As
coefficients of one step: ``matmul = b``, ``attention = 2 c`` (n tokens have n²/2 pairs), ``kv = b'``, ``per_sequence = c'``.
Of the two constants the smaller is ``fixed``; what a decode has beyond it is the pass over the weights, which overlaps with
the arithmetic of a prompt; what a prompt has beyond it is ``prompt_fixed``. Decode steps and prompts of more tokens than the
pass hides are then exactly as published; a step of both is their sum with the weights passed once.
"""

from __future__ import annotations

import math

import msgspec

from simulator.physics.stepcost import StepCost

COEFFICIENTS = (
    "weights", "matmul", "kv", "attention", "comm_token", "fixed", "per_sequence", "prompt_fixed", "decode_tokens",
)  # fmt: skip


Band = tuple[float, float]
"""5th and 95th percentile of the relative error, (model / measured) - 1."""


class MeasuredPower(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What each GPU draws at full clock, as fractions of its TDP: prompts that fill it, and decode.

    ``source``, ``error`` and ``band`` as in `MeasuredCost`. Raises ValueError for a fraction that is not positive or above 2
    (boards peak a little above their TDP, not at twice of it), or an empty source.
    """

    source: str
    prefill_fraction: float
    decode_fraction: float
    error: float | None = None
    band: Band | None = None

    def __post_init__(self) -> None:
        _sourced("measured power", self.source)
        for field in ("prefill_fraction", "decode_fraction"):
            value = getattr(self, field)
            if not 0.0 < value <= 2.0:
                raise ValueError(
                    f"{field} of measured power is {value}; it is a fraction of TDP, above 0 and at most 2"
                )


class MeasuredCost(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A step cost at full clock, with its provenance.

    ``source`` says where the numbers were read and what was fitted or derived, ``error`` is the median relative error
    against what it was fitted on and ``band`` where nine tenths of the errors lie (None where the source tells none).
    ``kv_tokens`` is the KV capacity that was measured with it; 0 takes it from the GPU's memory. ``gpus`` is the tensor
    parallel degree it was measured at (0: not told), ``power`` what its GPUs drew.

    Raises ValueError when a coefficient is negative or not finite, or the source is empty.
    """

    name: str
    source: str
    cost: StepCost
    error: float | None = None
    band: Band | None = None
    kv_tokens: int = 0
    gpus: int = 0
    power: MeasuredPower | None = None

    def __post_init__(self) -> None:
        _sourced(f"cost model {self.name}", self.source)
        cost: StepCost | None = self.cost
        while cost is not None:
            for field in COEFFICIENTS:
                value = getattr(cost, field)
                if not 0.0 <= value < math.inf:
                    raise ValueError(
                        f"{field} of cost model {self.name} is {value}; it must be finite and not negative"
                    )
            if cost.seconds(1, 0, 1, 0.0) <= 0.0:
                raise ValueError(f"cost model {self.name} gives a step that takes no time")
            cost = cost.beyond


def _sourced(what: str, source: str) -> None:
    if not source.strip():
        raise ValueError(f"{what} does not say where its numbers come from: fill in `source`")


def lines(prefill: tuple[float, float, float], decode: tuple[float, float, float]) -> StepCost:
    """Coefficients from a prompt's ``(a, b, c)`` and a decode step's ``(a', b' per context token, c' per sequence)`` [s]."""
    fixed = min(prefill[0], decode[0])
    return StepCost(
        weights=decode[0] - fixed,
        matmul=prefill[1],
        kv=decode[1],
        attention=2.0 * prefill[2],
        comm_token=0.0,
        fixed=fixed,
        per_sequence=decode[2],
        prompt_fixed=prefill[0] - fixed,
        decode_tokens=0.0,
    )


def with_large_batches(small: StepCost, large: StepCost, from_batch: int) -> StepCost:
    """``small`` below ``from_batch`` decoding sequences, ``large`` from there on."""
    return msgspec.structs.replace(small, from_batch=from_batch, beyond=large)


MILLI = 1e-3
LLAMA_7B_A10_LLUMNIX = MeasuredCost(
    name="llama-7b on A10 (Llumnix)",
    source=(
        "Llumnix (OSDI'24) fig. 10: recompute times of 256 to 8k tokens give 5.6 + 0.203 n + 5.1e-6 n^2 ms, decode steps at "
        "8k tokens in all give 43.3 ms + 0.27 ms a further sequence. What the figure cannot tell, the share of the 8k tokens, "
        "is their bytes over 80 % of the A10's 600 GB/s: 0.5 MiB a token, 1.092e-3 ms. KV: 851 blocks of 16 tokens, as its artifact. "
        "The error is that of the six recompute times; that of the decode steps cannot be told from two points."
    ),
    error=0.008,
    band=(-0.015, 0.014),
    cost=lines(
        prefill=(5.6 * MILLI, 0.203 * MILLI, 5.1e-6 * MILLI),
        decode=((43.3 - 0.27 - 8_192 * 1.092e-3) * MILLI, 1.092e-3 * MILLI, 0.27 * MILLI),
    ),
    kv_tokens=851 * 16,
)
"""Not tuned to any result of the paper's comparison."""

LLAMA_7B_A10_VLLM_017 = msgspec.structs.replace(
    LLAMA_7B_A10_LLUMNIX,
    name="llama-7b on A10, vLLM 0.1.7 (Llumnix)",
    source=(
        "As the one of Llumnix fig. 10, which is of vLLM 0.2.0, for the vLLM 0.1.7 of the paper's other figures (README of its "
        "artifact). TUNED to one anchor: decode's 1.85e-3 ms a context token and 0.5 ms a sequence (of 1.092e-3 and 0.27) are what "
        "brings the mean decode latency of Llumnix in fig. 11, at the lowest rate of each of its 5 traces, to 3.9 % (root mean square; "
        "-19 % without). Where from: that engine turns all output of a sequence into text again at each token, and "
        "runs Python for each sequence. Fig. 11's ratios, prefill and request latencies were not tuned to, though one trial's were seen."
    ),
    cost=lines(
        prefill=(5.6 * MILLI, 0.203 * MILLI, 5.1e-6 * MILLI),
        decode=((43.3 - 0.27 - 8_192 * 1.092e-3) * MILLI, 1.85e-3 * MILLI, 0.5 * MILLI),
    ),
    error=0.039,
)
"""For `scheduling: prefill_first`; says what it was tuned to."""

OPT_13B_A100_DISTSERVE = MeasuredCost(
    name="opt-13b on A100 (DistServe)",
    source=(
        "simdistserve's profile of DistServe's engine, OPT-13B, tensor parallel 1: prompt 18.10 + 0.1019 n + 7.122e-6 n^2 ms; decode "
        "19.93 + 6.269e-4 context + 0.03851 batch ms, from 95 sequences on 7.166 + 5.798e-4 context + 0.1583 batch ms. The "
        "profile has the coefficients alone and tells no error of them."
    ),
    gpus=1,
    cost=with_large_batches(
        lines(
            (18.10 * MILLI, 0.1019 * MILLI, 7.122e-6 * MILLI),
            (19.93 * MILLI, 6.269e-4 * MILLI, 0.03851 * MILLI),
        ),
        lines(
            (18.10 * MILLI, 0.1019 * MILLI, 7.122e-6 * MILLI),
            (7.166 * MILLI, 5.798e-4 * MILLI, 0.1583 * MILLI),
        ),
        95,
    ),
    kv_tokens=66_144,
)

KNOWN = {cost.name: cost for cost in (LLAMA_7B_A10_LLUMNIX, LLAMA_7B_A10_VLLM_017, OPT_13B_A100_DISTSERVE)}
"""Measured cost models that are shipped, by name."""
