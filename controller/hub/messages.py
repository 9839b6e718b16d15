"""What agents tell the operator and what it tells them, typed and checked.

An absent part of a report (None) is unchanged since the last one that had it; a present part replaces it whole.
Reports of one node can therefore be folded into one (`NodeReport.then`), which is what a full inbox does.
Columns have one entry per device of the node's inventory; a missing reading is NaN in float columns, None elsewhere.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

import msgspec

T = TypeVar("T")
ACKS_KEPT = 4096
"""Answers kept when reports are folded: a node cannot have had more commands than that at once."""


class _Seen(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Base of what was told."""


class DeviceSeen(_Seen, frozen=True, kw_only=True):
    """One GPU as its driver describes it."""

    uuid: str
    index: int
    product: str
    memory_bytes: int
    min_watts: int
    max_watts: int
    default_watts: int
    max_clock_mhz: int
    numa: int
    clique: int
    pci_address: str
    healthy: bool
    fault: str
    clock_ladder_mhz: tuple[int, ...]


class NicSeen(_Seen, frozen=True, kw_only=True):
    """One network port; `link` is `ethernet`, `roce` or `infiniband`."""

    name: str
    link: str
    rate_bits_per_second: int
    gid_types: tuple[str, ...]
    numa: int
    pci_address: str
    subnet: str
    up: bool
    interface: str
    port: int


class InventorySeen(_Seen, frozen=True, kw_only=True):
    """What a node has."""

    devices: tuple[DeviceSeen, ...]
    nics: tuple[NicSeen, ...]
    cpu_millis: int
    memory_bytes: int
    dram_cache_bytes: int
    nvme_cache_bytes: int
    base_watts: int
    safe_watts: int
    driver_version: str

    @property
    def min_watts(self) -> int:
        """The least node watts it can be capped to."""
        return self.base_watts + sum(device.min_watts for device in self.devices)

    @property
    def max_watts(self) -> int:
        """The most node watts it can be allowed."""
        return self.base_watts + sum(device.max_watts for device in self.devices)


class GpuColumns(_Seen, frozen=True, kw_only=True):
    """Readings per device; a column that the driver cannot read is empty."""

    watts: tuple[float, ...] = ()
    cap_watts: tuple[int | None, ...] = ()
    clock_mhz: tuple[int | None, ...] = ()
    utilisation: tuple[float, ...] = ()
    memory_used_bytes: tuple[int | None, ...] = ()
    temperature_celsius: tuple[float, ...] = ()
    energy_millijoules: tuple[int | None, ...] = ()
    throttle_bits: tuple[int | None, ...] = ()


class LeaseSeen(_Seen, frozen=True, kw_only=True):
    """The node's power lease as the agent holds it. Node watts; `expires_seconds` is UTC by the agent's clock."""

    epoch: int
    sequence: int
    watts: int
    clock_mhz: int
    expires_seconds: float
    safe_watts: int
    active: bool
    readback_watts: int


class ReplicaSeen(_Seen, frozen=True, kw_only=True):
    """A replica's pod on the node (phases, stages, tiers: SEAMS §9)."""

    name: str
    uid: str
    phase: str
    stage: str
    tier: str
    phase_since_seconds: float
    fault: str


class InstanceSeen(_Seen, frozen=True, kw_only=True):
    """An awake engine."""

    name: str
    running: int
    waiting: int
    kv_free_tokens: int
    kv_capacity_tokens: int
    head_of_line_seconds: float
    capped_speed: float
    last_busy_seconds: float
    generated_tokens: int
    step_base_seconds: float | None
    step_per_sequence_seconds: float | None
    step_per_context_token_seconds: float | None


class GangSeen(_Seen, frozen=True, kw_only=True):
    """The ranks of one attempt of a job on the node."""

    job: str
    job_uid: str
    attempt: int
    ranks: int
    ranks_joined: int
    step: int
    last_checkpoint_step: int
    phase: str
    step_seconds: float
    fault: str


class WeightsSeen(_Seen, frozen=True, kw_only=True):
    """A model's weights in the node's cache."""

    model: str
    fingerprint: str
    tier: str
    bytes: int
    state: str
    last_used_seconds: float


class HolderSeen(_Seen, frozen=True, kw_only=True):
    """A device, or slice of it, in the hands of one container of a pod (`namespace/name`); `device` -1: of none known."""

    device: int
    device_id: str
    pod: str
    container: str
    resource: str


class HoldersSeen(_Seen, frozen=True, kw_only=True):
    """Who holds each GPU, as the node's kubelet says. `known` False: nobody can say, for the reason in `fault`.

    `offered`: indices of the devices that the kubelet would give to pods; None where it does not say.
    """

    rows: tuple[HolderSeen, ...]
    known: bool
    fault: str
    offered: tuple[int, ...] | None


class CountersSeen(_Seen, frozen=True, kw_only=True):
    """The agent's counts since its start."""

    commands_done: int
    commands_duplicate: int
    commands_old_epoch: int
    commands_expired: int
    commands_refused: int
    leases_expired: int
    reconnects: int


class AckCode(IntEnum):
    """How a command ended. The values are those of the wire."""

    DONE = 1
    DUPLICATE = 2
    OLD_EPOCH = 3
    EXPIRED = 4
    OUT_OF_RANGE = 5
    UNSUPPORTED = 6
    FAILED = 7


class Ack(_Seen, frozen=True, kw_only=True):
    """The answer to one delivery of a command. `readback_watts` (node) comes with a GrantPower that was DONE."""

    id: str
    epoch: int
    sequence: int
    code: AckCode
    message: str
    readback_watts: int | None
    finished_seconds: float


class NodeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One report (or several folded into one) of a node. Times in UTC seconds; delivered by the operator's clock.

    `version` is that of the agent's software, as it said when it came.
    """

    node: str
    tick: int
    sequence: int
    observed_seconds: float
    delivered_seconds: float
    boot_id: str
    last_command_sequence: int
    inventory: InventorySeen | None = None
    node_watts: float | None = None
    gpus: GpuColumns | None = None
    lease: LeaseSeen | None = None
    replicas: tuple[ReplicaSeen, ...] | None = None
    instances: tuple[InstanceSeen, ...] | None = None
    gangs: tuple[GangSeen, ...] | None = None
    weights: tuple[WeightsSeen, ...] | None = None
    counters: CountersSeen | None = None
    holders: HoldersSeen | None = None
    version: str = ""
    acks: tuple[Ack, ...] = ()

    def then(self, later: NodeReport) -> NodeReport:
        """Both as one: the later part where it has one, else the earlier; answers of both, in order."""
        return NodeReport(
            node=later.node,
            tick=later.tick,
            sequence=later.sequence,
            observed_seconds=later.observed_seconds,
            delivered_seconds=later.delivered_seconds,
            boot_id=later.boot_id,
            last_command_sequence=later.last_command_sequence,
            inventory=_newer(later.inventory, self.inventory),
            node_watts=_newer(later.node_watts, self.node_watts),
            gpus=_newer(later.gpus, self.gpus),
            lease=_newer(later.lease, self.lease),
            replicas=_newer(later.replicas, self.replicas),
            instances=_newer(later.instances, self.instances),
            gangs=_newer(later.gangs, self.gangs),
            weights=_newer(later.weights, self.weights),
            counters=_newer(later.counters, self.counters),
            holders=_newer(later.holders, self.holders),
            version=later.version,
            acks=(self.acks + later.acks)[-ACKS_KEPT:],
        )


def _newer(new: T | None, old: T | None) -> T | None:
    return old if new is None else new
