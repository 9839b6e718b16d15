"""Requests through a real gateway to the fleet's engines, second by second, and in real time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.node.daemon import HUB
from controller.hub.server import HubServer
from controller.hub.service import Hub
from controller.resources.core import POD
from controller.store.embedded import open_store
from gateway.assign import GatewayConfig
from gateway.client import GatewayClient, Request, Result
from gateway.messages import ClassRoute, InstanceRoute, RouteTable, ServiceRoute, Window
from gateway.server import GatewayServer, ServerConfig
from policies.dispatch.least_outstanding import LeastOutstanding
from runtime.authority import Authority, Identity, Role
from runtime.clock import VirtualClock, WallClock
from simulator.fleet.barrier import Conductor
from simulator.fleet.fleet import Fleet
from simulator.fleet.node import HubAddress
from simulator.fleet.specs import uniform_fleet
from simulator.physics.failures import Failure, FailureKind
from simulator.physics.shapes import StartProfile
from tests.fleet.worlds import ORIGIN, QUICK, Idle, engine_pod, run
from tests.hub.support import until

CHAT = "shop/chat"


@dataclass
class Plane:
    """The request side of the barrier: one gateway, one client, routes by hand."""

    gateway: GatewayServer
    client: GatewayClient
    trace: list[Request] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    version: int = 0

    def route(self, fleet: Fleet, instances: dict[str, str]) -> None:
        self.version += 1
        rows = []
        for name, node in instances.items():
            server = fleet.nodes[node]._server
            assert server is not None
            rows.append(InstanceRoute(name, node, server.endpoint, 1.0 / len(instances)))
        classes = (ClassRoute("interactive", 2.0, 0.1),)
        self.gateway.apply_routes(
            RouteTable(1, self.version, (ServiceRoute(CHAT, classes=classes, instances=tuple(rows)),))
        )

    async def routed(self, timeout_seconds: float) -> Collection[str]:
        there = not self.version or await self.gateway.routed(1, self.version, timeout_seconds)
        return () if there else ("g1",)

    async def open(
        self, tick: int, from_seconds: float, until_seconds: float, timeout_seconds: float
    ) -> Collection[str]:
        now = [r for r in self.trace if from_seconds <= r.arrived_seconds < until_seconds]
        await self.client.send_window(tick, from_seconds, until_seconds, now)
        await self.gateway.open_window(
            Window(tick, from_seconds, until_seconds), clients=1, timeout_seconds=timeout_seconds
        )
        return ()

    async def close(self, tick: int, timeout_seconds: float) -> Collection[str]:
        await self.gateway.close_window(timeout_seconds=timeout_seconds)
        self.results += await self.client.answer(tick, timeout_seconds)
        return ()


@asynccontextmanager
async def plane(authority: Authority, clock: VirtualClock | WallClock) -> AsyncIterator[Plane]:
    held = {
        role: authority.issue(Identity(role, name))
        for role, name in ((Role.GATEWAY, "g1"), (Role.CLIENT, "c1"))
    }
    gateway = GatewayServer(
        ServerConfig(gateway=GatewayConfig(name="g1")),
        {"least_outstanding": LeastOutstanding()},
        lambda: held[Role.GATEWAY],
        clock,
    )
    await gateway.start()
    client = await GatewayClient.connect(gateway.endpoint, "g1", held[Role.CLIENT])
    try:
        yield Plane(gateway, client)
    finally:
        await client.close()
        await gateway.stop()


async def served(crash: bool) -> list[Result]:
    """Forty seconds of two requests a second on two nodes; with `crash` one of them dies on the way."""
    clock = VirtualClock(ORIGIN)
    authority = Authority.create(WallClock())
    store = open_store(clock)
    fleet = Fleet(uniform_fleet(2, start=QUICK), store, clock, authority, plane=store)
    async with plane(authority, clock) as requests:
        await fleet.start()
        conductor = Conductor(clock, fleet, Idle(), requests=requests)
        for number, node in enumerate(fleet.nodes):
            await store.create(POD, engine_pod(f"chat-{number}", node), field_manager="test")
        await conductor.run(15)
        requests.route(fleet, {f"default/chat-{number}": node for number, node in enumerate(fleet.nodes)})
        begin = clock.now()
        requests.trace = [
            Request(i, CHAT, 300, 20 + i % 50, begin + 0.5 * i + 0.123, "interactive") for i in range(80)
        ]
        if crash:
            fleet.schedule(Failure(begin + 20.5, "node-0001", FailureKind.NODE_CRASH))
        await conductor.run(60)
        await fleet.stop()
        return sorted(requests.results, key=lambda result: result.request_id)


def test_requests_are_served_to_the_token_and_timed_by_the_physics() -> None:
    results = run(lambda: served(crash=False))
    assert [(r.outcome, r.output_tokens) for r in results] == [("served", 20 + i % 50) for i in range(80)]
    for number, result in enumerate(results):
        took = result.finished_seconds - result.first_token_seconds
        tokens = 19 + number % 50
        assert 0.004 < took / tokens < 0.02  # a step of a 7B model on an H100, alone or in small company


def test_a_node_that_dies_with_requests_in_flight_loses_none_of_them() -> None:
    results = run(lambda: served(crash=True))
    assert [(r.outcome, r.output_tokens) for r in results] == [("served", 20 + i % 50) for i in range(80)]
    assert {r.instance for r in results if r.finished_seconds > ORIGIN + 36} == {"default/chat-0"}
    assert sum(r.retries for r in results) >= 1


def test_two_runs_with_a_crash_end_every_request_alike() -> None:
    first, again = (run(lambda: served(crash=True)) for _ in range(2))
    assert first == again


def test_in_real_time_pods_come_up_agents_report_and_requests_are_served() -> None:
    brisk = StartProfile(
        container_seconds=0.1,
        process_seconds=0.1,
        engine_seconds=0.1,
        warm_up_seconds=0.1,
        jitter=0.0,
        rank_seconds=0.1,
    )

    async def scenario() -> None:
        clock = WallClock()
        authority = Authority.create(clock)
        store = open_store(clock)
        hub = Hub(clock, epoch=1)
        held = authority.issue(HUB)
        door = HubServer(hub, lambda: held)
        await door.start()
        spec = uniform_fleet(2, start=brisk)
        fleet = Fleet(
            spec, store, clock, authority, hub=HubAddress(door.endpoint), plane=store, real_time=True
        )
        await fleet.start()
        stop = asyncio.Event()
        running = asyncio.create_task(fleet.run(stop, 0.02))
        pod = engine_pod("chat-0", "node-0000")
        pod["metadata"]["annotations"]["plimsoll.dev/launch"] = (
            pod["metadata"]["annotations"]["plimsoll.dev/launch"]
            .replace("13480000000", "1000000000")
            .replace("6740000000.0", "5e8")
        )
        await store.create(POD, pod, field_manager="test")
        async with plane(authority, clock) as requests, asyncio.timeout(20):
            await until(
                lambda: (
                    fleet.nodes["node-0000"].host.engines() != ()
                    and fleet.nodes["node-0000"]._server is not None
                )
            )
            requests.route(fleet, {"default/chat-0": "node-0000"})
            serving = asyncio.create_task(requests.gateway.run())
            results = await requests.client.generate([Request(i, CHAT, 200, 10) for i in range(5)])
            assert [(r.outcome, r.output_tokens) for r in results] == [("served", 10)] * 5
            serving.cancel()
        assert hub.nodes() == ["node-0000", "node-0001"]
        assert hub.stats.reports >= 2
        stop.set()
        await running
        await fleet.stop()
        await door.stop()

    run(scenario)
