"""Step time of a continuously batched LLM engine: the one formula that planner and simulator share.

One step serves ``batch`` decoding requests and ``prefill_tokens`` prompt tokens of chunked prefill. With tensor
parallel degree t it takes (a roofline with fitted numbers)::

    T = max(weight_bytes / (BW t), 2 parameters (batch + prefill_tokens) / (F t))   weights or matmul
        + context_tokens * kv_bytes_per_token / (BW t)                              reading the KV cache
        + 2 prefill_tokens prompt_tokens width layers / (F t)                       attention of the prefill
        + 2 layers (latency + 4 tokens width (t - 1) / (t * LINK))   when t > 1     two all-reduces a layer
        + fixed_seconds + layer_seconds * layers + per_sequence_seconds * batch     launch, sampling, Python
        + sequence_bytes * width * layers * batch / bandwidth                       activations of the decoding requests

where BW, F and LINK are the datasheet figures times an achievable fraction, of which KV cache, experts and attention may
have their own. Memory-bound and compute-bound work of the weight pass overlap (max); the rest adds up. Of a mixture of
experts, n tokens read the share 1 - (1 - k / E)^n of the experts' weights (each picks k of E, independently). Layers
with a window read at most that much of each context. With ``data`` attention ranks each has its own batch and cache,
and the experts lie on all tensor x data GPUs. All inputs are plain numbers, so the same object serves a scalar
event-by-event simulation and a vectorised grid.
"""

import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from placement.profiles.figures import (
    BYTES_PER_PARAMETER,
    EARLY_VLLM,
    MODERN,
    OPEN,
    GpuFigures,
    ModelFigures,
    StepConstants,
)

__all__ = [
    "BYTES_PER_PARAMETER",
    "EARLY_VLLM",
    "MODERN",
    "OPEN",
    "TERMS",
    "DecodeCoefficients",
    "GpuFigures",
    "ModelFigures",
    "StepConstants",
    "StepTime",
]

TERMS: Final = (
    "bandwidth", "experts", "compute", "kv", "attention", "layer", "expert_layer", "fixed", "sequence", "latency", "link",
)  # fmt: skip
"""Names of the addends of a step, as `StepTime.terms` gives them."""

Array = NDArray[np.float64]


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
        "_experts",
        "_fixed",
        "_kv",
        "_kv_window",
        "_matmul",
        "_per_sequence",
        "_unpicked",
        "_weights",
        "constants",
        "data",
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
        data: int = 1,
    ) -> None:
        _check_positive(gpu, model, tensor, data)
        self.gpu, self.model, self.tensor, self.data = gpu, model, tensor, data
        self.precision, self.constants = precision, constants
        rate = gpu.bandwidth_bytes_per_second * tensor
        fraction = constants.bandwidth_fraction
        flops, attention = _flops(gpu, model, tensor, precision, constants)
        self._weights = model.dense_bytes(precision) / (rate * fraction)
        self._experts = model.expert_bytes(precision) / (
            rate * data * (constants.expert_fraction or fraction)
        )
        self._unpicked = 1.0 - model.experts_per_token / model.experts if model.experts else 0.0
        self._matmul = 2.0 * (model.active_parameters or model.parameters) / (flops * tensor)
        kv = model.kv_bytes_per_token / (rate * (constants.kv_fraction or fraction))
        self._kv, self._kv_window = kv * (1.0 - model.window_share), kv * model.window_share
        unwindowed = 1.0 - model.window_share
        width = model.attention_width or model.width
        self._attention = 2.0 * width * model.layers * unwindowed / (attention * tensor)
        self._comm_fixed, self._comm_token = _communication(gpu, model, tensor * data, constants)
        self._fixed = constants.fixed_seconds + _layer_seconds(model, constants)
        traffic = constants.sequence_bytes * model.layers * model.width / gpu.bandwidth_bytes_per_second
        self._per_sequence = constants.per_sequence_seconds + traffic

    def weights_seconds(self, tokens: float) -> float:
        """Seconds to read the weights that ``tokens`` tokens need: all of a dense model."""
        if self._experts == 0.0:
            return self._weights
        unread: float = self._unpicked ** (tokens * self.data)
        return self._weights + self._experts * (1.0 - unread)

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
        weights, matmul = self.weights_seconds(tokens), self._matmul * tokens / compute_scale
        return (
            (weights if weights > matmul else matmul)  # noqa: FURB136 - max() doubles the time of an event
            + self._kv * context_tokens
            + self._windowed(batch, context_tokens)
            + self._attention * prefill_tokens * prompt_tokens / compute_scale
            + self._comm_fixed
            + self._comm_token * tokens
            + self._fixed
            + self._per_sequence * batch
        )

    def seconds_array(
        self, batch: Array, prefill_tokens: Array, context_tokens: Array, prompt_tokens: Array
    ) -> Array:
        """Same as `seconds` at full clock over arrays that broadcast against each other: the sum of `terms`."""
        tokens = batch + prefill_tokens
        weights: Array | float = self._weights
        if self._experts:
            weights = weights + self._experts * (1.0 - self._unpicked ** (tokens * self.data))
        total = np.maximum(weights, self._matmul * tokens) + self._kv * context_tokens
        if self._kv_window:
            total += self._kv_window * np.minimum(context_tokens, batch * float(self.model.window_tokens))
        total += self._attention * prefill_tokens * prompt_tokens + self._comm_token * tokens
        total += self._per_sequence * batch + (self._comm_fixed + self._fixed)
        return np.asarray(total)

    def terms(
        self, batch: Array, prefill_tokens: Array, context_tokens: Array, prompt_tokens: Array
    ) -> dict[str, Array]:
        """The addends of `seconds_array` by the constant that scales each (`TERMS`); of weights and matmul the larger."""
        tokens = batch + prefill_tokens
        matmul = self._matmul * tokens
        experts = (
            self._experts * (1.0 - self._unpicked ** (tokens * self.data)) if self._experts else 0.0 * tokens
        )
        reads = self._weights + experts >= matmul
        window = self._kv_window * np.minimum(context_tokens, batch * float(self.model.window_tokens))
        one, layers = np.ones_like(tokens), float(self.model.layers)
        mixture = self.constants.expert_layer_seconds * layers if self.model.experts else 0.0
        return {
            "bandwidth": np.where(reads, self._weights, 0.0),
            "experts": np.where(reads, experts, 0.0),
            "compute": np.where(reads, 0.0, matmul),
            "kv": self._kv * context_tokens + window,
            "attention": self._attention * prefill_tokens * prompt_tokens,
            "layer": self.constants.layer_seconds * layers * one,
            "expert_layer": mixture * one,
            "fixed": self.constants.fixed_seconds * one,
            "sequence": self._per_sequence * batch,
            "latency": self._comm_fixed * one,
            "link": self._comm_token * tokens,
        }

    def _windowed(self, batch: float, context_tokens: float) -> float:
        """Seconds to read the KV cache of the layers that have a window."""
        if self._kv_window == 0.0:
            return 0.0
        return self._kv_window * min(context_tokens, batch * self.model.window_tokens)

    def knee_batch(self, compute_scale: float = 1.0) -> float:
        """Tokens per step above which the weight pass is bound by arithmetic, once all experts are read."""
        return (self._weights + self._experts) * compute_scale / self._matmul

    def decode(self, batch: float, compute_scale: float = 1.0) -> DecodeCoefficients:
        """Coefficients of a pure decode step, exact for this batch with contexts beyond the window (of a dense model
        without one, for every batch on the same side of `knee_batch`).

        They let a simulator skip events in closed form: k steps of a fixed batch whose context grows by
        ``batch`` a step take ``k (fixed + per_sequence batch + per_token context) + per_token batch k (k-1)/2``.
        """
        fixed = self._comm_fixed + self._fixed
        per_sequence = self._comm_token + self._per_sequence + self._kv_window * self.model.window_tokens
        weights = self.weights_seconds(batch)
        if weights * compute_scale >= self._matmul * batch:
            fixed += weights
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
        weights = self.model.dense_bytes(self.precision) + self.model.expert_bytes(self.precision) / self.data
        return (have - weights - constants.reserve_bytes) / self.model.kv_bytes_per_token


def _check_positive(gpu: GpuFigures, model: ModelFigures, tensor: int, data: int) -> None:
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
        f"attention ranks of {model.name} on {gpu.name}": data,
    }
    for name, value in figures.items():
        if not 0.0 < value < float("inf"):
            raise ValueError(f"{name} is {value}; it must be a positive finite number")
    if (
        not 0 <= model.experts_per_token <= model.experts
        or not 0 <= model.expert_parameters <= model.parameters
    ):
        raise ValueError(
            f"{model.name} has {model.experts_per_token} of {model.experts} experts a token and {model.expert_parameters:g} of "
            f"{model.parameters:g} parameters in them; neither may exceed the whole"
        )


def _flops(
    gpu: GpuFigures, model: ModelFigures, tensor: int, precision: str, constants: StepConstants
) -> tuple[float, float]:
    """FLOP/s that one GPU achieves in the matmuls, and in the attention of prompts."""
    bits, peak = 16, gpu.flops_16bit_per_second / (2.0 if precision == "fp32" else 1.0)
    if precision in ("fp8", "int8"):
        bits, peak = 8, gpu.flops_8bit_per_second or peak
    elif precision == "fp4" and gpu.flops_4bit_per_second > 0.0:
        bits, peak = 4, gpu.flops_4bit_per_second
    achieved = (
        peak * constants.compute_of(bits, tensor) * (constants.expert_compute if model.experts else 1.0)
    )
    if constants.attention_fraction > 0.0:
        return achieved, gpu.flops_16bit_per_second * constants.attention_fraction
    return achieved, achieved


def _layer_seconds(model: ModelFigures, constants: StepConstants) -> float:
    each = constants.layer_seconds + (constants.expert_layer_seconds if model.experts else 0.0)
    return model.layers * each


def _communication(
    gpu: GpuFigures, model: ModelFigures, ways: int, constants: StepConstants
) -> tuple[float, float]:
    """(seconds per step, seconds per token) of the two all-reduces of every layer."""
    if ways == 1:
        return 0.0, 0.0
    nvlink = gpu.fabric == "nvlink"
    latency = constants.nvlink_latency_seconds if nvlink else constants.pcie_latency_seconds
    fraction = constants.nvlink_fraction if nvlink else constants.pcie_fraction
    wire = 4.0 * model.width * (ways - 1) / (ways * gpu.link_bytes_per_second * fraction)
    latency *= 1.0 + constants.latency_growth * (math.log2(ways) - 1.0)
    return 2.0 * model.layers * latency, 2.0 * model.layers * wire
