"""Accelerated time: one virtual clock, one barrier per simulated second.

Free-running acceleration is unsound: a decision that takes 200 ms of wall time makes thousands of leases expire
falsely. So nothing runs by itself. For the second [t, t + 1) the conductor

1. waits until all that the operator said has arrived: the newest routes at the gateways, the hub's commands at the agents
   (`Conductor.delivered`; whoever looks between two seconds at what they have waits for the same);
2. hands the gateways the second's arrivals (each with its exact time) through their own ingress, has them decide the
   window, one frame to each node they have a stream to, and waits until those have arrived (counts are compared);
3. moves the clock to t + 1 and lets the fleet live through the second event by event; every agent sends at most one
   report, every node one frame to each of its gateways;
4. waits until hub and gateways have them all, and lets the gateways fold and report;
5. lets the operator take one step at t + 1.

Leases and policies live on the virtual clock; how long anybody may be waited for is wall time. Who does not answer
in that time is named by `BarrierBroken`. Agents, hub, gateways and TLS are the production ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Iterable
from typing import Protocol, TypeVar

from runtime.clock import Clock, VirtualClock, WallClock
from simulator.fleet.fleet import Fleet, TickReport

PATIENCE_SECONDS = 30.0
Result = TypeVar("Result")


class BarrierBroken(Exception):
    """A second of simulated time cannot be completed; the text says who did not answer what."""


class _Stats(Protocol):
    reports: int


class HubSide(Protocol):
    """The operator's hub: what it sent, and what has come (`controller.hub.service.Hub`)."""

    @property
    def epoch(self) -> int:
        """The leader's epoch."""

    @property
    def stats(self) -> _Stats:
        """Counts since it began."""

    def sent_sequence(self, node: str) -> int:
        """Sequence of the last command for a node in this epoch."""

    async def reports_for(self, tick: int, nodes: Iterable[str], timeout_seconds: float) -> frozenset[str]:
        """Wait until each has reported for the tick; who has not."""

    async def present(self, nodes: Iterable[str], timeout_seconds: float) -> frozenset[str]:
        """Wait until each has a stream; who has not."""

    async def absent(self, nodes: Iterable[str], timeout_seconds: float) -> frozenset[str]:
        """Wait until none has a stream; who still has."""


class RequestSide(Protocol):
    """Gateways and the clients that send them the trace. Each call returns who did not answer in time."""

    async def routed(self, timeout_seconds: float) -> Collection[str]:
        """Every gateway has the newest routes that the operator published."""

    async def open(
        self, tick: int, from_seconds: float, until_seconds: float, timeout_seconds: float
    ) -> Collection[str]:
        """The arrivals of the window are in, decided, and on their way to the nodes."""

    async def close(self, tick: int, timeout_seconds: float) -> Collection[str]:
        """The nodes' answers are folded, clients are told, and the load reports have reached the operator."""


class OperatorSide(Protocol):
    """Whoever decides. It reads the time from the shared clock."""

    async def step(self) -> None:
        """One round of all loops that are due."""


class Conductor:
    """Owns the virtual clock and moves it second by second.

    `hub` None: a fleet without agents; `requests` None: nothing is served. The clock must stand at a whole second:
    messages carry whole seconds as their tick (ValueError otherwise).
    """

    def __init__(
        self,
        clock: VirtualClock,
        fleet: Fleet,
        operator: OperatorSide,
        *,
        hub: HubSide | None = None,
        requests: RequestSide | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        wall: Clock | None = None,
    ) -> None:
        if clock.now() != int(clock.now()):
            raise ValueError(f"Accelerated time begins at a whole second, not at {clock.now()}.")
        self._clock = clock
        self._fleet = fleet
        self._operator = operator
        self._hub = hub
        self._requests = requests
        self._patience = patience_seconds
        self._wall = wall or WallClock()
        self._linked = frozenset[str]()
        self._reports = hub.stats.reports if hub is not None else 0
        self.seconds = 0
        """Simulated seconds completed."""
        self.spent: dict[str, float] = {}
        """Wall seconds by what they were spent on."""

    async def run(self, seconds: int) -> None:
        """So many simulated seconds."""
        for _ in range(seconds):
            await self.step()

    async def step(self) -> TickReport:
        """One simulated second. Raises: BarrierBroken."""
        start = self._clock.now()
        until = start + 1.0
        tick = int(until)
        await self.delivered()
        if self._requests is not None:
            await self._open(self._requests, tick, start, until)
        self._clock.advance_to(until)
        report = await self._within("fleet", self._fleet.tick(start, until))
        if self._hub is not None:
            await self._gather(self._hub, tick, report)
        if self._requests is not None:
            late_names = await self._timed("requests", self._requests.close(tick, self._patience))
            self._demand(late_names, "have not closed the window")
        await self._within("operator", self._operator.step())
        self.seconds += 1
        return report

    async def delivered(self) -> None:
        """Return when gateways and agents have what the operator has said to them so far. Raises: BarrierBroken."""
        if self._requests is not None:
            unrouted = await self._timed("requests", self._requests.routed(self._patience))
            self._demand(unrouted, "do not have the newest routes")
        if self._hub is not None:
            hub = self._hub
            sent = {name: hub.sent_sequence(name) for name in self._fleet.linked()}
            late = await self._timed("commands", self._fleet.commanded(hub.epoch, sent, self._patience))
            self._demand(late, "have not received their commands")

    async def _open(self, requests: RequestSide, tick: int, start: float, until: float) -> None:
        late = await self._timed("requests", requests.open(tick, start, until, self._patience))
        self._demand(late, "have not opened the window")
        late = await self._timed("requests", self._fleet.asked(until, self._patience))
        self._demand(late, "(gateway to node) frames have not arrived")

    async def _gather(self, hub: HubSide, tick: int, report: TickReport) -> None:
        """All that agents sent is there, and the hub knows who is not there any more."""
        late = await self._timed("hub", hub.reports_for(tick, report.reported, self._patience))
        self._demand(late, "are missing at the hub: their reports")
        linked = self._fleet.linked()
        if linked != self._linked:
            ghosts = await self._timed("hub", hub.absent(self._linked - linked, self._patience))
            self._demand(ghosts, "are gone, but the hub still has streams of theirs")
            missing = await self._timed("hub", hub.present(linked - self._linked, self._patience))
            self._demand(missing, "think they are connected, but the hub has no stream of theirs")
            self._linked = linked
        self._reports += len(report.reported)
        if hub.stats.reports != self._reports:
            raise BarrierBroken(
                f"Second {tick}: the agents have sent {self._reports} reports, but the hub counts {hub.stats.reports}; "
                "somebody reports outside the barrier."
            )

    def _demand(self, late: Collection[str], what: str) -> None:
        if late:
            shown = sorted(late)
            more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
            raise BarrierBroken(
                f"Second {self._clock.now():.0f}: {', '.join(shown[:8])}{more} {what} "
                f"(waited {self._patience:g} s of wall time)."
            )

    async def _within(self, who: str, work: Awaitable[Result]) -> Result:
        """Work of one side, within the patience."""
        try:
            async with asyncio.timeout(self._patience):
                return await self._timed(who, work)
        except TimeoutError as error:
            raise BarrierBroken(
                f"Second {self._clock.now():.0f}: the {who} has not finished within {self._patience:g} s of wall time."
            ) from error

    async def _timed(self, what: str, work: Awaitable[Result]) -> Result:
        began = self._wall.monotonic()
        try:
            return await work
        finally:
            self.spent[what] = self.spent.get(what, 0.0) + self._wall.monotonic() - began
