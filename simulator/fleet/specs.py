"""What a fleet is made of: machines, networks, how long things take; and two fleets ready to use.

Product names are those that GPU feature discovery writes into the label `nvidia.com/gpu.product`, so that an
AcceleratorClass that lists them among its aliases recognises the machines of a real cluster too.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from simulator.fleet.slices import Slices, layout
from simulator.physics.catalogue import A10G, A100_80, H100, L4
from simulator.physics.failures import Failure
from simulator.physics.network import NicClass, NicSpec
from simulator.physics.server import NodeSpec as ServerSpec
from simulator.physics.shapes import StartProfile
from simulator.physics.specs import EngineSpec, GpuSpec

GIB: Final = 2**30
GIGABIT: Final = 10**9

PRODUCT_LABELS: Final[dict[str, str]] = {
    "L4": "NVIDIA-L4",
    "A10G": "NVIDIA-A10G",
    "A100-80": "NVIDIA-A100-SXM4-80GB",
    "L40S": "NVIDIA-L40S",
    "H100": "NVIDIA-H100-80GB-HBM3",
    "H200": "NVIDIA-H200",
}
"""Label value by short product name, as GPU feature discovery writes it."""


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One machine of the fleet.

    `nic` are the ports of its fastest network, `island` names the nodes that share it. `speed` 0.8 runs everything
    at 80 %. `safe_gpu_watts` is what each GPU may draw without a power lease; 0 is half way between its least and
    its highest limit. `slices` are the profiles that its boards are partitioned into (MIG): then no whole board is offered.
    ValueError for counts that are not positive, and slices that its boards do not hold.
    """

    name: str
    gpu: GpuSpec
    gpus: int
    nic: NicSpec
    island: str = ""
    zone: str = "zone-a"
    pool: str = ""
    cpu_millis: int = 0
    memory_bytes: int = 0
    nvme_bytes: int = 0
    speed: float = 1.0
    safe_gpu_watts: int = 0
    labels: dict[str, str] = {}
    slices: tuple[Slices, ...] = ()

    def __post_init__(self) -> None:
        if self.gpus < 1 or not 0.0 < self.speed < math.inf:
            raise ValueError(
                f"node {self.name} has {self.gpus} GPUs and speed {self.speed}: both must be positive"
            )
        layout(self.slices, self.gpus)

    @property
    def product(self) -> str:
        """What feature discovery and the agent call its GPUs."""
        return PRODUCT_LABELS.get(self.gpu.product, self.gpu.product)

    @property
    def safe_watts(self) -> int:
        """Whole watts the node may draw without a lease: base and each GPU at its safe limit."""
        each = self.safe_gpu_watts or (self.gpu.min_watts + self.gpu.max_watts) // 2
        each = min(max(each, self.gpu.min_watts), self.gpu.max_watts)
        return self._server(0).base_watts + self.gpus * each

    def server(self) -> ServerSpec:
        """The machine as the physics knows it."""
        return self._server(self.safe_watts)

    def _server(self, safe_watts: int) -> ServerSpec:
        return ServerSpec(
            name=self.name,
            gpu=self.gpu,
            gpus=self.gpus,
            nic=self.nic,
            speed=self.speed,
            safe_watts=safe_watts,
        )


class FleetSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A whole fleet. Two fleets of the same spec live through the same seconds.

    `lease_seconds` is how often a kubelet renews its node's lease, `peer_loss_seconds` how long the ranks of a gang
    take to notice that one of them is gone (a collective must time out first), `failures` what breaks when (UTC
    seconds). ValueError for two nodes of one name.
    """

    nodes: tuple[NodeSpec, ...]
    seed: int = 0
    start: StartProfile = StartProfile()
    engine: EngineSpec = EngineSpec()
    lease_seconds: float = 10.0
    peer_loss_seconds: float = 15.0
    failures: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        names = [node.name for node in self.nodes]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(
                f"nodes {', '.join(twice)} are named twice; each machine needs a name of its own"
            )


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Like machines: `count` of them, named `prefix-00` and on, `island_size` to an island (0: all in one)."""

    prefix: str
    gpu: GpuSpec
    gpus: int
    count: int
    nic: NicSpec
    island_size: int = 0
    zone: str = "zone-a"
    pool: str = ""
    cpu_millis_per_gpu: int = 12_000
    memory_bytes_per_gpu: int = 96 * GIB
    nvme_bytes: int = 2_000 * GIB
    safe_gpu_watts: int = 0

    def nodes(self) -> list[NodeSpec]:
        """The machines."""
        return [self._node(index) for index in range(self.count)]

    def _node(self, index: int) -> NodeSpec:
        island = index // self.island_size if self.island_size else 0
        return NodeSpec(
            name=f"{self.prefix}-{index:02d}",
            gpu=self.gpu,
            gpus=self.gpus,
            nic=self.nic,
            island=f"{self.prefix}-{self.nic.nic.value}-{island}",
            zone=self.zone,
            pool=self.pool,
            cpu_millis=self.cpu_millis_per_gpu * self.gpus,
            memory_bytes=self.memory_bytes_per_gpu * self.gpus,
            nvme_bytes=self.nvme_bytes,
            safe_gpu_watts=self.safe_gpu_watts,
        )


ETHERNET: Final = NicSpec(NicClass.ETHERNET, 25 * GIGABIT, 1)
ROCE: Final = NicSpec(NicClass.ROCE, 200 * GIGABIT, 4)
INFINIBAND: Final = NicSpec(NicClass.INFINIBAND, 200 * GIGABIT, 8)
INFINIBAND_NDR: Final = NicSpec(NicClass.INFINIBAND, 400 * GIGABIT, 8)

DEMO_GROUPS: Final[tuple[Group, ...]] = (
    Group(prefix="l4", gpu=L4, gpus=4, count=6, nic=ETHERNET),
    Group(prefix="a10g", gpu=A10G, gpus=4, count=6, nic=ETHERNET),
    Group(prefix="a100-ib", gpu=A100_80, gpus=8, count=4, nic=INFINIBAND),
    Group(prefix="a100-roce", gpu=A100_80, gpus=8, count=4, nic=ROCE, zone="zone-b"),
    Group(prefix="h100", gpu=H100, gpus=8, count=4, nic=INFINIBAND_NDR, zone="zone-b"),
)
"""24 nodes, 144 GPUs: four products, InfiniBand, RoCE and Ethernet islands, two zones."""


def demo_fleet(
    *,
    groups: tuple[Group, ...] = DEMO_GROUPS,
    counts: dict[str, int] | None = None,
    seed: int = 0,
    start: StartProfile | None = None,
    failures: tuple[Failure, ...] = (),
) -> FleetSpec:
    """The demo's mixed cluster; `counts` replaces the number of nodes of some prefixes.

    KeyError for a prefix that no group has.
    """
    wanted = dict(counts or {})
    unknown = sorted(set(wanted) - {group.prefix for group in groups})
    if unknown:
        known = ", ".join(group.prefix for group in groups)
        raise KeyError(f"no group of nodes is called {', '.join(unknown)}; there are {known}")
    sized = [msgspec.structs.replace(g, count=wanted.get(g.prefix, g.count)) for g in groups]
    nodes = tuple(node for group in sized for node in group.nodes())
    return FleetSpec(nodes=nodes, seed=seed, start=start or StartProfile(), failures=failures)


def uniform_fleet(
    nodes: int,
    *,
    gpu: GpuSpec = H100,
    gpus: int = 8,
    nic: NicSpec = INFINIBAND_NDR,
    island_size: int = 32,
    seed: int = 0,
    start: StartProfile | None = None,
) -> FleetSpec:
    """`nodes` like machines, named `node-0000` and on, `island_size` to an island."""
    group = Group(prefix="node", gpu=gpu, gpus=gpus, count=nodes, nic=nic, island_size=island_size)
    made = tuple(
        msgspec.structs.replace(node, name=f"node-{index:04d}") for index, node in enumerate(group.nodes())
    )
    return FleetSpec(nodes=made, seed=seed, start=start or StartProfile())
