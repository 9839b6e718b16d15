"""What the operator may tell an agent, and its form on the wire. Units: node watts, MHz, bytes, seconds."""

from __future__ import annotations

import msgspec

from wire import agent_pb2 as pb


class _Command(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Base of all commands."""


class GrantPower(_Command, frozen=True, kw_only=True):
    """A lease on power: the node may draw `watts` (base included), its GPUs clock up to `clock_mhz` (0 = free)."""

    watts: int
    clock_mhz: int = 0
    ttl_seconds: float = 5.0


class StageWeights(_Command, frozen=True, kw_only=True):
    """Bring a model's weights into the node's cache, tier `dram` or `nvme`, from a node or a storage URL."""

    model: str
    fingerprint: str
    tier: str
    source: str
    bytes: int


class DropWeights(_Command, frozen=True, kw_only=True):
    """Remove them from one tier."""

    model: str
    fingerprint: str
    tier: str


class SetTier(_Command, frozen=True, kw_only=True):
    """Put a replica ("namespace/name") to sleep, or wake it: awake, asleep_host, asleep_discard."""

    replica: str
    uid: str
    tier: str


class Checkpoint(_Command, frozen=True, kw_only=True):
    """Write a checkpoint now, and every `interval_seconds` from now on (0 keeps the interval)."""

    job_uid: str
    attempt: int
    tier: str = "zone"
    interval_seconds: float = 0.0


class PaceGang(_Command, frozen=True, kw_only=True):
    """Start iterations at multiples of the period plus the offset."""

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
    """Take a device (none named: the node) out of use; level 0 lifts it."""

    device_uuid: str = ""
    level: int
    until_seconds: float


AgentCommand = GrantPower | StageWeights | DropWeights | SetTier | Checkpoint | PaceGang | Probe | Isolate

_FIELDS: dict[type[AgentCommand], str] = {
    GrantPower: "grant_power",
    StageWeights: "stage_weights",
    DropWeights: "drop_weights",
    SetTier: "set_tier",
    Checkpoint: "checkpoint",
    PaceGang: "pace_gang",
    Probe: "probe",
    Isolate: "isolate",
}


def to_wire(
    command: AgentCommand, command_id: str, epoch: int, sequence: int, deadline_seconds: float
) -> pb.Command:
    """The command with its stamp. The typed fields have the names of the wire's."""
    message = pb.Command(id=command_id, epoch=epoch, sequence=sequence, deadline_seconds=deadline_seconds)
    if isinstance(command, GrantPower):  # by far the most frequent: one a second and node
        grant = message.grant_power
        grant.watts = command.watts
        grant.clock_mhz = command.clock_mhz
        grant.ttl_seconds = command.ttl_seconds
        return message
    body = getattr(message, _FIELDS[type(command)])
    body.SetInParent()
    for field in command.__struct_fields__:
        setattr(body, field, getattr(command, field))
    return message
