"""GPUs, models and engines that the physics tests share."""

from simulator.physics.specs import EngineSpec, GpuSpec, ModelSpec

A100 = GpuSpec(
    product="A100-80",
    memory_bytes=80 * 2**30,
    bandwidth_bytes_per_second=2039e9,
    flops_per_second=312e12,
    idle_watts=60,
    min_watts=100,
    tdp_watts=400,
    max_watts=400,
    min_mhz=210,
    base_mhz=1275,
    max_mhz=1410,
    link="nvlink",
    link_bytes_per_second=300e9,
)
LLAMA_7B = ModelSpec(
    name="llama-7b",
    parameters=6.74e9,
    weight_bytes=13_480_000_000,
    layers=32,
    hidden=4096,
    kv_bytes_per_token=524_288,
)


def engine_for(kv_tokens: int, **limits) -> EngineSpec:
    """An engine of LLAMA_7B on A100 whose KV cache holds exactly ``kv_tokens`` (whole blocks)."""
    reserve = (
        int(0.9 * A100.memory_bytes) - LLAMA_7B.weight_bytes - kv_tokens * LLAMA_7B.kv_bytes_per_token - 1000
    )
    return EngineSpec(reserve_bytes=reserve, **limits)
