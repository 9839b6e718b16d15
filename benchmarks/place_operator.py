"""The operator's process of the benchmark `place`: the production operator with its ledger, on a kubeconfig."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from benchmarks.place import Setup
from benchmarks.sides import heard, say
from controller.config import OperatorConfig
from controller.ledger.ledger import Ledger
from controller.life import stand_by
from controller.operator import Operator
from controller.store.kube import KubeStore
from controller.store.kube.budget import Budget
from runtime.clock import WallClock
from runtime.logs import configure


async def main() -> None:
    """Says when everything is listed; runs until told to stop."""
    lines = await heard()
    setup = msgspec.json.decode(await lines.readline(), type=Setup)
    clock, stop, listed = WallClock(), asyncio.Event(), asyncio.Event()
    budget = Budget(clock, per_second=setup.requests_per_second, burst=setup.burst)
    store = await KubeStore.connect(Path(setup.kubeconfig), clock=clock, seed=setup.seed, budget=budget)
    ledger = Ledger(setup.ledger, now=clock.now)
    ledger.start()
    config = OperatorConfig(seed=setup.seed, threaded=True, writes_at_once=setup.at_once)
    operator = Operator(store, clock, config, ledger=ledger)

    def beat() -> None:
        if operator.caches.synced and operator.planner.tick:
            listed.set()

    await stand_by(operator, stop)
    running = asyncio.create_task(operator.run(stop, beat=beat))
    await listed.wait()
    say({"pid": 0})
    await lines.readline()
    stop.set()
    await running
    await operator.stop()
    ledger.close()
    await store.close()
    say({"stopped": True})


if __name__ == "__main__":
    configure("WARNING")
    sys.exit(asyncio.run(main()))
