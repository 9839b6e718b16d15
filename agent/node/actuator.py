"""Carries commands out: judges their stamps, keeps the power lease, and asks the driver.

Synchronous and without I/O but the driver's. Time comes from the clock handed in; the lease counts on its
monotonic reading.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from agent.node import lease as leases
from agent.node.commands import CommandLedger
from agent.node.counters import Counters
from agent.node.decode import driver_command_of, grant_of, stamp_of
from agent.node.drivers.base import Code, Driver, DriverError, Inventory, Outcome, SetPower
from agent.node.encode import ack_of
from runtime.clock import Clock
from wire import agent_pb2 as pb

logger = logging.getLogger(__name__)

ACKS_KEPT = 1024
"""Answers kept while there is no stream to send them on; the oldest go first."""
RETRY_SAFE_SECONDS = 0.5
"""A driver that did not take the safe cap is asked again this soon."""


class Actuator:
    """The part of an agent that changes its node."""

    def __init__(self, node: str, driver: Driver, clock: Clock, counters: Counters) -> None:
        self._node = node
        self._driver = driver
        self._clock = clock
        self._counters = counters
        self.ledger = CommandLedger()
        self.inventory: Inventory = driver.inventory()
        self.lease = leases.NONE
        self.readback_watts = 0
        self._acks: list[pb.CommandAck] = []
        self._safe_retry_monotonic: float | None = None
        self._fall_to_safe()

    @property
    def lease_expires_seconds(self) -> float:
        """UTC seconds at which the lease ends or ended; 0 when there never was one."""
        if not self.lease.epoch:
            return 0.0
        return self._clock.now() + self.lease.expires_monotonic_seconds - self._clock.monotonic()

    @property
    def wake_monotonic_seconds(self) -> float | None:
        """When `advance` has something to do by itself: the lease's end, or another try at the safe cap."""
        if self._safe_retry_monotonic is not None:
            return self._safe_retry_monotonic
        return self.lease.expires_monotonic_seconds if self.lease.active else None

    def advance(self, now_seconds: float) -> None:
        """Lets the node's time pass up to now, ending the lease at its very moment if that lies before.

        The clock may still stand at the start of the window, as in accelerated time: what counts is `now_seconds`.
        """
        ahead = now_seconds - self._clock.now()
        monotonic = self._clock.monotonic() + ahead
        if leases.due(self.lease, monotonic):
            ends = now_seconds - (monotonic - self.lease.expires_monotonic_seconds)
            self._driver.advance(min(now_seconds, ends))
            self._counters.leases_expired += 1
            logger.warning(
                "power lease ended; node falls to its safe cap", extra={"facts": {"node": self._node}}
            )
            self.lease = leases.ended(self.lease)
            self._fall_to_safe()
        elif self._safe_retry_monotonic is not None and monotonic >= self._safe_retry_monotonic:
            self._fall_to_safe()
        self._driver.advance(now_seconds)

    def release(self) -> None:
        """Gives the lease back at once (the agent leaves): safe cap now."""
        self.lease = leases.ended(self.lease)
        self._fall_to_safe()

    def refresh_inventory(self) -> bool:
        """Asks the driver what the node has; True when it changed."""
        newest = self._driver.inventory()
        if newest == self.inventory:
            return False
        moved = newest.safe_watts != self.inventory.safe_watts
        self.inventory = newest
        if moved and not self.lease.active:
            self._fall_to_safe()
        return True

    def receive(self, commands: Iterable[pb.Command]) -> None:
        """Judges and carries out commands in their order, keeping the answers for the next report."""
        for command in commands:
            stamp = stamp_of(command)
            now = self._clock.now()
            outcome = self.ledger.judge(stamp, now)
            if outcome is None:
                outcome = self.ledger.record(stamp, self._carry_out(command, now))
            self._acks.append(ack_of(stamp, outcome, self._clock.now()))
        if len(self._acks) > ACKS_KEPT:
            self._counters.acks_dropped += len(self._acks) - ACKS_KEPT
            del self._acks[:-ACKS_KEPT]

    @property
    def has_acks(self) -> bool:
        """Whether answers wait to be sent."""
        return bool(self._acks)

    def take_acks(self) -> list[pb.CommandAck]:
        """The answers since the last call, once."""
        taken, self._acks = self._acks, []
        return taken

    def _carry_out(self, command: pb.Command, now_seconds: float) -> Outcome:
        grant = grant_of(command)
        if grant is not None:
            return self._grant(grant)
        typed = driver_command_of(command)
        if typed is None:
            return Outcome(code=Code.UNSUPPORTED, message="This agent does not know that kind of command.")
        try:
            return self._driver.apply(typed, now_seconds)
        except DriverError as error:
            self._counters.driver_failures += 1
            return Outcome(code=Code.FAILED, message=str(error))

    def _grant(self, grant: leases.Grant) -> Outcome:
        bounds = leases.Bounds(min_watts=self.inventory.min_watts, max_watts=self.inventory.max_watts)
        refusal = leases.judge(self.lease, grant, bounds)
        if refusal is not None:
            return Outcome(code=refusal.code, message=refusal.message)
        outcome = self._set_power(grant.watts, grant.clock_mhz)
        if outcome.code is not Code.DONE:
            self.lease = leases.ended(self.lease)
            if outcome.code is not Code.UNSUPPORTED:
                self._counters.power_failures += 1
                self._fall_to_safe()
            return outcome
        self.lease = leases.granted(grant, self._clock.monotonic())
        self._safe_retry_monotonic = None
        return outcome

    def _set_power(self, watts: int, clock_mhz: int) -> Outcome:
        try:
            outcome = self._driver.apply(SetPower(watts=watts, clock_mhz=clock_mhz), self._clock.now())
        except DriverError as error:
            return Outcome(code=Code.FAILED, message=str(error))
        if outcome.readback_watts is not None:
            self.readback_watts = outcome.readback_watts
        return outcome

    def _fall_to_safe(self) -> None:
        """Sets the safe cap. Where the driver does not take it, says so loudly and tries again until it does."""
        outcome = self._set_power(self.inventory.safe_watts, 0)
        if outcome.code in {Code.DONE, Code.UNSUPPORTED}:
            self._safe_retry_monotonic = None
            return
        self._counters.power_failures += 1
        self._safe_retry_monotonic = self._clock.monotonic() + RETRY_SAFE_SECONDS
        logger.error(
            "safe cap not taken; trying again",
            extra={"facts": {"node": self._node, "watts": self.inventory.safe_watts, "why": outcome.message}},
        )
