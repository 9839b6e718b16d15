"""The operator's process of the benchmark `manners`: the production operator, counting what it sends.

Agents are modelled at the hub's inbox: each node's inventory once, then a report with moving watts every two seconds.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from bisect import bisect_left
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.manners_cluster import node_name
from benchmarks.sides import heard, say
from controller.config import OperatorConfig
from controller.hub.messages import DeviceSeen, InventorySeen, NodeReport
from controller.hub.service import Hub
from controller.life import stand_by
from controller.operator import Operator
from controller.store.kube import KubeStore
from runtime.clock import WallClock
from runtime.logs import configure

REPORT_SECONDS = 2.0
MIB = 2**20


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What the process is told first."""

    kubeconfig: str
    seed: int
    nodes: int
    gpus: int
    at_once: int = 32


class Asked(msgspec.Struct):
    """Moments (wall time) at which requests were sent, and what each was."""

    at: list[float] = []
    what: list[str] = []

    def since(self, seconds: float) -> list[str]:
        """What was sent from then on."""
        return self.what[bisect_left(self.at, seconds) :]


def listen(store: KubeStore) -> Asked:
    """Notes each request of a store as it leaves."""
    asked = Asked()
    send = store.transport.access.send

    async def told(method: str, url: str, *rest: Any) -> Any:
        asked.at.append(time.time())
        path = url.partition("://")[2].partition("/")[2]
        asked.what.append(f"{method} {path.partition('?')[0]}{' watch' if 'watch=' in path else ''}")
        return await send(method, url, *rest)

    store.transport.access.send = told  # type: ignore[method-assign,assignment]
    return asked


def inventory(node: int, gpus: int) -> InventorySeen:
    """What a node's agent tells once."""
    devices = tuple(
        DeviceSeen(
            index=index, uuid=f"GPU-{node}-{index}", product="NVIDIA-L4", memory_bytes=24_576 * MIB, min_watts=40,
            max_watts=72, default_watts=72, max_clock_mhz=2_040, numa=0, clique=0, pci_address="", healthy=True,
            fault="", clock_ladder_mhz=(),
        )
        for index in range(gpus)
    )  # fmt: skip
    return InventorySeen(
        devices=devices, nics=(), cpu_millis=64_000, memory_bytes=512 * 1024 * MIB, dram_cache_bytes=0,
        nvme_cache_bytes=0, base_watts=300, safe_watts=780, driver_version="550",
    )  # fmt: skip


async def agents(hub: Hub, setup: Setup, clock: WallClock) -> None:
    """Every node's report, again and again."""
    rng, told = random.Random(setup.seed), [inventory(n, setup.gpus) for n in range(setup.nodes)]
    for tick in range(10**9):
        now = clock.now()
        for node in range(setup.nodes):
            report = NodeReport(
                node=node_name(node), tick=tick, sequence=tick, observed_seconds=now, delivered_seconds=now,
                boot_id="boot", last_command_sequence=0, inventory=None if tick else told[node],
                node_watts=500.0 + rng.random() * 300.0, replicas=(), version="0.1.0",
            )  # fmt: skip
            hub.inbox.put(report)
        await asyncio.sleep(REPORT_SECONDS)


async def main() -> None:
    """Runs until told to stop; answers `count` with what was sent since a moment."""
    lines = await heard()
    setup = msgspec.json.decode(await lines.readline(), type=Setup)
    clock, stop = WallClock(), asyncio.Event()
    store = await KubeStore.connect(Path(setup.kubeconfig), clock=clock, seed=setup.seed)
    asked = listen(store)
    hub = Hub(clock)
    config = OperatorConfig(seed=setup.seed, threaded=True, writes_at_once=setup.at_once)
    operator = Operator(store, clock, config, hub=hub)
    reporting = asyncio.create_task(agents(hub, setup, clock))
    await stand_by(operator, stop)
    running = asyncio.create_task(operator.run(stop))
    say({"began": clock.now()})
    while True:
        order = msgspec.json.decode(await lines.readline())
        if order["do"] == "stop":
            break
        sent = asked.since(order["since"])
        if running.done():
            raise SystemExit(
                f"The operator ended by itself: {operator.elector.told()}; is the machine overloaded?"
            )
        held = sum(operator.refusals.held_back.values())
        say({"sent": sent, "bytes": store.watched_bytes, "held_back": held, "at": time.time()})
    stop.set()
    await running
    reporting.cancel()
    await operator.stop()
    await store.close()
    say({"all": len(asked.at)})


if __name__ == "__main__":
    configure("ERROR")
    sys.exit(asyncio.run(main()))
