"""The demo's cluster: 24 machines of four products on InfiniBand, RoCE and Ethernet islands."""

from __future__ import annotations

import msgspec

from simulator.fleet.specs import (
    ETHERNET,
    INFINIBAND_NDR,
    ROCE,
    FleetSpec,
    Group,
    demo_fleet,
)
from simulator.physics.catalogue import A10G, A100_80, H100, L4
from simulator.physics.loading import WeightTier
from simulator.physics.shapes import StartProfile

ROW_LABEL = {"plimsoll.dev/row": "row-a"}
"""Marks the machines behind the demo's breaker (examples/demo/power.yaml)."""

GROUPS = (
    Group(prefix="l4", gpu=L4, gpus=1, count=4, nic=ETHERNET, safe_gpu_watts=60),
    Group(prefix="a10g", gpu=A10G, gpus=1, count=2, nic=ETHERNET, safe_gpu_watts=200),
    Group(prefix="a100", gpu=A100_80, gpus=2, count=6, nic=ROCE, zone="zone-b", safe_gpu_watts=280),
    Group(prefix="h100", gpu=H100, gpus=4, count=12, nic=INFINIBAND_NDR, zone="zone-b", safe_gpu_watts=490),
)
BEHIND_THE_BREAKER = ("a100", "h100")


def demo_cluster(seed: int) -> FleetSpec:
    """The fleet, with the breaker's machines labelled."""
    start = StartProfile(tier=WeightTier.NVME)
    fleet = demo_fleet(groups=GROUPS, seed=seed, start=start)
    nodes = tuple(
        msgspec.structs.replace(node, labels={**node.labels, **ROW_LABEL})
        if node.name.rpartition("-")[0] in BEHIND_THE_BREAKER
        else node
        for node in fleet.nodes
    )
    return msgspec.structs.replace(fleet, nodes=nodes)


def row_members(fleet: FleetSpec) -> list[str]:
    """Names of the machines behind the breaker."""
    return [node.name for node in fleet.nodes if ROW_LABEL.items() <= node.labels.items()]
