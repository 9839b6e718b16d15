"""Typed structs to the wire: inventory, telemetry sections, answers."""

from __future__ import annotations

import math
from collections.abc import Iterable

from agent.node.commands import Stamp
from agent.node.counters import Counters
from agent.node.drivers.base import (
    Code,
    GangState,
    GpuReadings,
    InstanceState,
    Inventory,
    Outcome,
    ReplicaState,
    WeightState,
)
from agent.node.lease import Lease
from agent.node.nics import Link
from wire import agent_pb2 as pb

MISSING_32 = 0xFFFFFFFF
MISSING_64 = 0xFFFFFFFFFFFFFFFF
_LINKS = {
    Link.ETHERNET: pb.NIC_LINK_ETHERNET,
    Link.ROCE: pb.NIC_LINK_ROCE,
    Link.INFINIBAND: pb.NIC_LINK_INFINIBAND,
}
_CODES = {
    Code.DONE: pb.ACK_CODE_DONE,
    Code.DUPLICATE: pb.ACK_CODE_DUPLICATE,
    Code.OLD_EPOCH: pb.ACK_CODE_OLD_EPOCH,
    Code.EXPIRED: pb.ACK_CODE_EXPIRED,
    Code.OUT_OF_RANGE: pb.ACK_CODE_OUT_OF_RANGE,
    Code.UNSUPPORTED: pb.ACK_CODE_UNSUPPORTED,
    Code.FAILED: pb.ACK_CODE_FAILED,
}


def put_inventory(into: pb.Inventory, inventory: Inventory) -> None:
    """Fills an inventory message."""
    for device in inventory.devices:
        into.devices.add(
            uuid=device.uuid,
            index=device.index,
            product=device.product,
            memory_bytes=device.memory_bytes,
            min_watts=device.min_watts,
            max_watts=device.max_watts,
            default_watts=device.default_watts,
            max_clock_mhz=device.max_clock_mhz,
            numa=device.numa,
            clique=device.clique,
            pci_address=device.pci_address,
            healthy=device.healthy,
            fault=device.fault,
            clock_ladder_mhz=device.clock_ladder_mhz,
        )
    for nic in inventory.nics:
        into.nics.add(
            name=nic.name,
            link=_LINKS[nic.link],
            rate_bits_per_second=nic.rate_bits_per_second,
            gid_types=nic.gid_types,
            numa=nic.numa,
            pci_address=nic.pci_address,
            subnet=nic.subnet,
            up=nic.up,
            interface=nic.interface,
            port=nic.port,
        )
    into.cpu_millis = inventory.cpu_millis
    into.memory_bytes = inventory.memory_bytes
    into.dram_cache_bytes = inventory.dram_cache_bytes
    into.nvme_cache_bytes = inventory.nvme_cache_bytes
    into.base_watts = inventory.base_watts
    into.safe_watts = inventory.safe_watts
    into.driver_version = inventory.driver_version


def put_gpus(into: pb.GpuColumns, gpus: GpuReadings) -> None:
    """Fills the device columns; a missing reading is NaN or all ones."""
    into.SetInParent()
    into.watts.extend(_floats(gpus.watts))
    into.cap_watts.extend(_integers(gpus.cap_watts, MISSING_32))
    into.clock_mhz.extend(_integers(gpus.clock_mhz, MISSING_32))
    into.utilisation.extend(_floats(gpus.utilisation))
    into.memory_used_bytes.extend(_integers(gpus.memory_used_bytes, MISSING_64))
    into.temperature_celsius.extend(_floats(gpus.temperature_celsius))
    into.energy_millijoules.extend(_integers(gpus.energy_millijoules, MISSING_64))
    into.throttle_bits.extend(_integers(gpus.throttle_bits, MISSING_32))


def put_lease(
    into: pb.LeaseState, lease: Lease, expires_seconds: float, safe_watts: int, readback_watts: int
) -> None:
    """Fills the lease's state; `expires_seconds` is UTC."""
    into.epoch = lease.epoch
    into.sequence = lease.sequence
    into.watts = lease.watts
    into.clock_mhz = lease.clock_mhz
    into.expires_seconds = expires_seconds
    into.safe_watts = safe_watts
    into.active = lease.active
    into.readback_watts = readback_watts


def put_replicas(into: pb.ReplicaRows, rows: Iterable[ReplicaState]) -> None:
    """Fills the replicas' section: all of the node, none meaning none."""
    into.SetInParent()
    for row in rows:
        into.rows.add(
            name=row.name,
            uid=row.uid,
            phase=row.phase,
            stage=row.stage,
            tier=row.tier,
            phase_since_seconds=row.phase_since_seconds,
            fault=row.fault,
        )


def put_instances(into: pb.InstanceRows, rows: Iterable[InstanceState]) -> None:
    """Fills the engines' section."""
    into.SetInParent()
    for row in rows:
        into.rows.add(
            name=row.name,
            running=row.running,
            waiting=row.waiting,
            kv_free_tokens=row.kv_free_tokens,
            kv_capacity_tokens=row.kv_capacity_tokens,
            head_of_line_seconds=row.head_of_line_seconds,
            capped_speed=row.capped_speed,
            last_busy_seconds=row.last_busy_seconds,
            generated_tokens=row.generated_tokens,
            step_base_seconds=row.step_base_seconds,
            step_per_sequence_seconds=row.step_per_sequence_seconds,
            step_per_context_token_seconds=row.step_per_context_token_seconds,
        )


def put_gangs(into: pb.GangRows, rows: Iterable[GangState]) -> None:
    """Fills the gangs' section."""
    into.SetInParent()
    for row in rows:
        into.rows.add(
            job=row.job,
            job_uid=row.job_uid,
            attempt=row.attempt,
            ranks=row.ranks,
            ranks_joined=row.ranks_joined,
            step=row.step,
            last_checkpoint_step=row.last_checkpoint_step,
            phase=row.phase,
            step_seconds=row.step_seconds,
            fault=row.fault,
        )


def put_weights(into: pb.WeightRows, rows: Iterable[WeightState]) -> None:
    """Fills the weight cache's section."""
    into.SetInParent()
    for row in rows:
        into.rows.add(
            model=row.model,
            fingerprint=row.fingerprint,
            tier=row.tier,
            bytes=row.bytes,
            state=row.state,
            last_used_seconds=row.last_used_seconds,
        )


def put_counters(into: pb.AgentCounters, counters: Counters, commands: dict[Code, int]) -> None:
    """Fills the agent's counts."""
    into.SetInParent()
    into.commands_done = commands[Code.DONE]
    into.commands_duplicate = commands[Code.DUPLICATE]
    into.commands_old_epoch = commands[Code.OLD_EPOCH]
    into.commands_expired = commands[Code.EXPIRED]
    into.commands_refused = commands[Code.OUT_OF_RANGE] + commands[Code.UNSUPPORTED] + commands[Code.FAILED]
    into.leases_expired = counters.leases_expired
    into.reconnects = counters.reconnects


def ack_of(stamp: Stamp, outcome: Outcome, finished_seconds: float) -> pb.CommandAck:
    """The answer to one delivery of a command."""
    return pb.CommandAck(
        id=stamp.id[:256],
        epoch=stamp.epoch,
        sequence=stamp.sequence,
        code=_CODES[outcome.code],
        message=outcome.message,
        readback_watts=outcome.readback_watts,
        finished_seconds=finished_seconds,
    )


def _floats(column: tuple[float | None, ...]) -> Iterable[float]:
    return column if None not in column else [math.nan if value is None else value for value in column]  # type: ignore[return-value]


def _integers(column: tuple[int | None, ...], missing: int) -> Iterable[int]:
    return column if None not in column else [missing if value is None else value for value in column]  # type: ignore[return-value]
