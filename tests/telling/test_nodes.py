"""AcceleratorNode and AcceleratorClass on a real run: what the agents found reaches the objects, and leaves with the node."""

from __future__ import annotations

import asyncio
from typing import Any

from console.local import LocalCluster
from controller.resources.core import NODE
from controller.resources.kinds import ACCELERATOR_CLASS, ACCELERATOR_NODE
from controller.resources.manifests import apply, load
from simulator.fleet.specs import ETHERNET, ROCE, FleetSpec, Group, demo_fleet
from simulator.physics.catalogue import A100_80, L4
from simulator.physics.failures import Failure, FailureKind
from tests.repository.tree import ROOT


def small_fleet() -> FleetSpec:
    groups = (
        Group(prefix="l4", gpu=L4, gpus=1, count=1, nic=ETHERNET),
        Group(prefix="a100", gpu=A100_80, gpus=2, count=1, nic=ROCE),
    )
    return demo_fleet(groups=groups)


async def statuses(cluster: LocalCluster, resource: Any) -> dict[str, dict[str, Any]]:
    found = (await cluster.store.list(resource)).items
    return {obj["metadata"]["name"]: obj.get("status", {}) for obj in found}


def test_what_agents_found_is_told_in_objects_and_a_silent_node_says_so() -> None:
    async def scenario() -> None:
        async with LocalCluster(small_fleet()) as cluster:
            await apply(cluster.store, load(ROOT / "examples" / "demo" / "accelerators.yaml"))
            for _ in range(12):
                await cluster.second()
            nodes = await statuses(cluster, ACCELERATOR_NODE)
            assert nodes["a100-00"]["phase"] == "Online"
            assert nodes["a100-00"]["accelerator"] == "A100-80"
            assert nodes["a100-00"]["gpuCount"] == 2
            assert {nic["link"] for nic in nodes["a100-00"]["nics"]} == {"roce"}
            classes = await statuses(cluster, ACCELERATOR_CLASS)
            assert (
                classes["a100-80"]["nodes"],
                classes["a100-80"]["gpus"],
                classes["a100-80"]["freeGpus"],
            ) == (1, 2, 2)
            assert classes["h100"]["gpus"] == 0
            await cluster.fleet.nodes["l4-00"].fail(
                Failure(cluster.clock.now(), "l4-00", FailureKind.NODE_CRASH, 0)
            )
            for _ in range(20):
                await cluster.second()
            silent = (await statuses(cluster, ACCELERATOR_NODE))["l4-00"]
            assert silent["phase"] == "Silent"
            assert silent["conditions"][0]["status"] == "False"
            await cluster.store.delete(NODE, "l4-00")
            for _ in range(12):
                await cluster.second()
            assert "l4-00" not in await statuses(cluster, ACCELERATOR_NODE)

    asyncio.run(scenario())
