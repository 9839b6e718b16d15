"""The two processes of the hub benchmark: `python -m benchmarks.hub_sides hub|agents`, driven by lines of JSON."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from agent.node.daemon import Agent, AgentConfig
from agent.node.drivers.base import (
    Device,
    DriverCommand,
    GpuReadings,
    InstanceState,
    Inventory,
    Outcome,
    Sample,
)
from agent.node.drivers.simulated import SimulatedDriver
from benchmarks.sides import heard, say
from cluster.observer import Observer
from controller.hub.commands import GrantPower
from controller.hub.server import HubServer
from controller.hub.service import Hub
from controller.hub.sessions import HubError
from controller.observe.reports import fold_agent
from controller.observe.world import World
from runtime.authority import Credentials
from runtime.clock import WallClock
from runtime.logs import configure
from wire import agent_pb2 as pb

HUB = "hub.msgpack"
AGENTS = "agents.msgpack"
GPUS = 8
ENGINES = 8
PACE_SECONDS = 0.01
"""Commands are sent in slices of this length, so that they are spread evenly over the second."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a side is told first. `port` 0: the hub takes a free one and says which."""

    folder: str
    nodes: int
    seed: int
    port: int = 0
    epoch: int = 1


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Every agent's own credentials."""

    credentials: tuple[Credentials, ...]


class Lively:
    """A node of eight GPUs and six engines whose every reading moves each second: a full report each time."""

    def __init__(self, node: str, draw: random.Random) -> None:
        self._draw = draw
        self._cap = 3_600
        self._generated = 0
        self._inventory = Inventory(
            devices=tuple(
                Device(
                    uuid=f"GPU-{node}-{index}",
                    index=index,
                    product="NVIDIA H100 80GB HBM3",
                    memory_bytes=80 << 30,
                    min_watts=200,
                    max_watts=700,
                    default_watts=700,
                    max_clock_mhz=1980,
                )
                for index in range(GPUS)
            ),
            base_watts=2_000,
            safe_watts=3_600,
        )
        self._names = tuple(f"shop/chat-{node}-{index}" for index in range(ENGINES))

    def inventory(self) -> Inventory:
        """Never changes."""
        return self._inventory

    def advance_to(self, now_seconds: float) -> None:
        """Nothing evolves between readings here."""

    def read(self, now_seconds: float) -> Sample:
        """New readings each time."""
        uniform = self._draw.uniform
        self._generated += 100
        watts = tuple(uniform(200.0, 700.0) for _ in range(GPUS))
        return Sample(
            node_watts=2_000.0 + sum(watts),
            gpus=GpuReadings(
                watts=watts,
                cap_watts=((self._cap - 2_000) // GPUS,) * GPUS,
                clock_mhz=(int(uniform(1200, 1980)),) * GPUS,
                utilisation=tuple(uniform(0.0, 1.0) for _ in range(GPUS)),
                memory_used_bytes=(int(uniform(10e9, 80e9)),) * GPUS,
                temperature_celsius=(uniform(40.0, 80.0),) * GPUS,
                energy_millijoules=(int(now_seconds * 1e6),) * GPUS,
            ),
            instances=tuple(
                InstanceState(
                    name=name,
                    running=int(uniform(1, 60)),
                    waiting=int(uniform(0, 9)),
                    kv_free_tokens=int(uniform(1e4, 4e5)),
                    kv_capacity_tokens=400_000,
                    head_of_line_seconds=uniform(0.0, 1.0),
                    capped_speed=0.93,
                    last_busy_seconds=now_seconds,
                    generated_tokens=self._generated,
                    step_base_seconds=0.011,
                    step_per_sequence_seconds=1.1e-4,
                    step_per_context_token_seconds=3e-8,
                )
                for name in self._names
            ),
        )

    def set_cap(self, watts: int, clock_mhz: int) -> int:
        """Obeys at once."""
        del clock_mhz
        self._cap = watts
        return watts

    def perform(self, command: DriverCommand, now_seconds: float) -> Outcome | None:
        """Power is all it knows."""
        del command, now_seconds
        return None


class HubSide:
    """The hub's process: hub, model and a power loop's worth of commands, on one core."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._clock = WallClock()
        self._hub = Hub(self._clock, epoch=setup.epoch)
        self._world = World(Observer(), setup.seed, started_seconds=self._clock.now())
        held = msgspec.msgpack.decode((Path(setup.folder) / HUB).read_bytes(), type=Credentials)
        self._server = HubServer(self._hub, lambda: held, port=setup.port)
        self._issued: dict[str, float] = {}
        self._latencies: list[float] = []
        self._reports = 0

    async def serve(self, lines: asyncio.StreamReader) -> None:
        """Answers what it is told until its input ends."""
        await self._server.start()
        say({"port": self._server.port})
        folding = asyncio.create_task(self._fold())
        while line := await lines.readline():
            told = msgspec.json.decode(line)
            if told["do"] == "await all":
                wanted = [f"node-{index:04d}" for index in range(self._setup.nodes)]
                missing = await self._hub.present(wanted, 60.0)
                say({"at": time.monotonic(), "missing": len(missing)})
            elif told["do"] == "measure":
                say(await self._measure(told["warm_up"], told["seconds"]))
        folding.cancel()

    async def _fold(self) -> None:
        """Folds what came in, every few milliseconds, as the operator's model thread does."""
        while True:
            now = self._clock.now()
            for report in self._hub.inbox.drain():
                fold_agent(self._world, report, now)
                self._reports += report.node_watts is not None
                for ack in report.acks:
                    issued = self._issued.pop(ack.id, None)
                    if issued is not None and ack.code == 1:
                        self._latencies.append(time.monotonic() - issued)
            await asyncio.sleep(0.002)

    async def _measure(self, warm_up: float, seconds: float) -> dict[str, Any]:
        await self._command(warm_up, "warm")
        await asyncio.sleep(0.5)
        self._issued.clear()
        self._latencies.clear()
        self._reports = 0
        cpu, begun = time.process_time(), time.monotonic()
        sent = await self._command(seconds, "lease")
        took = time.monotonic() - begun
        cpu_share = (time.process_time() - cpu) / took
        reports = self._reports * seconds / took
        await asyncio.sleep(2.0)  # answers to the last commands
        milliseconds = np.sort(np.array(self._latencies)) * 1000.0
        shares = [*np.linspace(0.0, 0.99, 34).tolist(), 0.995, 0.999, 1.0]
        return {
            "connections": len(self._hub.nodes()),
            "reports": reports,
            "report_bytes": REPORT_BYTES,
            "sent": sent,
            "acked": len(milliseconds),
            "p50_ms": float(np.quantile(milliseconds, 0.5)),
            "p99_ms": float(np.quantile(milliseconds, 0.99)),
            "latencies": [(float(np.quantile(milliseconds, share)), share) for share in shares],
            "cpu_share": cpu_share,
            "rss_mb": resident_megabytes(),
        }

    async def _command(self, seconds: float, name: str) -> int:
        """One lease per node and second, evenly spaced; returns how many were sent."""
        nodes = self._hub.nodes()
        begun = time.monotonic()
        sent = 0
        while (elapsed := time.monotonic() - begun) < seconds:
            until = int(min(elapsed + PACE_SECONDS, seconds) * len(nodes))
            for count in range(sent, until):
                self._lease(nodes[count % len(nodes)], f"{self._setup.epoch}/{name}/{count}", count)
            sent = max(sent, until)
            await asyncio.sleep(PACE_SECONDS)
        return sent

    def _lease(self, node: str, command_id: str, count: int) -> None:
        watts = 4_000 + count % 1_000
        self._issued[command_id] = time.monotonic()
        try:
            self._hub.send(
                node, GrantPower(watts=watts, ttl_seconds=5.0), command_id, self._clock.now() + 5.0
            )
        except HubError as error:
            print(error, file=sys.stderr)


async def agents_side(setup: Setup, lines: asyncio.StreamReader) -> None:
    """Runs every agent in the production loop until the input ends."""
    fleet = msgspec.msgpack.decode((Path(setup.folder) / AGENTS).read_bytes(), type=Fleet)
    clock = WallClock()
    agents = [_agent(setup, held, clock) for held in fleet.credentials]
    say({"ready": len(agents)})
    await lines.readline()
    stop = asyncio.Event()
    draw = random.Random(setup.seed)

    async def run(agent: Agent) -> None:
        await asyncio.sleep(draw.uniform(0.0, 1.0))  # nodes do not boot in the same instant
        await agent.run(stop)

    running = [asyncio.create_task(run(agent)) for agent in agents]
    await lines.readline()
    stop.set()
    await asyncio.gather(*running)


def _agent(setup: Setup, held: Credentials, clock: WallClock) -> Agent:
    node = held.identity.name
    draw = random.Random(f"{setup.seed} {node}")
    config = AgentConfig(node=node, endpoint=f"127.0.0.1:{setup.port}", boot_id=f"boot-{node}")
    return Agent(config, SimulatedDriver(Lively(node, draw)), lambda: held, clock, draw.uniform)


def resident_megabytes() -> float:
    """This process's resident memory, 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _report_bytes() -> float:
    """Size on the wire of such a report: built once, by the production code, to be stated in the table."""
    from agent.node.actuator import Actuator  # noqa: PLC0415 - measured once
    from agent.node.counters import Counters  # noqa: PLC0415
    from agent.node.reporter import DeadBand, Reporter  # noqa: PLC0415

    clock, counters = WallClock(), Counters()
    driver = SimulatedDriver(Lively("node-0000", random.Random(1)))
    actuator = Actuator("node-0000", driver, clock, counters)
    reporter = Reporter(DeadBand(), counters)
    reporter.fill(pb.Report(), driver.sample(clock.now()), actuator, clock.now(), 5.0)
    second = pb.Report()
    reporter.fill(second, driver.sample(clock.now() + 1), actuator, clock.now() + 1, 5.0)
    return float(second.ByteSize())


REPORT_BYTES = _report_bytes()


async def main(side: str) -> None:
    """Reads the setup from standard input and plays the side."""
    lines = await heard()
    setup = msgspec.json.decode(await lines.readline(), type=Setup)
    if side == "hub":
        await HubSide(setup).serve(lines)
    else:
        await agents_side(setup, lines)


if __name__ == "__main__":
    configure("ERROR")  # thousands of nodes lose their hub at once here, on purpose
    cores = sorted(os.sched_getaffinity(0))
    if sys.argv[1] == "hub":
        os.sched_setaffinity(0, cores[:1])
    elif len(cores) > 1:
        os.sched_setaffinity(0, cores[1:])
    asyncio.run(main(sys.argv[1]))
