"""What a tick has to say: the sections that moved beyond their dead band, answers, or a heartbeat.

Measured (DESIGN §3): a thousand full reports a second cost Python 0.2 to 0.4 of a core, so what stands still is
left out. A section is sent whole or not at all; the first report of a stream has them all.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.node import encode
from agent.node.actuator import Actuator
from agent.node.counters import Counters
from agent.node.drivers.base import GpuReadings, Sample
from agent.node.holders import Holders, put_holders
from wire import agent_pb2 as pb

COUNTERS_SECONDS = 10.0
"""How often the agent's counts go along at most: they are for people."""


class DeadBand(msgspec.Struct, frozen=True, kw_only=True):
    """How far a reading must move from the one last sent to be sent again.

    `watts_fraction` applies beside `watts` (the larger counts). A cap, a throttle reason, or a reading that appears
    or vanishes is always news; the energy counter, which always moves, never is by itself.
    """

    watts: float = 5.0
    watts_fraction: float = 0.01
    clock_mhz: float = 15.0
    utilisation: float = 0.02
    memory_bytes: float = 64.0 * 1024 * 1024
    temperature_celsius: float = 1.0


class Reporter:
    """Compares each sample with what the hub was last told, and builds the report."""

    def __init__(self, dead_band: DeadBand, counters: Counters) -> None:
        self._band = dead_band
        self._counters = counters
        self._told_node_watts: float | None = None
        self._told_gpus: GpuReadings | None = None
        self._told_rows: Sample | None = None
        self._told_at_seconds = float("-inf")
        self._told_inventory = False
        self._told_lease: tuple[object, ...] = ()
        self._told_holders: Holders | None = None
        self._counters_at_seconds = float("-inf")

    def forget(self) -> None:
        """The stream is new: the next report has every section."""
        self._told_gpus = None
        self._told_rows = None
        self._told_inventory = False
        self._told_lease = ()
        self._told_holders = None
        self._told_at_seconds = self._counters_at_seconds = float("-inf")

    def inventory_changed(self) -> None:
        """The next report has the inventory."""
        self._told_inventory = False

    def fill(
        self,
        report: pb.Report,
        sample: Sample,
        actuator: Actuator,
        now_seconds: float,
        heartbeat_seconds: float,
        holders: Holders | None = None,
    ) -> bool:
        """Fills the report of this tick, and takes the answers with it. `holders` None: nobody asks the kubelet.

        False when nothing moved and no heartbeat is due: then it is not to be sent.
        """
        news = self._put_inventory(report, actuator)
        news |= self._put_columns(report, sample)
        news |= self._put_rows(report, sample)
        news |= self._put_lease(report, actuator)
        news |= self._put_holders(report, holders)
        if actuator.has_acks:
            report.acks.extend(actuator.take_acks())
            news = True
        if not news and now_seconds - self._told_at_seconds < heartbeat_seconds - 1e-6:
            return False
        if not news:
            self._counters.heartbeats += 1
        elif now_seconds - self._counters_at_seconds >= COUNTERS_SECONDS:
            encode.put_counters(report.telemetry.counters, self._counters, actuator.ledger.counts)
            self._counters_at_seconds = now_seconds
        report.last_command_sequence = actuator.ledger.last_sequence
        self._counters.reports += 1
        self._told_at_seconds = now_seconds
        return True

    def _put_inventory(self, report: pb.Report, actuator: Actuator) -> bool:
        if self._told_inventory:
            return False
        encode.put_inventory(report.inventory, actuator.inventory)
        self._told_inventory = True
        return True

    def _put_columns(self, report: pb.Report, sample: Sample) -> bool:
        """Node watts and device columns go together. What was told stays the point of comparison, so that a slow
        drift is noticed.
        """
        if not self._moved(sample):
            return False
        self._told_node_watts = sample.node_watts
        self._told_gpus = sample.gpus
        if sample.node_watts is not None:
            report.telemetry.node_watts = sample.node_watts
        encode.put_gpus(report.telemetry.gpus, sample.gpus)
        return True

    def _put_rows(self, report: pb.Report, sample: Sample) -> bool:
        """Replicas, engines, gangs and weights, each section by equality."""
        told, self._told_rows = self._told_rows, sample
        news = False
        if told is None or told.replicas != sample.replicas:
            encode.put_replicas(report.telemetry.replicas, sample.replicas)
            news = True
        if told is None or told.instances != sample.instances:
            encode.put_instances(report.telemetry.instances, sample.instances)
            news = True
        if told is None or told.gangs != sample.gangs:
            encode.put_gangs(report.telemetry.gangs, sample.gangs)
            news = True
        if told is None or told.weights != sample.weights:
            encode.put_weights(report.telemetry.weights, sample.weights)
            news = True
        return news

    def _put_lease(self, report: pb.Report, actuator: Actuator) -> bool:
        state = (actuator.lease, actuator.inventory.safe_watts, actuator.readback_watts)
        if state == self._told_lease:
            return False
        self._told_lease = state
        encode.put_lease(report.telemetry.lease, *state[:1], actuator.lease_expires_seconds, *state[1:])
        return True

    def _put_holders(self, report: pb.Report, holders: Holders | None) -> bool:
        if holders is None or holders == self._told_holders:
            return False
        self._told_holders = holders
        put_holders(report.telemetry.holders, holders)
        return True

    def _moved(self, sample: Sample) -> bool:
        told, new, band = self._told_gpus, sample.gpus, self._band
        if told is None or told.cap_watts != new.cap_watts or told.throttle_bits != new.throttle_bits:
            return True
        return (
            _apart((self._told_node_watts,), (sample.node_watts,), band.watts, band.watts_fraction)
            or _apart(told.watts, new.watts, band.watts, band.watts_fraction)
            or _apart(told.clock_mhz, new.clock_mhz, band.clock_mhz)
            or _apart(told.utilisation, new.utilisation, band.utilisation)
            or _apart(told.memory_used_bytes, new.memory_used_bytes, band.memory_bytes)
            or _apart(told.temperature_celsius, new.temperature_celsius, band.temperature_celsius)
        )


def _apart(
    told: Sequence[float | None], new: Sequence[float | None], band: float, fraction: float = 0.0
) -> bool:
    """Whether any entry moved by more than the band (or, if larger, the fraction of what was told)."""
    if told == new:
        return False
    if len(told) != len(new):
        return True
    for before, after in zip(told, new, strict=True):
        if before is None or after is None:
            if before is not after:
                return True
        elif abs(after - before) > max(band, fraction * abs(before)):
            return True
    return False
