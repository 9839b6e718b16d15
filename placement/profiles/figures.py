"""What the step-time formula is told: figures of a GPU, the shape of a model, and achievable fractions and overheads."""

from typing import Final

import msgspec

BYTES_PER_PARAMETER: Final[dict[str, float]] = {
    "fp32": 4.0,
    "fp16": 2.0,
    "bf16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "fp4": 0.5625,
    "int4": 0.5,
}
"""Bytes that one weight takes in memory, by precision name; 4-bit floats with their 8-bit scale per 16 weights."""


class GpuFigures(msgspec.Struct, frozen=True, gc=False):
    """Datasheet figures of one GPU.

    ``link_bytes_per_second`` is one direction of the fabric between the GPUs of one node (NVLink, or PCIe when
    ``fabric`` is "pcie"); it only matters for tensor parallel degrees above 1. ``flops_8bit_per_second`` 0 means
    the product has no 8-bit tensor cores: 8-bit weights then run at the 16-bit rate; 4-bit weights likewise.
    """

    name: str
    memory_bytes: int
    bandwidth_bytes_per_second: float
    flops_16bit_per_second: float
    flops_8bit_per_second: float = 0.0
    link_bytes_per_second: float = 32e9
    fabric: str = "pcie"
    flops_4bit_per_second: float = 0.0


class ModelFigures(msgspec.Struct, frozen=True, gc=False):
    """Shape of one transformer, as far as its speed depends on it.

    ``parameters`` decides the weight bytes, ``active_parameters`` (0: the same) the arithmetic, which is smaller
    for mixtures of experts. ``kv_bytes_per_token`` is over all layers, at the precision of the cache. Of a mixture,
    ``expert_parameters`` of all parameters lie in ``experts`` experts a layer, ``experts_per_token`` of which work on a
    token; the others have ``dense_precision`` (empty: that of the variant). ``window_share`` of the layers read only
    the last ``window_tokens`` of a context. ``attention_width`` is heads times head size (0: ``width``).
    """

    name: str
    parameters: float
    kv_bytes_per_token: float
    width: int
    layers: int
    active_parameters: float = 0.0
    experts: int = 0
    experts_per_token: int = 0
    expert_parameters: float = 0.0
    dense_precision: str = ""
    window_tokens: int = 0
    window_share: float = 0.0
    attention_width: int = 0

    def weight_bytes(self, precision: str) -> float:
        """Bytes of the weights at ``precision``; ValueError with the known names for an unknown one."""
        return self.dense_bytes(precision) + self.expert_bytes(precision)

    def dense_bytes(self, precision: str) -> float:
        """Bytes of the weights that every token reads."""
        own = self.dense_precision or precision
        return (self.parameters - self.expert_parameters) * self._bytes_each(own)

    def expert_bytes(self, precision: str) -> float:
        """Bytes of the weights of all experts."""
        return self.expert_parameters * self._bytes_each(precision)

    def _bytes_each(self, precision: str) -> float:
        if precision not in BYTES_PER_PARAMETER:
            known = ", ".join(sorted(BYTES_PER_PARAMETER))
            raise ValueError(f"precision {precision!r} of model {self.name} is unknown; use one of {known}")
        return BYTES_PER_PARAMETER[precision]


class StepConstants(msgspec.Struct, frozen=True, gc=False):
    """Achievable fractions and overheads of the step-time formula.

    Defaults: fitted on operator-level measurements of current engines (vLLM >= 0.6, TensorRT-LLM). Median error of
    the throughput they give: Llama-3.1 8B on one GPU 4 to 7 % (H100, H200, B200), 17 % (A100), 41 % (L40S); 70B with
    tensor parallelism 10 to 12 % over NVLink, 31 % over PCIe. A fraction of 0 means: that of the line it refines
    (KV and experts: ``bandwidth_fraction``; 8-bit: ``compute_fraction``; 4-bit: 8-bit; attention: that of the weights).
    ``expert_compute`` is what the grouped matmuls of experts achieve of the dense ones. Overheads come per step, per layer
    (more of it in a layer of experts) and per decoding sequence: seconds, and ``sequence_bytes`` of memory traffic for each unit
    of the width in each layer, which tensor parallelism does not split.
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
    memory_fraction: float = 0.9
    reserve_bytes: float = 0.0
    chunk_tokens: int = 2048
    max_sequences: int = 256
    kv_fraction: float = 0.0
    expert_fraction: float = 0.0
    compute_fraction_8bit: float = 0.0
    compute_fraction_4bit: float = 0.0
    expert_compute: float = 1.0
    attention_fraction: float = 0.0
    layer_seconds: float = 0.0
    expert_layer_seconds: float = 0.0
    sequence_bytes: float = 0.0
    launch_layer_seconds: float = 0.0
    latency_growth: float = 0.0

    def compute_of(self, bits: int, tensor: int) -> float:
        """Achievable fraction of the tensor cores of ``bits`` at a tensor degree."""
        eight = self.compute_fraction_8bit or self.compute_fraction
        if bits == 4 and self.compute_fraction_4bit > 0.0:
            return self.compute_fraction_4bit
        if bits == 16:
            return self.compute_fraction if tensor == 1 else self.compute_fraction_parallel_16bit
        return eight if tensor == 1 else self.compute_fraction_parallel_8bit


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

OPEN: Final = StepConstants(
    compute_fraction_parallel_16bit=0.73,
    compute_fraction_8bit=0.6,
    compute_fraction_parallel_8bit=0.6,
    compute_fraction_4bit=0.4,
    kv_fraction=0.875,
    expert_fraction=0.8,
    expert_compute=0.4,
    attention_fraction=0.6,
    fixed_seconds=5e-4,
    layer_seconds=1e-4,
    expert_layer_seconds=1e-5,
    sequence_bytes=100.0,
    launch_layer_seconds=2e-4,
    latency_growth=1.0,
    nvlink_latency_seconds=2e-5,
    nvlink_fraction=0.5,
    chunk_tokens=8192,
)
"""Where a calibration starts: `MODERN` with its overheads told apart (3.4 ms a step of 32 layers are 0.1 ms a layer), so that
models of other depth and width, precisions and mixtures can be learned from one another. Round figures, fitted to nothing."""
