"""What the cluster is made of: GPU products, price pools, nodes, devices, NICs and pieces of them.

Watts, bytes, MHz, milli-GPU and counts are integers; durations and money are floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from cluster.base import Noun, Ref
from cluster.taints import Taint


class Market(StrEnum):
    """How a pool's capacity is bought."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"
    RESERVED = "reserved"


class Offer(StrEnum):
    """Whether a node takes new work.

    `cordoned` belongs to the user, `isolated` to the faults loop, `reclaiming` to the cloud and
    `lost` to the world (the node is silent past its limit).
    """

    OPEN = "open"
    CORDONED = "cordoned"
    ISOLATED = "isolated"
    RECLAIMING = "reclaiming"
    LOST = "lost"


class AcceleratorClass(Noun, kw_only=True, frozen=True):
    """A GPU product, as its data sheet has it.

    `flops` maps a precision ("bf16", "fp8") to dense FLOP/s. `clocks_mhz` is the ladder of lockable
    clocks in rising order. `safe_watts` is the per-GPU cap a node falls back to alone (>= min_watts).
    `link_bytes_per_second` is one direction between two GPUs of a node over `fabric` (`nvlink`, `pcie`).
    `sharing` is `none`, `mig`, `timeSlicing` or `dra`: with `mig` and `timeSlicing` a device is a part of a board, and
    no engine or rank spans two. `device_class` and `device_driver` name what pods ask of, with `dra`, and `share_capacities`
    the capacities of a device of which a share is asked for in thousandths (none: its GPUs are given out whole).
    `rdma_resource` lets a gang's pod at `rdma_count` RDMA devices (0: one for each port of its node), `networks` are its
    attachments, `shared_memory_bytes` the size of /dev/shm (0: by the number of GPUs).
    """

    ref: Ref
    resource_name: str = "nvidia.com/gpu"
    memory_bytes: int
    bandwidth_bytes_per_second: int
    flops: dict[str, float]
    min_watts: int
    max_watts: int
    tdp_watts: int
    safe_watts: int
    link_bytes_per_second: int = 32_000_000_000
    fabric: str = "pcie"
    clocks_mhz: tuple[int, ...] = ()
    aliases: tuple[str, ...] = ()
    sharing: str = "none"
    device_class: str = ""
    device_driver: str = ""
    share_capacities: tuple[str, ...] = ()
    rdma_resource: str = ""
    rdma_count: int = 0
    networks: tuple[str, ...] = ()
    ipc_lock: bool = False
    shared_memory_bytes: int = 0

    @property
    def name(self) -> str:
        """The product's name, e.g. `A100-80`."""
        return self.ref.name

    @property
    def taint_keys(self) -> tuple[str, ...]:
        """Keys of the taints that keep other pods off its nodes: the resource, and that of the vendor's whole GPUs."""
        vendor = self.resource_name.partition("/")[0]
        return tuple(dict.fromkeys((self.resource_name, f"{vendor}/gpu")))


class Pool(Noun, kw_only=True, frozen=True):
    """Where GPUs of one product are bought at one price.

    `available_gpus` is what the market would still sell on top of existing nodes (0 = nothing),
    `node_size` how many GPUs come at a time, `priced_at` the ISO date of the price. `buyable_nodes` is how many more
    nodes may be ordered now, by market, budget and back-off together; None where nobody can order any.
    """

    name: str
    accelerator: str
    region: str = ""
    zone: str = ""
    market: Market = Market.ON_DEMAND
    dollars_per_gpu_hour: float
    priced_at: str = ""
    available_gpus: int = 0
    node_size: int = 1
    reclaim_per_hour: float = 0.0
    buyable_nodes: int | None = None


class Device(Noun, kw_only=True, frozen=True):
    """One GPU of a node. `clique` numbers the NVLink island inside the node."""

    uuid: str
    index: int
    numa: int = 0
    clique: int = 0
    healthy: bool = True


class Nic(Noun, kw_only=True, frozen=True):
    """One network port. `link` is `infiniband`, `roce` or `ethernet`; the rate is in bits per second."""

    name: str
    link: str
    rate_bits_per_second: int
    gid_types: tuple[str, ...] = ()
    subnet: str = ""
    numa: int = 0


class Node(Noun, kw_only=True, frozen=True):
    """A machine with GPUs.

    `topology` is the full path, outermost first (zone, block, rack). `island` names the set of nodes
    that share one network of one NIC type. `order` is the tie rank, drawn once from the cluster seed
    and the uid: a fixed permutation packs measurably better than random ties
    (research: training-placement §1.4, FGD). `offer_until_seconds` is UTC; None = no end known. `rdma_devices` is how
    many of its product's `rdma_resource` pods can ask for. `taints` are
    those that our pods do not stand by themselves: an open node with some is open to whom they are tolerated by.
    `bought`: it was ordered by us and may be given back. `divisible` are the capacities, in base units, of each of its
    devices of which claims may ask for a part (empty: its devices are given out whole). `host` is the machine that it is a part of,
    where that has GPUs of several classes (empty: it is the machine): CPU and memory are the machine's.
    """

    ref: Ref
    pool: str
    accelerator: str
    devices: tuple[Device, ...]
    nics: tuple[Nic, ...] = ()
    cpu_millis: int = 0
    memory_bytes: int = 0
    dram_cache_bytes: int = 0
    nvme_bytes: int = 0
    island: str = ""
    topology: tuple[str, ...] = ()
    power_domain: str = ""
    offer: Offer = Offer.OPEN
    offer_until_seconds: float | None = None
    taints: tuple[Taint, ...] = ()
    order: int = 0
    bought: bool = False
    rdma_devices: int = 0
    divisible: dict[str, int] = {}
    host: str = ""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.ref.name

    @property
    def machine(self) -> str:
        """The name of the machine: its own, or that of which it is a part."""
        return self.host or self.ref.name

    @property
    def link(self) -> str:
        """The fastest NIC's link layer, or `none`: what a gang on this node would talk over."""
        best = max(self.nics, key=lambda nic: (nic.rate_bits_per_second, nic.name), default=None)
        return best.link if best else "none"


class Slot(Noun, kw_only=True, frozen=True):
    """A piece of a node: the unit of every placement. `milli_per_device` is 1000 for whole GPUs, less for a share of one."""

    node: str
    devices: tuple[int, ...]
    milli_per_device: int = 1000
    cpu_millis: int = 0
    memory_bytes: int = 0

    @property
    def gpus(self) -> int:
        """How many devices the slot touches."""
        return len(self.devices)

    @property
    def shares(self) -> bool:
        """Whether it has only a part of its device."""
        return self.milli_per_device < 1_000


def parts_of(nodes: Mapping[str, Node], machine: str) -> list[str]:
    """Names of the nodes that are one machine, or parts of it."""
    return sorted(name for name, node in nodes.items() if node.machine == machine)
