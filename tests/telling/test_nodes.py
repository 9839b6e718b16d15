"""AcceleratorNode and AcceleratorClass on a real run: what the agents found reaches the objects, and leaves with the node."""

from __future__ import annotations

import asyncio
from typing import Any

from agent.node.holders import Holder, Holders
from console.local import LocalCluster
from controller.hub.messages import HoldersSeen, NodeReport
from controller.observe.told import AgentTold
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


def test_who_has_which_gpu_stands_in_the_status_whoever_it_is() -> None:
    async def scenario() -> None:
        async with LocalCluster(small_fleet()) as cluster:
            await apply(cluster.store, load(ROOT / "examples" / "demo" / "accelerators.yaml"))
            agent = cluster.fleet.nodes["a100-00"].agent
            assert agent is not None
            rows = tuple(
                Holder(
                    device=0,
                    device_id=f"MIG-{pod}",
                    pod=f"other/{pod}",
                    container="c",
                    resource="nvidia.com/gpu",
                )
                for pod in ("b", "a", "a")
            )
            now = [Holders(rows=rows, known=True, offered=(0,))]
            agent._holders = lambda: now[0]
            for _ in range(6):
                await cluster.second()
            told = (await statuses(cluster, ACCELERATOR_NODE))["a100-00"]
            assert [(gpu.get("pods", []), gpu["offered"]) for gpu in told["gpus"]] == [
                (["other/a", "other/b"], True),
                ([], False),
            ]
            assert told["agentVersion"] == agent._config.version
            assert told["bootId"] == "a100-00-boot-1"
            since = {each["type"]: each["lastTransitionTime"] for each in told["conditions"]}
            differ = [each for each in told["conditions"] if each["status"] != "True"]
            assert [each["type"] for each in differ] == ["DevicesAgree"]
            assert differ[0]["message"] == (
                "The API server offers nvidia.com/gpu: 2, its kubelet would give out 1."
            )

            stray = Holder(
                device=-1, device_id="MIG-x", pod="other/a", container="c", resource="nvidia.com/gpu"
            )
            now[0] = Holders(rows=(stray,), known=True)
            for _ in range(8):
                await cluster.second()
            told = (await statuses(cluster, ACCELERATOR_NODE))["a100-00"]
            known = {each["type"]: each for each in told["conditions"]}
            assert known["HoldersKnown"]["reason"] == "UnknownDevices"
            assert "such as MIG-x of other/a" in known["HoldersKnown"]["message"]
            assert known["HoldersKnown"]["lastTransitionTime"] > since["HoldersKnown"]
            assert known["Ready"]["lastTransitionTime"] == since["Ready"]

            now[0] = Holders(fault="The kubelet's socket cannot be used.")
            for _ in range(8):
                await cluster.second()
            told = (await statuses(cluster, ACCELERATOR_NODE))["a100-00"]
            known = {each["type"]: each for each in told["conditions"]}
            assert (known["HoldersKnown"]["status"], known["HoldersKnown"]["reason"]) == (
                "False",
                "Unanswered",
            )
            assert known["HoldersKnown"]["message"] == "The kubelet's socket cannot be used."
            assert all(gpu["offered"] for gpu in told["gpus"])

    asyncio.run(scenario())


def test_what_an_agent_told_is_of_its_own_boot() -> None:
    def report(boot: str, **parts: Any) -> NodeReport:
        return NodeReport(
            node="n", tick=1, sequence=1, observed_seconds=1.0, delivered_seconds=1.0, boot_id=boot,
            last_command_sequence=0, version="1", **parts,
        )  # fmt: skip

    held = HoldersSeen(rows=(), known=True, fault="", offered=(1,))
    first = AgentTold().then(report("a", holders=held))
    assert first.holders == held
    assert first.then(report("a")) is first
    assert first.then(report("a", holders=held)) is first
    again = first.then(report("b"))
    assert (again.boot_id, again.holders) == ("b", None)
    assert not first.offers(0)
    assert first.offers(1)
    assert again.offers(0)


def test_a_node_of_an_unknown_product_is_online_and_of_no_class_until_it_falls_silent() -> None:
    async def scenario() -> None:
        async with LocalCluster(small_fleet()) as cluster:
            for _ in range(12):
                await cluster.second()
            told = (await statuses(cluster, ACCELERATOR_NODE))["a100-00"]
            assert (told["phase"], told.get("accelerator", "")) == ("Online", "")
            await cluster.fleet.nodes["a100-00"].partition()
            for _ in range(20):
                await cluster.second()
            assert (await statuses(cluster, ACCELERATOR_NODE))["a100-00"]["phase"] == "Silent"

    asyncio.run(scenario())
