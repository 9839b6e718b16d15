"""A small world of real parts on loopback: authority, hub, agents over a two-GPU physics written for these tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from agent.node.daemon import Agent, AgentConfig
from agent.node.drivers.base import (
    Code,
    Device,
    DriverCommand,
    GpuReadings,
    InstanceState,
    Inventory,
    Outcome,
    Sample,
    SetTier,
)
from agent.node.drivers.simulated import SimulatedDriver
from controller.hub.server import HubServer
from controller.hub.service import Hub
from runtime.authority import Authority, Credentials, Identity, Role
from runtime.channels import NODE_PLANE, Limits
from runtime.clock import Clock, VirtualClock, WallClock

ORIGIN = 1_700_000_000.0
HUB_IDENTITY = Identity(Role.OPERATOR, "hub")
BASE_WATTS = 400
SAFE_WATTS = 1_000
MAX_WATTS = BASE_WATTS + 2 * 700


@dataclass
class TwoGpus:
    """Draws what its cap allows, and integrates the energy exactly between the moments it is advanced to."""

    node: str
    gpus: int = 2
    demand_watts: float = 600.0
    cap_watts: int = SAFE_WATTS
    clock_mhz: int = 0
    now: float = ORIGIN
    joules: float = 0.0
    performed: list[DriverCommand] = field(default_factory=list)
    instances: tuple[InstanceState, ...] = ()
    obeys: bool = True
    product: str = "NVIDIA H100 80GB HBM3"

    def inventory(self) -> Inventory:
        devices = tuple(
            Device(
                uuid=f"GPU-{self.node}-{index}",
                index=index,
                product=self.product,
                memory_bytes=80 << 30,
                min_watts=200,
                max_watts=700,
                default_watts=700,
            )
            for index in range(self.gpus)
        )
        return Inventory(devices=devices, base_watts=BASE_WATTS, safe_watts=SAFE_WATTS)

    @property
    def gpu_watts(self) -> float:
        return min(self.demand_watts, (self.cap_watts - BASE_WATTS) / self.gpus)

    def advance_to(self, now_seconds: float) -> None:
        if now_seconds > self.now:
            self.joules += self.gpu_watts * self.gpus * (now_seconds - self.now)
            self.now = now_seconds

    def read(self, now_seconds: float) -> Sample:
        gpu_cap = (self.cap_watts - BASE_WATTS) // self.gpus
        return Sample(
            node_watts=BASE_WATTS + self.gpu_watts * self.gpus,
            gpus=GpuReadings(
                watts=(self.gpu_watts,) * self.gpus,
                cap_watts=(gpu_cap,) * self.gpus,
                clock_mhz=(self.clock_mhz or 1980,) * self.gpus,
                utilisation=(0.5,) * self.gpus,
                memory_used_bytes=(1 << 30,) * self.gpus,
                temperature_celsius=(50.0, None)[: self.gpus],
                energy_millijoules=(int(self.joules * 1000 / self.gpus),) * self.gpus,
            ),
            instances=self.instances,
        )

    def set_cap(self, watts: int, clock_mhz: int) -> int:
        if self.obeys:
            self.cap_watts, self.clock_mhz = watts, clock_mhz
        return self.cap_watts

    def perform(self, command: DriverCommand, now_seconds: float) -> Outcome | None:
        if isinstance(command, SetTier):
            self.performed.append(command)
            return Outcome(code=Code.DONE)
        return None


@dataclass
class World:
    """An authority, a hub and its server, on one clock."""

    clock: Clock
    authority: Authority
    hub: Hub
    server: HubServer
    agents: list[Agent] = field(default_factory=list)

    def credentials(self, node: str) -> Credentials:
        return self.authority.issue(Identity(Role.NODE, node))

    def agent(self, node: str, physics: TwoGpus | None = None, **config: object) -> Agent:
        settings = {"endpoint": self.server.endpoint, "heartbeat_seconds": 1.0, "prompt_acks": False} | config
        held = self.credentials(node)
        made = Agent(
            AgentConfig(node=node, boot_id=f"boot-{node}", **settings),  # type: ignore[arg-type]
            SimulatedDriver(physics or TwoGpus(node)),
            lambda: held,
            self.clock,
            random.Random(node).uniform,
        )
        self.agents.append(made)
        return made


@asynccontextmanager
async def world(
    *, clock: Clock | None = None, epoch: int = 1, limits: Limits = NODE_PLANE, heartbeat_seconds: float = 1.0
) -> AsyncIterator[World]:
    """Starts a hub on a free port, and closes all that was made."""
    authority = Authority.create(WallClock())
    held = authority.issue(HUB_IDENTITY)
    clock = clock or VirtualClock(ORIGIN)
    hub = Hub(clock, epoch=epoch, heartbeat_seconds=heartbeat_seconds)
    server = HubServer(hub, lambda: held, limits=limits)
    await server.start()
    made = World(clock, authority, hub, server)
    try:
        yield made
    finally:
        for each in made.agents:
            await each.abandon()
        await made.server.stop()


def run(scenario: Callable[[], Awaitable[None]], timeout_seconds: float = 20.0) -> None:
    """Runs a scenario on a loop of its own, with a limit, so that a hang is a failure."""

    async def limited() -> None:
        async with asyncio.timeout(timeout_seconds):
            await scenario()

    asyncio.run(limited())


async def until(condition: Callable[[], bool], timeout_seconds: float = 5.0) -> None:
    """Waits (wall time) for a condition; fails when it does not come true."""
    async with asyncio.timeout(timeout_seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.005)
