"""Step time of a continuously batched LLM engine: the one formula that planner and simulator share.

One step serves ``batch`` decoding requests and ``prefill_tokens`` prompt tokens of chunked prefill. With tensor
parallel degree t it takes (four-number roofline)::

    T = max(weight_bytes / (BW t), 2 parameters (batch + prefill_tokens) / (F t))   weights or matmul
        + context_tokens * kv_bytes_per_token / (BW t)                              reading the KV cache
        + 2 prefill_tokens prompt_tokens width layers / (F t)                       attention of the prefill
        + 2 layers (latency + 4 tokens width (t - 1) / (t * LINK))   when t > 1     two all-reduces a layer
        + fixed_seconds + per_sequence_seconds * batch                              launch, sampling, Python

where BW, F and LINK are the datasheet figures times an achievable fraction. Memory-bound and compute-bound work
of the weight pass overlap (max); the rest adds up. All inputs are plain numbers, so the same object serves a
scalar event-by-event simulation and a vectorised grid.
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

BYTES_PER_PARAMETER: Final[dict[str, float]] = {
    "fp32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "int4": 0.5,
}
"""Bytes that one weight takes in memory, by precision name."""

Array = NDArray[np.float64]


class GpuFigures(msgspec.Struct, frozen=True, gc=False):
    """Datasheet figures of one GPU.

    ``link_bytes_per_second`` is one direction of the fabric between the GPUs of one node (NVLink, or PCIe when
    ``fabric`` is "pcie"); it only matters for tensor parallel degrees above 1. ``flops_8bit_per_second`` 0 means
    the product has no 8-bit tensor cores: 8-bit weights then run at the 16-bit rate.
    """

    name: str
    memory_bytes: int
    bandwidth_bytes_per_second: float
    flops_16bit_per_second: float
    flops_8bit_per_second: float = 0.0
    link_bytes_per_second: float = 32e9
    fabric: str = "pcie"


class ModelFigures(msgspec.Struct, frozen=True, gc=False):
    """Shape of one transformer, as far as its speed depends on it.

    ``parameters`` decides the weight bytes, ``active_parameters`` (0: the same) the arithmetic, which is smaller
    for mixtures of experts. ``kv_bytes_per_token`` is over all layers, at the precision of the cache.
    """

    name: str
    parameters: float
    kv_bytes_per_token: float
    width: int
    layers: int
    active_parameters: float = 0.0

    def weight_bytes(self, precision: str) -> float:
        """Bytes of the weights at ``precision``; ValueError with the known names for an unknown one."""
        if precision not in BYTES_PER_PARAMETER:
            known = ", ".join(sorted(BYTES_PER_PARAMETER))
            raise ValueError(f"precision {precision!r} of model {self.name} is unknown; use one of {known}")
        return self.parameters * BYTES_PER_PARAMETER[precision]


class StepConstants(msgspec.Struct, frozen=True, gc=False):
    """Achievable fractions and overheads of the step-time formula.

    Defaults: fitted on operator-level measurements of current engines (vLLM >= 0.6, TensorRT-LLM). Median error of
    the throughput they give: Llama-3.1 8B on one GPU 4 to 7 % (H100, H200, B200), 17 % (A100), 41 % (L40S); 70B with
    tensor parallelism 10 to 12 % over NVLink, 31 % over PCIe.
    """

    bandwidth_fraction: float = 0.875
    compute_fraction: float = 0.73
    compute_fraction_parallel_16bit: float = 0.77
    compute_fraction_parallel_8bit: float = 0.47
    fixed_seconds: float = 0.0034
    per_sequence_seconds: float = 0.0
    nvlink_latency_seconds: float = 7e-5
    nvlink_fraction: float = 0.77
    pcie_latency_seconds: float = 3.4e-5
    pcie_fraction: float = 0.08
    memory_fraction: float = 0.9
    reserve_bytes: float = 0.0
    chunk_tokens: int = 2048
    max_sequences: int = 256


MODERN: Final = StepConstants()
"""Constants of current engines."""

EARLY_VLLM: Final = StepConstants(
    bandwidth_fraction=0.8,
    compute_fraction=0.6,
    compute_fraction_parallel_16bit=0.6,
    compute_fraction_parallel_8bit=0.6,
    fixed_seconds=0.010,
    per_sequence_seconds=0.0005,
)
"""Constants that reproduce vLLM 0.2.7 (the engine of Melange's published figures)."""


class DecodeCoefficients(msgspec.Struct, frozen=True, gc=False):
    """``seconds = fixed + per_sequence * batch + per_token * context_tokens`` for a step without prefill."""

    fixed: float
    per_sequence: float
    per_token: float


class StepTime:
    """Step time of one replica: ``model`` at ``precision`` on ``tensor`` GPUs of type ``gpu``.

    Raises ValueError for a tensor degree below 1, an unknown precision or figures that are not positive, because
    each of them would silently turn into an infinite or negative time.
    """

    __slots__ = (
        "_attention",
        "_comm_fixed",
        "_comm_token",
        "_fixed",
        "_kv",
        "_matmul",
        "_per_sequence",
        "_weights",
        "constants",
        "gpu",
        "model",
        "precision",
        "tensor",
    )

    def __init__(
        self,
        gpu: GpuFigures,
        model: ModelFigures,
        tensor: int = 1,
        precision: str = "fp16",
        constants: StepConstants = MODERN,
    ) -> None:
        _check_positive(gpu, model, tensor)
        self.gpu, self.model, self.tensor = gpu, model, tensor
        self.precision, self.constants = precision, constants
        bandwidth = gpu.bandwidth_bytes_per_second * constants.bandwidth_fraction * tensor
        flops = _flops(gpu, precision) * _compute_fraction(constants, tensor, precision) * tensor
        self._weights = model.weight_bytes(precision) / bandwidth
        self._matmul = 2.0 * (model.active_parameters or model.parameters) / flops
        self._kv = model.kv_bytes_per_token / bandwidth
        self._attention = 2.0 * model.width * model.layers / flops
        self._comm_fixed, self._comm_token = _communication(gpu, model, tensor, constants)
        self._fixed = constants.fixed_seconds
        self._per_sequence = constants.per_sequence_seconds

    def seconds(
        self,
        batch: float,
        prefill_tokens: float,
        context_tokens: float,
        compute_scale: float = 1.0,
        prompt_tokens: float = 0.0,
    ) -> float:
        """Seconds of one step, scalar.

        ``batch`` decoding requests whose contexts *sum* to ``context_tokens``, plus ``prefill_tokens`` tokens of
        prompts that are ``prompt_tokens`` long on average. ``compute_scale`` is the speed of the compute clock
        against its maximum (power capping); memory bandwidth does not follow it.
        """
        tokens = batch + prefill_tokens
        weights, matmul = self._weights, self._matmul * tokens / compute_scale
        return (
            (weights if weights > matmul else matmul)  # noqa: FURB136 - max() doubles the time of an event
            + self._kv * context_tokens
            + self._attention * prefill_tokens * prompt_tokens / compute_scale
            + self._comm_fixed
            + self._comm_token * tokens
            + self._fixed
            + self._per_sequence * batch
        )

    def seconds_array(
        self, batch: Array, prefill_tokens: Array, context_tokens: Array, prompt_tokens: Array
    ) -> Array:
        """Same as `seconds` at full clock over arrays that broadcast against each other."""
        tokens = batch + prefill_tokens
        result: Array = (
            np.maximum(self._weights, self._matmul * tokens)
            + self._kv * context_tokens
            + self._attention * prefill_tokens * prompt_tokens
            + (self._comm_fixed + self._fixed)
            + self._comm_token * tokens
            + self._per_sequence * batch
        )
        return result

    def knee_batch(self, compute_scale: float = 1.0) -> float:
        """Tokens per step above which the weight pass is bound by arithmetic instead of bandwidth."""
        return self._weights * compute_scale / self._matmul

    def decode(self, batch: float, compute_scale: float = 1.0) -> DecodeCoefficients:
        """Coefficients of a pure decode step, exact while the batch stays on the same side of `knee_batch`.

        They let a simulator skip events in closed form: k steps of a fixed batch whose context grows by
        ``batch`` a step take ``k (fixed + per_sequence batch + per_token context) + per_token batch k (k-1)/2``.
        """
        fixed = self._comm_fixed + self._fixed
        per_sequence = self._comm_token + self._per_sequence
        if batch <= self.knee_batch(compute_scale):
            fixed += self._weights
        else:
            per_sequence += self._matmul / compute_scale
        return DecodeCoefficients(fixed, per_sequence, self._kv)

    def floor_seconds(self) -> float:
        """Bandwidth floor of any token: weight bytes over the datasheet bandwidth of the replica's GPUs."""
        return self.model.weight_bytes(self.precision) / (self.gpu.bandwidth_bytes_per_second * self.tensor)

    def kv_capacity_tokens(self) -> float:
        """Tokens of KV cache that fit beside the weights; not positive when the weights alone do not fit."""
        constants = self.constants
        have = constants.memory_fraction * self.gpu.memory_bytes * self.tensor
        free = have - self.model.weight_bytes(self.precision) - constants.reserve_bytes
        return free / self.model.kv_bytes_per_token


def _check_positive(gpu: GpuFigures, model: ModelFigures, tensor: int) -> None:
    figures = {
        f"memory_bytes of {gpu.name}": gpu.memory_bytes,
        f"bandwidth_bytes_per_second of {gpu.name}": gpu.bandwidth_bytes_per_second,
        f"flops_16bit_per_second of {gpu.name}": gpu.flops_16bit_per_second,
        f"link_bytes_per_second of {gpu.name}": gpu.link_bytes_per_second,
        f"parameters of {model.name}": model.parameters,
        f"kv_bytes_per_token of {model.name}": model.kv_bytes_per_token,
        f"width of {model.name}": model.width,
        f"layers of {model.name}": model.layers,
        f"tensor degree of {model.name} on {gpu.name}": tensor,
    }
    for name, value in figures.items():
        if not 0.0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; it must be a positive finite number")


def _flops(gpu: GpuFigures, precision: str) -> float:
    if precision in ("fp8", "int8") and gpu.flops_8bit_per_second > 0.0:
        return gpu.flops_8bit_per_second
    return gpu.flops_16bit_per_second / (2.0 if precision == "fp32" else 1.0)


def _compute_fraction(constants: StepConstants, tensor: int, precision: str) -> float:
    if tensor == 1:
        return constants.compute_fraction
    if precision in ("fp8", "int8"):
        return constants.compute_fraction_parallel_8bit
    return constants.compute_fraction_parallel_16bit


def _communication(
    gpu: GpuFigures, model: ModelFigures, tensor: int, constants: StepConstants
) -> tuple[float, float]:
    """(seconds per step, seconds per token) of the two all-reduces of every layer."""
    if tensor == 1:
        return 0.0, 0.0
    nvlink = gpu.fabric == "nvlink"
    latency = constants.nvlink_latency_seconds if nvlink else constants.pcie_latency_seconds
    fraction = constants.nvlink_fraction if nvlink else constants.pcie_fraction
    wire = 4.0 * model.width * (tensor - 1) / (tensor * gpu.link_bytes_per_second * fraction)
    return 2.0 * model.layers * latency, 2.0 * model.layers * wire
