"""The interface between the agent and a node's hardware, real or modelled, in typed structs.

A driver reads and sets; it decides nothing. Leases, epochs, deadlines and reports are the agent's. Watts, bytes,
MHz and counts are integers where they are settings, floats where they are readings; a reading that a sensor does
not give is None. Columns have one entry per device, in the inventory's order.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol

import msgspec

from agent.node.nics import Nic


class DriverError(Exception):
    """The hardware did not answer or did not obey; the text says which device and what to do."""


class _Fact(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Base of what a driver tells."""


class Device(_Fact, frozen=True, kw_only=True):
    """One GPU as the driver knows it. `clique` numbers groups joined by NVLink or the like.

    `slices` are the UUIDs of its MIG slices, by which a kubelet may name it.
    """

    uuid: str
    index: int
    product: str
    memory_bytes: int
    min_watts: int
    max_watts: int
    default_watts: int
    max_clock_mhz: int = 0
    numa: int = -1
    clique: int = 0
    pci_address: str = ""
    healthy: bool = True
    fault: str = ""
    clock_ladder_mhz: tuple[int, ...] = ()
    slices: tuple[str, ...] = ()


class Inventory(_Fact, frozen=True, kw_only=True):
    """What a node has. `base_watts` is its draw without GPUs; `safe_watts` what it may draw without a lease."""

    devices: tuple[Device, ...] = ()
    nics: tuple[Nic, ...] = ()
    cpu_millis: int = 0
    memory_bytes: int = 0
    dram_cache_bytes: int = 0
    nvme_cache_bytes: int = 0
    base_watts: int = 0
    safe_watts: int = 0
    driver_version: str = ""

    @property
    def min_watts(self) -> int:
        """The least the node can be capped to: base and every GPU at its least limit."""
        return self.base_watts + sum(device.min_watts for device in self.devices)

    @property
    def max_watts(self) -> int:
        """The most it can be allowed: base and every GPU at its highest limit."""
        return self.base_watts + sum(device.max_watts for device in self.devices)


class GpuReadings(_Fact, frozen=True, kw_only=True):
    """Columns over the devices. `energy_millijoules` counts up within a boot; `throttle_bits` is NVML's mask."""

    watts: tuple[float | None, ...] = ()
    cap_watts: tuple[int | None, ...] = ()
    clock_mhz: tuple[int | None, ...] = ()
    utilisation: tuple[float | None, ...] = ()
    memory_used_bytes: tuple[int | None, ...] = ()
    temperature_celsius: tuple[float | None, ...] = ()
    energy_millijoules: tuple[int | None, ...] = ()
    throttle_bits: tuple[int | None, ...] = ()


class ReplicaState(_Fact, frozen=True, kw_only=True):
    """A replica's pod on this node. Phases, stages and tiers are those of SEAMS §9."""

    name: str
    uid: str = ""
    phase: str
    stage: str = ""
    tier: str = "awake"
    phase_since_seconds: float = 0.0
    fault: str = ""


class InstanceState(_Fact, frozen=True, kw_only=True):
    """An awake engine. Step coefficients: seconds per step, per sequence in it, per token of context."""

    name: str
    running: int = 0
    waiting: int = 0
    kv_free_tokens: int = 0
    kv_capacity_tokens: int = 0
    head_of_line_seconds: float = 0.0
    capped_speed: float = 1.0
    last_busy_seconds: float = 0.0
    generated_tokens: int = 0
    step_base_seconds: float | None = None
    step_per_sequence_seconds: float | None = None
    step_per_context_token_seconds: float | None = None


class GangState(_Fact, frozen=True, kw_only=True):
    """The ranks of one attempt of a job on this node, and how far it is."""

    job: str
    job_uid: str
    attempt: int
    ranks: int
    ranks_joined: int
    step: int = 0
    last_checkpoint_step: int = 0
    phase: str
    step_seconds: float = 0.0
    fault: str = ""


class WeightState(_Fact, frozen=True, kw_only=True):
    """A model's weights in the node's cache; `tier` dram or nvme, `state` staging, ready or dropping."""

    model: str
    fingerprint: str = ""
    tier: str
    bytes: int
    state: str
    last_used_seconds: float = 0.0


class Sample(_Fact, frozen=True, kw_only=True):
    """All readings of one moment."""

    node_watts: float | None = None
    gpus: GpuReadings = GpuReadings()
    replicas: tuple[ReplicaState, ...] = ()
    instances: tuple[InstanceState, ...] = ()
    gangs: tuple[GangState, ...] = ()
    weights: tuple[WeightState, ...] = ()


class Code(IntEnum):
    """How a command ended. The values are those of `AckCode` on the wire."""

    DONE = 1
    DUPLICATE = 2
    OLD_EPOCH = 3
    EXPIRED = 4
    OUT_OF_RANGE = 5
    UNSUPPORTED = 6
    FAILED = 7


class Outcome(_Fact, frozen=True, kw_only=True):
    """A driver's answer: a sentence for all but DONE; after SetPower the node watts that the caps read back give."""

    code: Code
    message: str = ""
    readback_watts: int | None = None


class _Command(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Base of what a driver is asked to do."""


class SetPower(_Command, frozen=True, kw_only=True):
    """Cap the node at `watts` (base included), every GPU's clock at `clock_mhz` (0 = free)."""

    watts: int
    clock_mhz: int = 0


class StageWeights(_Command, frozen=True, kw_only=True):
    """Bring a model's weights into the cache."""

    model: str
    fingerprint: str
    tier: str
    source: str
    bytes: int


class DropWeights(_Command, frozen=True, kw_only=True):
    """Remove them."""

    model: str
    fingerprint: str
    tier: str


class SetTier(_Command, frozen=True, kw_only=True):
    """Put a replica to sleep or wake it."""

    replica: str
    uid: str
    tier: str


class Checkpoint(_Command, frozen=True, kw_only=True):
    """Write a checkpoint now and, unless it is 0, every `interval_seconds` from now on."""

    job_uid: str
    attempt: int
    tier: str
    interval_seconds: float


class PaceGang(_Command, frozen=True, kw_only=True):
    """Start iterations of a gang at multiples of a period plus an offset."""

    job_uid: str
    attempt: int
    period_seconds: float
    offset_seconds: float


class Probe(_Command, frozen=True, kw_only=True):
    """Measure the bandwidth to a peer."""

    peer: str
    nic: str
    duration_seconds: float


class Isolate(_Command, frozen=True, kw_only=True):
    """Take a device (or, with an empty uuid, the node) out of use; level 0 lifts it."""

    device_uuid: str
    level: int
    until_seconds: float


DriverCommand = SetPower | StageWeights | DropWeights | SetTier | Checkpoint | PaceGang | Probe | Isolate


class Driver(Protocol):
    """What the agent needs of a node. Every method may raise DriverError; none waits longer than a sample may take."""

    @property
    def name(self) -> str:
        """`nvml` or `simulated`."""
        ...

    def inventory(self) -> Inventory:
        """What the node has now. Cheap enough to be asked each second; equal when nothing changed."""
        ...

    def sample(self, now_seconds: float) -> Sample:
        """All readings, as of `now_seconds` (UTC)."""
        ...

    def apply(self, command: DriverCommand, now_seconds: float) -> Outcome:
        """Carries a command out, or answers UNSUPPORTED with a sentence."""
        ...

    def advance(self, now_seconds: float) -> None:
        """Lets modelled time pass up to `now_seconds`; hardware does that by itself."""
        ...


def unsupported(driver: str, command: DriverCommand) -> Outcome:
    """The answer of a driver to a kind that it does not carry out."""
    return Outcome(
        code=Code.UNSUPPORTED,
        message=f"The {driver} driver of this node does not carry out {type(command).__name__}.",
    )
