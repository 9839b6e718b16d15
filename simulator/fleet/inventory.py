"""What a simulated machine has, as its agent tells it: GPUs, NICs, memory, and the watts that bound them."""

from __future__ import annotations

from collections.abc import Mapping

from agent.node.drivers.base import Device, Inventory
from agent.node.nics import Link, Nic
from simulator.fleet.specs import NodeSpec
from simulator.physics.clocks import ladder_mhz
from simulator.physics.network import NicClass

_LINKS = {
    NicClass.INFINIBAND: Link.INFINIBAND,
    NicClass.ROCE: Link.ROCE,
    NicClass.ETHERNET: Link.ETHERNET,
}
_GID_TYPES = {Link.INFINIBAND: ("IB/RoCE v1",), Link.ROCE: ("IB/RoCE v1", "RoCE v2"), Link.ETHERNET: ()}


def inventory_of(spec: NodeSpec, base_watts: int, broken: Mapping[int, str]) -> Inventory:
    """The inventory of a machine that draws `base_watts` without its GPUs; `broken` GPUs by index, each with its fault."""
    return Inventory(
        devices=tuple(_device(spec, index, broken.get(index, "")) for index in range(spec.gpus)),
        nics=tuple(_nic(spec, index) for index in range(spec.nic.count)),
        cpu_millis=spec.cpu_millis,
        memory_bytes=spec.memory_bytes,
        nvme_cache_bytes=spec.nvme_bytes,
        base_watts=base_watts,
        safe_watts=spec.safe_watts,
        driver_version="simulated",
    )


def _device(spec: NodeSpec, index: int, fault: str) -> Device:
    gpu = spec.gpu
    return Device(
        uuid=f"GPU-{spec.name}-{index}",
        index=index,
        product=spec.product,
        memory_bytes=gpu.memory_bytes,
        min_watts=gpu.min_watts,
        max_watts=gpu.max_watts,
        default_watts=gpu.tdp_watts,
        max_clock_mhz=gpu.max_mhz,
        numa=index * 2 // spec.gpus,
        clique=0 if gpu.link == "nvlink" else index,
        healthy=not fault,
        fault=fault,
        clock_ladder_mhz=ladder_mhz(gpu),
    )


def _nic(spec: NodeSpec, index: int) -> Nic:
    link = _LINKS[spec.nic.nic]
    return Nic(
        name=f"{'eth' if link is Link.ETHERNET else 'mlx5_'}{index}",
        link=link,
        rate_bits_per_second=int(spec.nic.rate_bits_per_second),
        gid_types=_GID_TYPES[link],
        numa=index * 2 // spec.nic.count,
        subnet=spec.island,
        up=True,
    )
