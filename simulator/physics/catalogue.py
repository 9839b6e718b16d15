"""GPU products as the simulated fleets know them.

Memory, bandwidth, arithmetic and board power: datasheets as listed in research/gpu-selection.md §2.8. Settable
power range: ai-dynamo/dynamo ``gpu_power_limits.csv``; A100 clocks and idle power: research/power.md §1 and §8.
Idle watts, clocks and link speeds of the other products are recalled datasheet values (README, "Provenance").
A world that knows better passes its own `GpuSpec`.
"""

from typing import Final

from simulator.physics.specs import GpuSpec

_GIB: Final = 2**30

L4: Final = GpuSpec(
    product="L4",
    memory_bytes=24 * _GIB,
    bandwidth_bytes_per_second=300e9,
    flops_per_second=121e12,
    flops_8bit_per_second=242e12,
    idle_watts=16,
    min_watts=40,
    tdp_watts=72,
    max_watts=72,
    min_mhz=210,
    base_mhz=795,
    max_mhz=2040,
)
A10G: Final = GpuSpec(
    product="A10G",
    memory_bytes=24 * _GIB,
    bandwidth_bytes_per_second=600e9,
    flops_per_second=70e12,
    idle_watts=22,
    min_watts=100,
    tdp_watts=300,
    max_watts=300,
    min_mhz=210,
    base_mhz=1320,
    max_mhz=1710,
)
A100_80: Final = GpuSpec(
    product="A100-80",
    memory_bytes=80 * _GIB,
    bandwidth_bytes_per_second=2039e9,
    flops_per_second=312e12,
    idle_watts=63,
    min_watts=100,
    tdp_watts=400,
    max_watts=400,
    min_mhz=210,
    base_mhz=1275,
    max_mhz=1410,
    link="nvlink",
    link_bytes_per_second=300e9,
)
L40S: Final = GpuSpec(
    product="L40S",
    memory_bytes=48 * _GIB,
    bandwidth_bytes_per_second=864e9,
    flops_per_second=362e12,
    flops_8bit_per_second=733e12,
    idle_watts=35,
    min_watts=100,
    tdp_watts=350,
    max_watts=350,
    min_mhz=210,
    base_mhz=1110,
    max_mhz=2520,
)
H100: Final = GpuSpec(
    product="H100",
    memory_bytes=80 * _GIB,
    bandwidth_bytes_per_second=3350e9,
    flops_per_second=989e12,
    flops_8bit_per_second=1978e12,
    idle_watts=70,
    min_watts=200,
    tdp_watts=700,
    max_watts=700,
    min_mhz=210,
    base_mhz=1590,
    max_mhz=1980,
    link="nvlink",
    link_bytes_per_second=450e9,
    pcie_bytes_per_second=52e9,
)
H200: Final = GpuSpec(
    product="H200",
    memory_bytes=141 * _GIB,
    bandwidth_bytes_per_second=4800e9,
    flops_per_second=989e12,
    flops_8bit_per_second=1978e12,
    idle_watts=75,
    min_watts=200,
    tdp_watts=700,
    max_watts=700,
    min_mhz=210,
    base_mhz=1590,
    max_mhz=1980,
    link="nvlink",
    link_bytes_per_second=450e9,
    pcie_bytes_per_second=52e9,
)

GPU_SPECS: Final[dict[str, GpuSpec]] = {spec.product: spec for spec in (L4, A10G, A100_80, L40S, H100, H200)}
"""Specs by short product name."""
