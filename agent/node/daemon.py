"""The agent of a node. Pumped by `tick`, so that it runs the same on wall time and on virtual time.

It dials the hub, says what changed at most once a tick, carries out commands as they come, and falls to the safe
cap by itself when its lease ends. `run` is the loop around `tick` for a real node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
from collections.abc import Callable

import msgspec

from agent.node.actuator import Actuator
from agent.node.counters import Counters
from agent.node.drivers.base import Device, Driver, DriverError
from agent.node.holders import Holders
from agent.node.lease import Lease
from agent.node.link import HubLink, LinkError
from agent.node.reporter import DeadBand, Reporter
from runtime.authority import AuthorityError, Credentials, Identity, Role
from runtime.channels import NODE_PLANE, Backoff, Limits
from runtime.clock import Clock
from wire import agent_pb2 as pb

logger = logging.getLogger(__name__)

HUB = Identity(Role.OPERATOR, "hub")


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is told at its start.

    `boot_id` is new for each start of the process. `report_seconds` and `heartbeat_seconds` hold until the hub's
    Welcome says otherwise. `prompt_acks` sends answers at once instead of with the next report; accelerated time
    turns it off, so that a tick has exactly one message.
    """

    node: str
    endpoint: str
    boot_id: str
    version: str = "0.1.0"
    hub: Identity = HUB
    report_seconds: float = 1.0
    heartbeat_seconds: float = 5.0
    inventory_seconds: float = 10.0
    prompt_acks: bool = True
    dead_band: DeadBand = DeadBand()
    limits: Limits = NODE_PLANE


class Agent:
    """One node's daemon. All methods belong to one event loop."""

    def __init__(
        self,
        config: AgentConfig,
        driver: Driver,
        credentials: Callable[[], Credentials],
        clock: Clock,
        draw: Callable[[float, float], float],
        holders: Callable[[], Holders | None] = lambda: None,
    ) -> None:
        """`draw(low, high)` is the random source of the reconnect jitter. Sets the node to its safe cap at once.

        `holders()` says who holds each GPU, where the kubelet is asked for it.
        Raises: DriverError when the hardware does not answer.
        """
        self._config = config
        self._driver = driver
        self._credentials = credentials
        self._clock = clock
        self._holders = holders
        self.counters = Counters()
        self._actuator = Actuator(config.node, driver, clock, self.counters)
        self._reporter = Reporter(config.dead_band, self.counters)
        self._backoff = Backoff(draw)
        self._link: HubLink | None = None
        self._retry_at_seconds = -math.inf
        self._inventory_at_seconds = clock.now()
        self._sequence = 0
        self._report_seconds = config.report_seconds
        self._heartbeat_seconds = config.heartbeat_seconds
        self._heard = asyncio.Event()

    # ------------------------------------------------------------------------------------------- what it knows

    @property
    def node(self) -> str:
        """The node's name."""
        return self._config.node

    @property
    def connected(self) -> bool:
        """Whether the stream to the hub lives, as far as is known."""
        return self._link is not None and self._link.broken is None

    @property
    def devices(self) -> tuple[Device, ...]:
        """The node's devices, as its last inventory has them."""
        return self._actuator.inventory.devices

    @property
    def lease(self) -> Lease:
        """The power lease as it stands."""
        return self._actuator.lease

    @property
    def last_command_sequence(self) -> int:
        """Highest sequence of a command received in the present epoch's numbering, whatever its answer."""
        return self._actuator.ledger.last_sequence

    @property
    def highest_epoch(self) -> int:
        """Highest leader epoch obeyed."""
        return self._actuator.ledger.highest_epoch

    async def commands_up_to(self, sequence: int, timeout_seconds: float, epoch: int = 0) -> bool:
        """Waits (wall time) until a leader of that epoch, or a later one, is obeyed and the command of that sequence was received;
        False when not in time.
        """

        def received() -> bool:
            return self.highest_epoch >= epoch and self.last_command_sequence >= sequence

        if received():
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while not received() and self.connected:
                    self._heard.clear()
                    await self._heard.wait()
        return received()

    # ------------------------------------------------------------------------------------------------ what it does

    async def connect(self) -> None:
        """One try to reach the hub, ending an earlier stream. Raises: LinkError with the hub's or network's answer."""
        await self._drop_link()
        hello = self._message(self._clock.now())
        hello.hello.version = self._config.version
        hello.hello.boot_id = self._config.boot_id
        hello.hello.driver = self._driver.name
        hello.hello.highest_epoch = self.highest_epoch
        try:
            self._link = await HubLink.open(
                self._config.endpoint,
                self._config.hub,
                self._credentials(),
                hello,
                self._receive,
                self._config.limits,
            )
        except AuthorityError as error:
            self.counters.connect_failures += 1
            raise LinkError(f"The hub at {self._config.endpoint} cannot be dialled: {error}") from error
        except LinkError:
            self.counters.connect_failures += 1
            raise
        self._reporter.forget()
        self._link.on_break = self._heard.set
        self.counters.connects += 1
        self.counters.reconnects = self.counters.connects - 1

    async def tick(self, now_seconds: float) -> bool:
        """Lets the node's time pass up to now and reports, at most once. True when a report was sent.

        Reconnects when the stream is lost and the back-off (on this clock) is over; a failed try is logged, counted
        and not raised. A driver that does not answer costs the report, not the agent.
        """
        self.advance(now_seconds)
        if not self.connected and not await self._reconnect(now_seconds):
            return False
        return await self._report(now_seconds)

    def advance(self, now_seconds: float) -> None:
        """Lets the node's time pass up to now, ending a lease at its very moment. `tick` does it too."""
        try:
            self._actuator.advance(now_seconds)
        except DriverError as error:
            self._driver_failed(error)

    async def close(self, reason: str) -> None:
        """Leaves on purpose: safe cap first, then goodbye."""
        self._actuator.release()
        link, self._link = self._link, None
        if link is not None:
            farewell = self._message(self._clock.now())
            farewell.goodbye.reason = reason
            await link.close(farewell)

    async def abandon(self) -> None:
        """Drops the connection without a word, as a node that loses power does. For simulated failures."""
        await self._drop_link()

    # ------------------------------------------------------------------------------------------------ real time

    async def run(self, stop: asyncio.Event) -> None:
        """Ticks on wall time until `stop` is set, then leaves with a goodbye."""
        watch = asyncio.create_task(self._hear(stop))
        next_tick = self._clock.monotonic()
        while not stop.is_set():
            monotonic = self._clock.monotonic()
            if monotonic >= next_tick:
                await self.tick(self._clock.now())
                next_tick = max(next_tick + self._report_seconds, monotonic)
            elif not self.connected:
                await self.tick(
                    self._clock.now()
                )  # a new leader waits for nobody: no later than the back-off asks for
            else:
                self.advance(self._clock.now())
                await self._send_acks()
            await self._sleep(next_tick)
        watch.cancel()
        await self.close("stopped")

    async def _hear(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._heard.set()

    async def _sleep(self, next_tick: float) -> None:
        """Until the next tick, the lease's end, a message of the hub or the stop, whichever is first."""
        wake = self._actuator.wake_monotonic_seconds
        until = next_tick if wake is None else min(next_tick, wake)
        wait = until - self._clock.monotonic()
        if not self.connected:
            wait = min(wait, self._retry_at_seconds - self._clock.now() if self._link is None else 0.0)
        if wait > 0 and not (self._actuator.has_acks and self._config.prompt_acks and self.connected):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._heard.wait()
        self._heard.clear()

    async def _send_acks(self) -> None:
        if not (self._config.prompt_acks and self._actuator.has_acks and self.connected):
            return
        report = pb.Report(acks=self._actuator.take_acks(), last_command_sequence=self.last_command_sequence)
        await self._send(self._message(self._clock.now(), report))

    # ------------------------------------------------------------------------------------------------ inside

    async def _report(self, now_seconds: float) -> bool:
        try:
            if now_seconds - self._inventory_at_seconds >= self._config.inventory_seconds:
                self._inventory_at_seconds = now_seconds
                if self._actuator.refresh_inventory():
                    self._reporter.inventory_changed()
            sample = self._driver.sample(now_seconds)
        except DriverError as error:
            self._driver_failed(error)
            return False
        report = pb.Report()
        if not self._reporter.fill(
            report, sample, self._actuator, now_seconds, self._heartbeat_seconds, self._holders()
        ):
            return False
        return await self._send(self._message(now_seconds, report))

    async def _send(self, message: pb.AgentMessage) -> bool:
        return self._link is not None and await self._link.send(message)

    def _message(self, now_seconds: float, report: pb.Report | None = None) -> pb.AgentMessage:
        self._sequence += 1
        return pb.AgentMessage(
            report=report,
            node=self._config.node,
            sequence=self._sequence,
            observed_seconds=now_seconds,
            tick=math.floor(now_seconds + 1e-6),
        )

    def _receive(self, message: pb.HubMessage) -> None:
        """Called for each message of the hub, in order."""
        kind = message.WhichOneof("body")
        if kind == "welcome":
            self._welcome(message.welcome)
        elif kind == "commands":
            self._actuator.receive(message.commands.commands)
        self._heard.set()

    def _welcome(self, welcome: pb.Welcome) -> None:
        if not self._actuator.ledger.raise_epoch(welcome.epoch):
            self.counters.old_leaders += 1
            logger.warning(
                "hub of an old epoch; its commands are refused",
                extra={"facts": {"node": self.node, "epoch": welcome.epoch, "obeyed": self.highest_epoch}},
            )
            return
        if welcome.report_interval_seconds > 0:
            self._report_seconds = welcome.report_interval_seconds
        if welcome.heartbeat_seconds > 0:
            self._heartbeat_seconds = welcome.heartbeat_seconds

    async def _reconnect(self, now_seconds: float) -> bool:
        if self._link is not None:
            logger.warning(
                "stream to the hub lost", extra={"facts": {"node": self.node, "why": self._link.broken}}
            )
            await self._drop_link()
            self._retry_at_seconds = now_seconds + self._backoff.next_seconds()
        if now_seconds < self._retry_at_seconds:
            return False
        try:
            await self.connect()
        except LinkError as error:
            self._retry_at_seconds = now_seconds + self._backoff.next_seconds()
            logger.info("hub not reached", extra={"facts": {"node": self.node, "why": str(error)}})
            return False
        self._backoff.reset()
        return True

    async def _drop_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def _driver_failed(self, error: DriverError) -> None:
        self.counters.driver_failures += 1
        logger.error("driver did not answer", extra={"facts": {"node": self.node, "why": str(error)}})


def stop_on_signals(stop: asyncio.Event) -> None:
    """SIGTERM and SIGINT set `stop`: the agent falls to its safe cap and says goodbye before it ends."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
