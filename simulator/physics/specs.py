"""What a simulated machine is made of: GPUs, models and engines as plain frozen numbers with units.

These structs are the only input of the physics. Whoever builds a world (the fleet, the discrete-event
simulator) fills them from manifests, snapshots or the catalogue; the physics looks nothing up.
"""

import itertools
import math
from typing import Final, Literal

import msgspec

from simulator.physics.measured import MeasuredCost

Link = Literal["nvlink", "pcie"]
Precision = Literal["fp32", "fp16", "bf16", "fp8", "int8", "int4"]
Admission = Literal["reserve", "grow"]
Scheduling = Literal["chunked", "prefill_first"]

BYTES_PER_PARAMETER: Final[dict[str, float]] = {
    "fp32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5,
}
"""Bytes that one weight takes in memory, by precision."""


class GpuSpec(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Datasheet of one GPU product.

    ``flops_per_second`` is dense 16-bit; ``flops_8bit_per_second`` 0 means no 8-bit tensor cores.
    ``link_bytes_per_second`` is one direction between the GPUs of a node. ``min_watts`` to ``max_watts`` is the
    range that a power limit may take, ``base_mhz`` to ``max_mhz`` the clocks the product sustains under load and
    ``min_mhz`` the lowest clock it can be locked to.

    Raises ValueError when a figure is not positive or a range is upside down.
    """

    product: str
    memory_bytes: int
    bandwidth_bytes_per_second: float
    flops_per_second: float
    idle_watts: int
    min_watts: int
    tdp_watts: int
    max_watts: int
    min_mhz: int
    base_mhz: int
    max_mhz: int
    step_mhz: int = 15
    flops_8bit_per_second: float = 0.0
    link: Link = "pcie"
    link_bytes_per_second: float = 32e9
    pcie_bytes_per_second: float = 25e9

    def __post_init__(self) -> None:
        where = f"GPU {self.product}"
        check_positive(where, self, ("memory_bytes", "bandwidth_bytes_per_second", "flops_per_second"))
        check_positive(where, self, ("idle_watts", "min_watts", "min_mhz", "step_mhz"))
        check_positive(where, self, ("link_bytes_per_second", "pcie_bytes_per_second"))
        check_rising(where, self, ("idle_watts", "tdp_watts", "max_watts"))
        check_rising(where, self, ("min_watts", "tdp_watts"))
        check_rising(where, self, ("min_mhz", "base_mhz", "max_mhz"))


class ModelSpec(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Shape of one transformer as far as speed and memory depend on it.

    ``parameters`` are those active for a token (they decide the arithmetic); ``weight_bytes`` is what all of them
    take in memory. ``kv_bytes_per_token`` is over all layers at the cache's precision.

    Raises ValueError when a figure is not positive.
    """

    name: str
    parameters: float
    weight_bytes: int
    layers: int
    hidden: int
    kv_bytes_per_token: int
    precision: Precision = "fp16"

    def __post_init__(self) -> None:
        names = ("parameters", "weight_bytes", "layers", "hidden", "kv_bytes_per_token")
        check_positive(f"model {self.name}", self, names)


class RooflineConstants(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Achievable fractions, fixed times and clock exponents of the step-time formula.

    Defaults (research/gpu-selection.md §2.7, "Model to ship"): fitted on operator-level measurements of current
    engines, vLLM 0.6 or later and TensorRT-LLM. ``bandwidth_clock_exponent`` says how weakly memory-bound time
    follows the compute clock (research/power.md §6, memory-bound decode 0.10); compute-bound time follows it in
    full. Who gives other numbers says in ``source`` where they are from.
    """

    bandwidth_fraction: float = 0.875
    compute_fraction: float = 0.73
    compute_fraction_parallel_16bit: float = 0.77
    compute_fraction_parallel_8bit: float = 0.47
    fixed_seconds: float = 0.0034
    per_sequence_seconds: float = 0.0
    nvlink_latency_seconds: float = 9e-6
    nvlink_fraction: float = 0.77
    pcie_latency_seconds: float = 3.4e-5
    pcie_fraction: float = 0.08
    compute_clock_exponent: float = 1.0
    bandwidth_clock_exponent: float = 0.10
    source: str = ""


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one engine is started: its parallel degree and the limits of its scheduler.

    ``chunk_tokens`` is the token budget of a step, decode tokens included. ``admission`` "reserve" sets aside the
    KV blocks of prompt and output at admission; "grow" takes blocks as tokens come and, when they run out,
    preempts the youngest sequence and recomputes it later, as vLLM does. ``scheduling`` "chunked" mixes chunks of prompts into the steps of decodes;
    "prefill_first" gives whole prompts steps of their own, as engines before chunked prefill do. ``max_model_tokens`` 0 means that only
    the KV cache limits the length of a request. ``prefix_block_tokens`` is the granularity at which prompts share KV
    (a multiple of ``block_tokens``; 0: no prefix cache). ``measured`` step times replace the roofline of ``constants``.
    ``gpu_milli`` are the thousandths that it has of its one GPU (1000: whole ones).

    Raises ValueError when a limit is not positive, the prefix block is no whole number of blocks, or the token budget does not exceed ``max_num_seqs`` (a full
    batch of decodes would then starve every prompt for ever).
    """

    tensor_parallel: int = 1
    gpu_milli: int = 1_000
    max_num_seqs: int = 256
    chunk_tokens: int = 2048
    block_tokens: int = 16
    memory_fraction: float = 0.9
    reserve_bytes: int = 0
    max_model_tokens: int = 0
    admission: Admission = "reserve"
    scheduling: Scheduling = "chunked"
    prefix_block_tokens: int = 0
    constants: RooflineConstants = RooflineConstants()
    measured: MeasuredCost | None = None

    def __post_init__(self) -> None:
        where = "engine"
        check_positive(where, self, ("tensor_parallel", "max_num_seqs", "chunk_tokens", "block_tokens"))
        check_positive(where, self, ("memory_fraction", "gpu_milli"))
        if self.gpu_milli > 1_000 or (self.gpu_milli < 1_000 and self.tensor_parallel != 1):
            raise ValueError(
                f"gpu_milli of the engine is {self.gpu_milli}; it is at most 1000, and less only on a single GPU"
            )
        if self.memory_fraction > 1.0:
            raise ValueError(f"memory_fraction of the engine is {self.memory_fraction}; it must be at most 1")
        if self.prefix_block_tokens < 0 or self.prefix_block_tokens % self.block_tokens:
            raise ValueError(
                f"prefix_block_tokens of the engine is {self.prefix_block_tokens}; it must be 0 or a multiple of "
                f"block_tokens {self.block_tokens}"
            )
        if self.chunk_tokens <= self.max_num_seqs:
            raise ValueError(
                f"chunk_tokens {self.chunk_tokens} of the engine must exceed max_num_seqs {self.max_num_seqs}: "
                "raise the one or lower the other, or a full batch leaves no room for any prompt"
            )


def check_positive(where: str, spec: msgspec.Struct, names: tuple[str, ...]) -> None:
    """Raise ValueError naming the first of the fields ``names`` that is not a positive finite number."""
    for name in names:
        value = getattr(spec, name)
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name} of {where} is {value}; it must be a positive finite number")


def check_rising(where: str, spec: msgspec.Struct, names: tuple[str, ...]) -> None:
    """Raise ValueError when the fields ``names`` do not rise from first to last (equal is allowed)."""
    values = [getattr(spec, name) for name in names]
    if any(low > high for low, high in itertools.pairwise(values)):
        listed = ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))
        raise ValueError(f"{where} has {listed}; these must rise from first to last")
