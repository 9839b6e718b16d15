"""The gateway process: the core between clients, nodes and the operator. Same core, same streams, two ways of time.

*Pumped* (accelerated time): the owner of the virtual clock calls `open_window`, lets the nodes live through the
window, and calls `close_window`. Nothing else happens in between, so the outcome does not depend on how fast
anything was. *Real time*: `run` does the same around a wall clock, as soon as there is something to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio
import msgspec

from gateway.assign import DispatchPolicy
from gateway.attach import RouteLink
from gateway.codec import gateway_frame, gateway_report
from gateway.core import GatewayConfig, GatewayCore
from gateway.ingress import ROLES, SERVICE, InferenceService
from gateway.messages import Ending, NodeFrame, Outbox, RouteTable, Window
from gateway.nodes import NodeLinks
from runtime.authority import Identity, Role
from runtime.channels import REQUEST_PLANE, Backoff, server_options
from runtime.clock import Clock
from runtime.doors import open_door
from runtime.tls import Guard, Source
from wire import gateway_pb2_grpc

logger = logging.getLogger(__name__)


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gateway listens and dials, and its rhythm.

    `operator` empty: routes come by `GatewayServer.apply_routes` alone. `period_seconds` is the longest that
    real time goes without a look; `silence_seconds` after which a node that says nothing is given up.
    """

    gateway: GatewayConfig = GatewayConfig()
    host: str = "127.0.0.1"
    port: int = 0
    operator: str = ""
    operator_name: str = "operator"
    report_seconds: float = 1.0
    period_seconds: float = 0.05
    silence_seconds: float = 5.0


class WindowLate(Exception):
    """A window cannot be decided: what must be there first is not. The text says what."""


class GatewayServer:
    """One gateway on one event loop. `sink` is given each ending, for accounting."""

    def __init__(
        self,
        config: ServerConfig,
        policies: Mapping[str, DispatchPolicy],
        credentials: Source,
        clock: Clock,
        sink: Callable[[Ending], None] | None = None,
    ) -> None:
        self.config = config
        self.core = GatewayCore(config.gateway, policies)
        self._credentials = credentials
        self._clock = clock
        self._sink = sink
        self._changed = asyncio.Event()
        self._random = random.Random(config.gateway.name)
        self.links = NodeLinks(credentials, self._changed.set)
        self.ingress = InferenceService(clock, self._changed.set)
        self.routes: RouteLink | None = None
        if config.operator:
            operator = Identity(Role.OPERATOR, config.operator_name)
            name = config.gateway.name
            self.routes = RouteLink(
                name, config.operator, operator, credentials, self._backoff(), self._changed.set
            )
        self._attaching: asyncio.Task[None] | None = None
        self._given: RouteTable | None = None
        self._window = Window(0, 0.0, 0.0)
        self._outbox = Outbox()
        self._ticks: dict[int, int] = {}
        self._sequence = 0
        self._port = config.port
        guard = Guard({SERVICE: ROLES})
        self._server: Any = grpc.aio.server(interceptors=(guard,), options=server_options(REQUEST_PLANE))
        gateway_pb2_grpc.add_InferenceServicer_to_server(self.ingress, self._server)

    @property
    def endpoint(self) -> str:
        """host:port for clients, once started."""
        return f"{self.config.host}:{self._port}"

    async def start(self) -> None:
        """Listen, and begin to attach to the operator.

        Raises: OSError when the port cannot be had, TransportUnsafe when TLS 1.2 would be spoken.
        """
        self._port = await open_door(
            self._server, self.config.host, self.config.port, self._credentials, another="gateway"
        )
        if self.routes is not None:
            self._attaching = asyncio.create_task(self.routes.run())

    async def stop(self) -> None:
        """End all streams. Requests that are open end with their clients' streams."""
        if self._attaching is not None:
            self._attaching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._attaching
        await self._server.stop(0.0)
        await self.links.close()

    # --------------------------------------------------------------------------------------------- routes

    def apply_routes(self, table: RouteTable) -> None:
        """Hand routes in directly; they come into force with the next window, like the operator's."""
        self._given = table
        self._changed.set()

    async def routed(self, epoch: int, version: int, timeout_seconds: float) -> bool:
        """Wait (wall time) until a table at least as new has come in, or is in force. False when none has."""

        def there() -> bool:
            known = (self.core.route_epoch, self.core.route_version)
            for table in (self._given, self.routes.newest if self.routes else None):
                if table is not None:
                    known = max(known, (table.epoch, table.version))
            return known >= (epoch, version)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while not there():
                    self._changed.clear()
                    await self._changed.wait()
        return there()

    def _take_routes(self, now_seconds: float) -> None:
        given, self._given = self._given, None
        for table in (given, self.routes.take() if self.routes else None):
            if table is not None:
                self.core.apply_routes(table, now_seconds)

    # --------------------------------------------------------------------------------------------- pumped

    async def open_window(self, window: Window, *, clients: int = 0, timeout_seconds: float = 30.0) -> None:
        """Decide a window, and send each node its frame.

        Takes in the newest routes, makes the streams to nodes what the routes name, and waits (wall time) for at
        least `clients` clients that send windows, and the window of each. Raises: WindowLate when they do not come.
        """
        start = window.from_seconds
        self._take_routes(start)
        came, left = await self.links.settle(self.core.nodes)
        for node in left:
            self.core.node_down(node, start)
        for node in came:
            self.core.node_up(node, start)
        if not await self.ingress.received(window.until_seconds, clients, timeout_seconds):
            raise WindowLate(
                f"Window {window.tick} lacks requests: {self.ingress.clients} of {clients} clients are here, and one "
                f"has not sent the batch that ends at {window.until_seconds} within {timeout_seconds} s."
            )
        for client in self.ingress.take_gone():
            self.core.cancel_client(client, start)
        arrivals, self._ticks = self.ingress.take(window.until_seconds)
        self._window = window
        self._outbox = self.core.step(window, arrivals)
        for node, link in sorted(self.links.up.items()):
            frame = self._outbox.frames.get(node) or NodeFrame(node, window.tick)
            link.send(gateway_frame(frame, window, self.config.gateway.name, windowed=True))

    async def close_window(self, *, timeout_seconds: float = 30.0) -> None:
        """Fold each node's answer to the window, tell clients what ended, and report to the operator.

        A node whose stream broke, or that does not answer in time (wall time), is lost.
        """
        now = self._window.until_seconds
        reports, gone = await self.links.collect(self._window.tick, timeout_seconds)
        self.core.fold(reports, now)
        for node in gone:
            await self.links.drop(node)
            self.core.node_down(node, now)
        self._deliver([*self._outbox.endings, *self.core.collect()], self._ticks)
        self._outbox, self._ticks = Outbox(), {}
        self._report(now)

    def _deliver(self, endings: list[Ending], ticks: dict[int, int]) -> None:
        if self._sink is not None:
            for ending in endings:
                self._sink(ending)
        self.ingress.deliver(endings, ticks)

    def _report(self, now_seconds: float) -> None:
        if self.routes is not None:
            self._sequence += 1
            report = self.core.report(now_seconds)
            self.routes.send(gateway_report(report, self._sequence, self._window.tick))

    # ------------------------------------------------------------------------------------------ real time

    async def run(self) -> None:
        """Real time until cancelled: decide when there is news, at the latest after `period_seconds`."""
        self.ingress.real_time = True
        report_at = 0.0
        self._window = Window(0, self._clock.now(), self._clock.now())
        up: set[str] = set()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.config.period_seconds):
                    await self._changed.wait()
            self._changed.clear()
            await self._hear(up, max(self._clock.now(), self._window.until_seconds))
            # Read again: what arrived while streams were let go has a later time.
            now = max(self._clock.now(), self._window.until_seconds)
            urgent = self._decide(now)
            if urgent or now >= report_at:
                self._report(now)
                report_at = now + self.config.report_seconds

    async def _hear(self, up: set[str], now: float) -> None:
        """Take in routes, streams that came or broke, and frames; `up` is kept as the core knows it."""
        self._take_routes(now)
        self.links.keep(self.core.nodes, self._backoff)
        self.links.fail_silent(self._clock.monotonic(), self.config.silence_seconds)
        for node in sorted(set(self.links.up) - up):
            self.core.node_up(node, now)
            up.add(node)
        reports = [report for _, link in sorted(self.links.up.items()) for report in link.take()]
        self.core.fold(reports, now)
        for node in [node for node, link in sorted(self.links.up.items()) if link.broken is not None]:
            self.core.node_down(node, now)
            up.discard(node)
            await self.links.drop(node)
        for client in self.ingress.take_gone():
            self.core.cancel_client(client, now)

    def _decide(self, now: float) -> bool:
        """One step up to now; returns whether the operator must hear of it at once."""
        window = Window(self._window.tick + 1, self._window.until_seconds, now)
        self._window = window
        arrivals, _ = self.ingress.take(now)
        outbox = self.core.step(window, arrivals)
        for node, frame in outbox.frames.items():
            if node in self.links.up and (frame.submissions or frame.cancels):
                self.links.up[node].send(
                    gateway_frame(frame, window, self.config.gateway.name, windowed=False)
                )
        self._deliver(outbox.endings, {})
        return outbox.urgent

    def _backoff(self) -> Backoff:
        return Backoff(self._random.uniform)
