"""GPU products as the simulated fleets know them: shipped facts, never code.

Memory, bandwidth, arithmetic, links and board power are those of `placement.catalogue`, which the planner reads too; idle watts, clocks
and PCIe are only the physics' and lie in `data/gpu_clocks.csv`. Either is overridden by itself: the planner's by an AcceleratorClass of
the cluster, the physics' by a world that passes its own `GpuSpec`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import Final

from placement.catalogue import Catalogue, CatalogueError, dated, load, number, rows_of, told
from simulator.physics.specs import GpuSpec


def gpu_specs(lines: Iterable[str], source: str, products: Catalogue) -> dict[str, GpuSpec]:
    """Specs by product from rows of clocks. CatalogueError with file, row and remedy for a row that cannot be used."""
    found: dict[str, GpuSpec] = {}
    for where, row in rows_of(lines, source):
        spec = _spec(row, where, products)
        if spec.product in found:
            raise CatalogueError(f"{where} names {spec.product} a second time; keep one row of it")
        found[spec.product] = spec
    return found


def _spec(row: dict[str, str], where: str, products: Catalogue) -> GpuSpec:
    name = told(row, "name", where, "?")
    try:
        shared = products.find(name)
    except CatalogueError as error:
        raise CatalogueError(f"{where}: {error}, and in placement/data/accelerators.csv") from error
    dated(row, "facts_at", where, name)
    told(row, "source", where, name)
    try:
        return GpuSpec(
            product=shared.name,
            memory_bytes=shared.memory_bytes,
            bandwidth_bytes_per_second=float(shared.bandwidth_bytes_per_second),
            flops_per_second=shared.flops_16bit_per_second,
            flops_8bit_per_second=shared.flops_8bit_per_second,
            link="nvlink" if shared.fabric == "nvlink" else "pcie",
            link_bytes_per_second=shared.link_bytes_per_second,
            min_watts=shared.min_watts,
            tdp_watts=shared.tdp_watts,
            idle_watts=int(number(row, "idle_watts", where, name)),
            max_watts=int(number(row, "max_watts", where, name)),
            min_mhz=int(number(row, "min_mhz", where, name)),
            base_mhz=int(number(row, "base_mhz", where, name)),
            max_mhz=int(number(row, "max_mhz", where, name)),
            pcie_bytes_per_second=number(row, "pcie_gb_per_s", where, name) * 1e9,
        )
    except ValueError as error:
        raise CatalogueError(str(error) if where in str(error) else f"{where}: {error}") from error


def _shipped() -> dict[str, GpuSpec]:
    name = "gpu_clocks.csv"
    text = resources.files("simulator.physics").joinpath("data", name).read_text(encoding="utf-8")
    return gpu_specs(text.splitlines(), name, load())


GPU_SPECS: Final[dict[str, GpuSpec]] = _shipped()
"""Specs by short product name."""

L4: Final = GPU_SPECS["L4"]
A10G: Final = GPU_SPECS["A10G"]
A100_80: Final = GPU_SPECS["A100-80"]
L40S: Final = GPU_SPECS["L40S"]
H100: Final = GPU_SPECS["H100"]
H200: Final = GPU_SPECS["H200"]
