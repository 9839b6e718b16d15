"""The whole request plane on loopback: operator's door, gateway, nodes with real engines, a client. TLS throughout."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agent.engine.host import EngineHost
from agent.engine.server import EngineServer, EnginesService
from controller.hub.server import HubServer
from controller.hub.service import Hub
from controller.routes import RoutesServicer
from gateway.assign import GatewayConfig
from gateway.client import GatewayClient, Request, Result
from gateway.messages import Ending, Window
from gateway.server import GatewayServer, ServerConfig
from policies.dispatch.least_outstanding import LeastOutstanding
from runtime.authority import Authority, Credentials, Identity, Role
from runtime.channels import NODE_PLANE
from runtime.clock import Clock, VirtualClock, WallClock
from tests.engine.worlds import ORIGIN, engine
from wire import gateway_pb2 as pb

GATEWAY = Identity(Role.GATEWAY, "g1")
OPERATOR = Identity(Role.OPERATOR, "operator")
CHAT = "shop/chat"
WAIT = 5.0


def run(coroutine: Coroutine[Any, Any, None], seconds: float = 30.0) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(seconds):
            await coroutine

    asyncio.run(bounded())


@dataclass
class Node:
    """A node's engines and its port."""

    service: EnginesService
    server: EngineServer
    dead: bool = False

    @property
    def host(self) -> EngineHost:
        return self.service.host

    async def die(self) -> None:
        self.dead = True
        await self.server.stop()


@dataclass
class Plane:
    """Everything, on one clock."""

    clock: Clock
    authority: Authority
    routes: RoutesServicer
    door: HubServer
    gateway: GatewayServer
    nodes: dict[str, Node] = field(default_factory=dict)
    clients: list[GatewayClient] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    version: int = 0
    tick: int = 0
    next_id: int = 0

    def credentials(self, role: Role, name: str) -> Credentials:
        return self.authority.issue(Identity(role, name))

    async def node(self, name: str, *engines: str, kv_tokens: int = 40_000, started: float = ORIGIN) -> Node:
        host = EngineHost(name)
        for each in engines:
            host.add(each, engine(kv_tokens, started))
        service = EnginesService(host)
        held = self.credentials(Role.NODE, name)
        server = EngineServer(service, lambda: held)
        await server.start(prove=False)
        self.nodes[name] = Node(service, server)
        return self.nodes[name]

    async def client(self) -> GatewayClient:
        name = f"c{len(self.clients)}"
        made = await GatewayClient.connect(self.gateway.endpoint, "g1", self.credentials(Role.CLIENT, name))
        self.clients.append(made)
        return made

    def table(self, instances: dict[str, str], epoch: int = 1, **service: Any) -> pb.RouteTable:
        """Routes of one service: instance → node."""
        self.version += 1
        route = pb.ServiceRoute(
            service=CHAT, **({"hold_limit": 100, "hold_deadline_seconds": 60.0} | service)
        )
        route.classes.add(name="interactive", ttft_seconds=2.0, tpot_seconds=0.1, percentile=0.95)
        for name, node in instances.items():
            endpoint = self.nodes[node].server.endpoint
            route.instances.add(
                name=name, node=node, endpoint=endpoint, weight=1 / len(instances), state="ready"
            )
        return pb.RouteTable(epoch=epoch, version=self.version, services=[route])

    async def route(self, instances: dict[str, str], **more: Any) -> None:
        table = self.table(instances, **more)
        self.routes.publish(table)
        assert await self.gateway.routed(table.epoch, table.version, WAIT)

    def requests(self, *at: float, prompt: int = 200, output: int = 20, service: str = CHAT) -> list[Request]:
        """Requests at seconds after the origin."""
        made = []
        for each in at:
            self.next_id += 1
            made.append(Request(self.next_id, service, prompt, output, ORIGIN + each, "interactive"))
        return made

    async def second(
        self, client: GatewayClient | None = None, requests: Sequence[Request] = ()
    ) -> list[Result]:
        """One simulated second, with its barrier; what the client was told."""
        self.tick += 1
        start, until = ORIGIN + self.tick - 1, ORIGIN + self.tick
        if client is not None:
            await client.send_window(self.tick, start, until, requests)
        await self.gateway.open_window(
            Window(self.tick, start, until), clients=len(self.clients), timeout_seconds=WAIT
        )
        for node in self.nodes.values():
            if not node.dead:
                assert await node.service.received(until, WAIT) == frozenset()
                node.service.advance(until)
        assert isinstance(self.clock, VirtualClock)
        self.clock.advance_to(until)
        await self.gateway.close_window(timeout_seconds=WAIT)
        assert await self.routes.reports_for(self.tick, ["g1"], WAIT) == frozenset()
        return await client.answer(self.tick, WAIT) if client is not None else []


@asynccontextmanager
async def plane(
    clock: Clock | None = None, config: GatewayConfig | None = None, **server: Any
) -> AsyncIterator[Plane]:
    """Start all but nodes and clients, and close all that was made."""
    authority = Authority.create(WallClock())
    clock = clock or VirtualClock(ORIGIN)
    operator, gateway_credentials = authority.issue(OPERATOR), authority.issue(GATEWAY)
    routes = RoutesServicer(clock)
    door = HubServer(Hub(clock, epoch=1), lambda: operator, limits=NODE_PLANE, hosted=[routes.hosted()])
    await door.start()
    endings: list[Ending] = []
    gateway = GatewayServer(
        ServerConfig(gateway=config or GatewayConfig(name="g1"), operator=door.endpoint, **server),
        {"least_outstanding": LeastOutstanding()},
        lambda: gateway_credentials,
        clock,
        endings.append,
    )
    await gateway.start()
    made = Plane(clock, authority, routes, door, gateway, endings=endings)
    try:
        assert await routes.present(["g1"], WAIT) == frozenset()
        yield made
    finally:
        for client in made.clients:
            await client.close()
        await gateway.stop()
        for node in made.nodes.values():
            await node.server.stop()
        await door.stop()


@asynccontextmanager
async def background(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Loops of real time, cancelled at the end."""
    tasks = [asyncio.create_task(each) for each in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
