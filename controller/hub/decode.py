"""Reports from the wire to typed structs. What cannot be true is left out and counted, never guessed.

An agent is authenticated, not trusted to be right: readings outside any hardware's range, columns that do not fit
the inventory, rows with absurd names, and times from the future are dropped here, before anything decides on them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from controller.hub.messages import (
    Ack,
    AckCode,
    CountersSeen,
    DeviceSeen,
    GangSeen,
    GpuColumns,
    HolderSeen,
    HoldersSeen,
    InstanceSeen,
    InventorySeen,
    LeaseSeen,
    NicSeen,
    NodeReport,
    ReplicaSeen,
    WeightsSeen,
)
from wire import agent_pb2 as pb

LONGEST_NAME = 512
MOST_DEVICES = 64
MOST_HOLDERS = 512
"""Rows kept of who holds a node's GPUs; an agent sends no more."""
MOST_WATTS = 1_000_000.0
FUTURE_SECONDS = 5.0
"""An agent's clock may be ahead by this much; beyond it its time is replaced by the time of delivery."""
MISSING_32 = 0xFFFFFFFF
MISSING_64 = 0xFFFFFFFFFFFFFFFF
_UNFITTED: tuple[float | None, float | None, float | None] = (None, None, None)
_LINKS = {pb.NIC_LINK_ETHERNET: "ethernet", pb.NIC_LINK_ROCE: "roce", pb.NIC_LINK_INFINIBAND: "infiniband"}
_CODES = {int(code): code for code in AckCode}


class Decoder:
    """Decodes the reports of one stream; knows the node's device count from its last inventory."""

    __slots__ = ("_boot_id", "_devices", "_node", "_version", "rejected")

    def __init__(self, node: str, boot_id: str, version: str = "") -> None:
        self._node = node
        self._boot_id = boot_id
        self._version = version[:LONGEST_NAME]
        self._devices: int | None = None
        self.rejected = 0
        """Values, rows and sections left out so far."""

    def report(self, message: pb.AgentMessage, delivered_seconds: float) -> NodeReport:
        """The typed report of a message that carries one."""
        body = message.report
        observed = message.observed_seconds
        if not 0.0 <= observed <= delivered_seconds + FUTURE_SECONDS:
            self.rejected += 1
            observed = delivered_seconds
        inventory = self._inventory(body.inventory) if body.HasField("inventory") else None
        parts = self._telemetry(body.telemetry) if body.HasField("telemetry") else {}
        return NodeReport(
            node=self._node,
            tick=message.tick,
            sequence=message.sequence,
            observed_seconds=observed,
            delivered_seconds=delivered_seconds,
            boot_id=self._boot_id,
            version=self._version,
            last_command_sequence=body.last_command_sequence,
            inventory=inventory,
            acks=tuple(self._acks(body.acks)) if body.acks else (),
            **parts,  # type: ignore[arg-type]  # by the sections' names
        )

    def _telemetry(self, body: pb.Telemetry) -> dict[str, object]:
        """The sections present, by the names of `NodeReport`'s fields."""
        parts: dict[str, object] = {}
        for descriptor, value in body.ListFields():
            section = descriptor.name
            if section == "node_watts":
                parts[section] = self._watts(value)
            elif section == "gpus":
                parts[section] = self._gpus(value)
            elif section == "lease":
                parts[section] = _lease(value)
            elif section == "counters":
                parts[section] = _counters(value)
            elif section == "holders":
                parts[section] = self._holders(value)
            else:
                build = _ROWS[section]
                parts[section] = tuple(build(row) for row in value.rows if self._named(row))
        return parts

    def _holders(self, body: pb.HolderRows) -> HoldersSeen:
        """Who holds what, where it names pods and devices that can be."""
        rows = tuple(_holder(row) for row in body.rows[:MOST_HOLDERS] if self._holds(row))
        self.rejected += max(0, len(body.rows) - MOST_HOLDERS)
        offered = tuple(sorted({place for place in body.offered if place < (self._devices or 0)}))
        return HoldersSeen(
            rows=rows,
            known=body.known,
            fault=body.fault[:LONGEST_NAME],
            offered=offered if body.offered_known else None,
        )

    def _holds(self, row: pb.HolderRow) -> bool:
        namespace, slash, name = row.pod.partition("/")
        named = 0 < len(row.pod) <= LONGEST_NAME and bool(slash and namespace and name)
        if named and -1 <= row.device < (self._devices or 0):
            return True
        self.rejected += 1
        return False

    def _watts(self, watts: float) -> float | None:
        if 0.0 <= watts <= MOST_WATTS:
            return watts
        self.rejected += 1
        return None

    def _named(self, row: object) -> bool:
        """Whether a row's key is one: not empty, not absurd."""
        key: str = getattr(row, "name", "") or getattr(row, "job_uid", "") or getattr(row, "model", "")
        if 0 < len(key) <= LONGEST_NAME:
            return True
        self.rejected += 1
        return False

    def _gpus(self, columns: pb.GpuColumns) -> GpuColumns | None:
        """The columns, where each fits the inventory (or is empty) and watts are possible."""
        present = [column for _, column in columns.ListFields()]
        size = self._devices if self._devices is not None else max(map(len, present), default=0)
        if size > MOST_DEVICES or any(len(column) != size for column in present):
            self.rejected += 1
            return None
        return GpuColumns(
            watts=self._readings(columns.watts, MOST_WATTS),
            cap_watts=_integers(columns.cap_watts, MISSING_32),
            clock_mhz=_integers(columns.clock_mhz, MISSING_32),
            utilisation=self._readings(columns.utilisation, 1.0 + 1e-6),
            memory_used_bytes=_integers(columns.memory_used_bytes, MISSING_64),
            temperature_celsius=self._readings(columns.temperature_celsius, 200.0),
            energy_millijoules=_integers(columns.energy_millijoules, MISSING_64),
            throttle_bits=_integers(columns.throttle_bits, MISSING_32),
        )

    def _readings(self, column: Sequence[float], most: float) -> tuple[float, ...]:
        """The column with NaN for what is impossible (NaN itself is a sensor's silence, and is not counted)."""
        values = tuple(column)
        if all(0.0 <= value <= most for value in values):
            return values
        self.rejected += sum(not (0.0 <= value <= most or math.isnan(value)) for value in values)
        return tuple(value if 0.0 <= value <= most else math.nan for value in values)

    def _inventory(self, body: pb.Inventory) -> InventorySeen | None:
        if len(body.devices) > MOST_DEVICES or any(
            len(device.uuid) > LONGEST_NAME for device in body.devices
        ):
            self.rejected += 1
            return None
        self._devices = len(body.devices)
        return InventorySeen(
            devices=tuple(_device(device) for device in body.devices),
            nics=tuple(_nic(nic) for nic in body.nics if self._named(nic)),
            cpu_millis=body.cpu_millis,
            memory_bytes=body.memory_bytes,
            dram_cache_bytes=body.dram_cache_bytes,
            nvme_cache_bytes=body.nvme_cache_bytes,
            base_watts=body.base_watts,
            safe_watts=body.safe_watts,
            driver_version=body.driver_version[:LONGEST_NAME],
        )

    def _acks(self, acks: Iterable[pb.CommandAck]) -> Iterable[Ack]:
        for ack in acks:
            code = _CODES.get(ack.code)
            if code is None or len(ack.id) > LONGEST_NAME:
                self.rejected += 1
                continue
            yield Ack(
                id=ack.id,
                epoch=ack.epoch,
                sequence=ack.sequence,
                code=code,
                message=ack.message[:LONGEST_NAME],
                readback_watts=ack.readback_watts if ack.HasField("readback_watts") else None,
                finished_seconds=ack.finished_seconds,
            )


def _integers(column: Sequence[int], missing: int) -> tuple[int | None, ...]:
    values = tuple(column)
    return values if missing not in values else tuple(None if value == missing else value for value in values)


def _device(device: pb.Device) -> DeviceSeen:
    return DeviceSeen(
        uuid=device.uuid,
        index=device.index,
        product=device.product[:LONGEST_NAME],
        memory_bytes=device.memory_bytes,
        min_watts=device.min_watts,
        max_watts=device.max_watts,
        default_watts=device.default_watts,
        max_clock_mhz=device.max_clock_mhz,
        numa=device.numa,
        clique=device.clique,
        pci_address=device.pci_address[:LONGEST_NAME],
        healthy=device.healthy,
        fault=device.fault[:LONGEST_NAME],
        clock_ladder_mhz=tuple(device.clock_ladder_mhz[:1024]),
    )


def _nic(nic: pb.Nic) -> NicSeen:
    return NicSeen(
        name=nic.name,
        link=_LINKS.get(nic.link, "ethernet"),
        rate_bits_per_second=nic.rate_bits_per_second,
        gid_types=tuple(nic.gid_types[:16]),
        numa=nic.numa,
        pci_address=nic.pci_address[:LONGEST_NAME],
        subnet=nic.subnet[:LONGEST_NAME],
        up=nic.up,
        interface=nic.interface[:LONGEST_NAME],
        port=nic.port,
    )


def _lease(body: pb.LeaseState) -> LeaseSeen:
    return LeaseSeen(
        epoch=body.epoch,
        sequence=body.sequence,
        watts=body.watts,
        clock_mhz=body.clock_mhz,
        expires_seconds=_finite(body.expires_seconds),
        safe_watts=body.safe_watts,
        active=body.active,
        readback_watts=body.readback_watts,
    )


def _counters(body: pb.AgentCounters) -> CountersSeen:
    return CountersSeen(
        commands_done=body.commands_done,
        commands_duplicate=body.commands_duplicate,
        commands_old_epoch=body.commands_old_epoch,
        commands_expired=body.commands_expired,
        commands_refused=body.commands_refused,
        leases_expired=body.leases_expired,
        reconnects=body.reconnects,
    )


def _replica(row: pb.ReplicaRow) -> ReplicaSeen:
    return ReplicaSeen(
        name=row.name,
        uid=row.uid,
        phase=row.phase,
        stage=row.stage,
        tier=row.tier,
        phase_since_seconds=_finite(row.phase_since_seconds),
        fault=row.fault[:LONGEST_NAME],
    )


def _instance(row: pb.InstanceRow) -> InstanceSeen:
    """The most frequent row by far, hence one test of finiteness for all its floats."""
    head, speed, busy = row.head_of_line_seconds, row.capped_speed, row.last_busy_seconds
    base, each, token = (
        (row.step_base_seconds, row.step_per_sequence_seconds, row.step_per_context_token_seconds)
        if row.HasField("step_base_seconds")
        else _UNFITTED
    )
    if not math.isfinite(head + speed + busy + (base or 0.0) + (each or 0.0) + (token or 0.0)):
        head, speed, busy = _finite(head), _finite(speed), _finite(busy)
        base, each, token = _UNFITTED
    return InstanceSeen(
        name=row.name,
        running=row.running,
        waiting=row.waiting,
        kv_free_tokens=row.kv_free_tokens,
        kv_capacity_tokens=row.kv_capacity_tokens,
        head_of_line_seconds=head,
        capped_speed=speed,
        last_busy_seconds=busy,
        generated_tokens=row.generated_tokens,
        step_base_seconds=base,
        step_per_sequence_seconds=each,
        step_per_context_token_seconds=token,
    )


def _gang(row: pb.GangRow) -> GangSeen:
    return GangSeen(
        job=row.job[:LONGEST_NAME],
        job_uid=row.job_uid,
        attempt=row.attempt,
        ranks=row.ranks,
        ranks_joined=row.ranks_joined,
        step=row.step,
        last_checkpoint_step=row.last_checkpoint_step,
        phase=row.phase,
        step_seconds=_finite(row.step_seconds),
        fault=row.fault[:LONGEST_NAME],
    )


def _holder(row: pb.HolderRow) -> HolderSeen:
    return HolderSeen(
        device=row.device,
        device_id=row.device_id[:LONGEST_NAME],
        pod=row.pod,
        container=row.container[:LONGEST_NAME],
        resource=row.resource[:LONGEST_NAME],
    )


def _weights(row: pb.WeightRow) -> WeightsSeen:
    return WeightsSeen(
        model=row.model,
        fingerprint=row.fingerprint,
        tier=row.tier,
        bytes=row.bytes,
        state=row.state,
        last_used_seconds=_finite(row.last_used_seconds),
    )


_ROWS: dict[str, Callable[..., object]] = {
    "replicas": _replica,
    "instances": _instance,
    "gangs": _gang,
    "weights": _weights,
}


def _finite(value: float) -> float:
    """Nouns hold no NaN and no infinity; both read as 0 here."""
    return value if math.isfinite(value) else 0.0
