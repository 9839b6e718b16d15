"""A fleet on a real API server whose agents have nothing but their tokens: enrolled, linked, told in AcceleratorNodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from console.controlplane import ControlPlane
from controller.hub.server import HubServer
from controller.hub.service import Hub
from controller.operator import Operator
from controller.resources import crds
from controller.resources.core import POD
from controller.resources.kinds import ACCELERATOR_NODE
from controller.resources.manifests import apply, parse
from controller.store.errors import NotFound
from controller.store.kube import KubeStore
from runtime.authority import Authority
from runtime.clock import WallClock
from simulator.fleet.fleet import Fleet
from simulator.fleet.node import HubAddress
from tests.cluster.enrolling import HUB, Cluster, cluster
from tests.cluster.operating import PRODUCTS, _sweep, config_of, fleet_spec
from tests.hub.support import run

PATIENCE = 90.0


class Living:
    """Operator, hub and fleet beside the enrolment door."""

    def __init__(self, made: Cluster, store: KubeStore, fleet: Fleet, hub: Hub) -> None:
        self.made = made
        self.store = store
        self.fleet = fleet
        self.hub = hub

    async def node(self, name: str) -> dict[str, Any]:
        """The status of its AcceleratorNode; empty while there is none."""
        try:
            return dict((await self.store.get(ACCELERATOR_NODE, name)).get("status") or {})
        except NotFound:
            return {}


@asynccontextmanager
async def living(plane: ControlPlane, namespace: str, folder: Path) -> AsyncIterator[Living]:
    clock = WallClock()
    async with cluster(plane, namespace, folder) as made:
        store = await KubeStore.connect(plane.kubeconfig, clock=clock, seed=5)
        await crds.install(store)
        await apply(store, parse(PRODUCTS)[0])
        hub = Hub(clock, heartbeat_seconds=1.0)
        held = made.authority.issue(HUB)
        door = HubServer(hub, lambda: held)
        await door.start()
        stranger = Authority.create(clock)  # what it would sign opens nothing here
        fleet = Fleet(
            fleet_spec(namespace, h100=2),
            store,
            clock,
            stranger,
            hub=HubAddress(door.endpoint, HUB),
            real_time=True,
            enrolments=made.enrolments,
            tells_holders=True,
        )
        operator = Operator(store, clock, config_of(namespace), hub=hub)
        await operator.start()
        await fleet.start()
        stop = asyncio.Event()
        running = [asyncio.create_task(fleet.run(stop, 0.05)), asyncio.create_task(operator.run(stop))]
        try:
            yield Living(made, store, fleet, hub)
        finally:
            stop.set()
            await asyncio.gather(*running, return_exceptions=True)
            await fleet.stop()
            await operator.stop()
            await door.stop()
            await _sweep(store, namespace, fleet)
            await store.close()


async def eventually(what: str, holds: Any) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            if found := await holds():
                return found
            await asyncio.sleep(0.1)
    raise AssertionError(what)


def notebook(node: str, namespace: str) -> dict[str, Any]:
    """Somebody else's pod with two GPUs, put on a node by hand."""
    resources = {"limits": {"nvidia.com/gpu": "2"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "notebook", "namespace": namespace},
        "spec": {
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "main", "image": "notebook", "resources": resources}],
        },
    }


@pytest.mark.slow  # an operator and a fleet in real time
def test_agents_with_tokens_alone_are_told_in_acceleratornodes(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
):
    async def scenario() -> None:
        async with living(control_plane, namespace, tmp_path) as world:
            names = sorted(world.fleet.nodes)
            assert world.hub.nodes() == names
            assert world.made.servicer.outcomes["signed"] == len(names)
            busy, free = names

            async def online() -> bool:
                told = [await world.node(name) for name in names]
                return all(each.get("phase") == "Online" for each in told)

            await eventually("both nodes are online", online)
            await world.store.create(POD, notebook(busy, namespace), field_manager="somebody")

            async def held() -> dict[str, Any]:
                told = await world.node(busy)
                return told if any(gpu.get("pods") for gpu in told["gpus"]) else {}

            told = await eventually("the notebook's GPUs are told", held)
            pods = [gpu.get("pods", []) for gpu in told["gpus"]]
            assert pods == [[f"{namespace}/notebook"]] * 2 + [[]] * (len(pods) - 2)
            assert all(gpu["offered"] for gpu in told["gpus"])
            assert told["bootId"] == f"{busy}-boot-1"
            assert told["agentVersion"]
            assert {each["type"]: each["status"] for each in told["conditions"]} == {
                "Ready": "True",
                "Schedulable": "True",
                "HoldersKnown": "True",
            }
            assert not any(gpu.get("pods") for gpu in (await world.node(free))["gpus"])
            # A stream that breaks is opened anew with the certificate at hand.
            agent = world.fleet.nodes[free].agent
            assert agent is not None
            await agent.abandon()

            async def back() -> bool:
                return world.hub.connected(free) and agent.counters.connects >= 2

            await eventually("the agent is back", back)

    run(scenario, 2 * PATIENCE)
