"""Devices that are not what somebody says: a node relabelled, a node that offers fewer, a resource that nobody has."""

from __future__ import annotations

import re

import msgspec

from agent.node.holders import Holder, Holders
from cluster.space import Space
from controller.resources.core import NODE
from controller.resources.kinds import ACCELERATOR_CLASS, ACCELERATOR_NODE
from controller.store.interface import JsonObject, Resource
from simulator.fleet.specs import FleetSpec
from tests.scenarios.plays_serving import settled
from tests.scenarios.props import fleet, manifests, service
from tests.scenarios.scenario import Scenario
from tests.scenarios.seen import node_of
from tests.scenarios.stage import Stage

CHAT, BERT = "shop/chat", "shop/bert"
STABLE_SECONDS = 25


def eight() -> FleetSpec:
    """One node of eight L4s."""
    made = fleet(l4=1)
    return msgspec.structs.replace(made, nodes=(msgspec.structs.replace(made.nodes[0], gpus=8),))


async def _condition(stage: Stage, resource: Resource, name: str, kind: str) -> JsonObject:
    obj = await stage.cluster.store.get(resource, name)
    found = [c for c in obj.get("status", {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


async def _says(stage: Stage, resource: Resource, name: str, kind: str, words: str) -> None:
    """Wait until a condition says it; objects that are not among those seen are asked for."""
    for _ in range(60):
        found = await _condition(stage, resource, name, kind)
        if words in found.get("message", ""):
            return
        await stage.second()
    raise AssertionError(f"{name} {kind} never said {words!r}, but {found}\n{stage.told()}")


async def _offers(stage: Stage, node: str, gpus: int) -> None:
    """Its device plugin offers so many."""
    patch = {"status": {"allocatable": {"nvidia.com/gpu": str(gpus)}}}
    await stage.cluster.store.patch(NODE, node, patch, field_manager="kubelet", subresource="status")


def _uids(stage: Stage, service: str) -> dict[str, str]:
    return {pod["metadata"]["uid"]: node_of(pod) for pod in stage.seen.pods(service)}


async def _relabelled(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
    before = _uids(stage, CHAT)
    await stage.patch("Node", "l4-00", {"metadata": {"labels": {"nvidia.com/gpu.product": "NVIDIA-A10G"}}})
    sentence = "label nvidia.com/gpu.product says NVIDIA-A10G (A10G), the driver says NVIDIA-L4 (L4): the driver is believed"
    await _says(stage, ACCELERATOR_NODE, "l4-00", "DevicesAgree", sentence)
    await stage.seconds(STABLE_SECONDS)
    assert _uids(stage, CHAT) == before
    assert settled(stage, CHAT, 2)


RELABELLED = Scenario(
    name="a node relabelled to another product while in use",
    fleet=fleet(l4=1, a10g=1),
    manifests=manifests(service("chat", "replicas: 2\nmaxReplicas: 2")),
    script=_relabelled,
    final={f"ModelService/{CHAT}": {"status.phase": "Serving", "status.ready": 2}},
    events={"l4-00": frozenset({"DevicesDisagree"})},
    never=frozenset({"ReplicaLost", "NodeUnknownProduct"}),
)


async def _shrinks(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 8), 90, "all eight serve")
    before = _uids(stage, CHAT)
    await _offers(stage, "l4-00", 7)
    sentence = (
        "The API server offers nvidia.com/gpu: 7, the node has 8 GPUs: 7 count; all are in use, and the next 1 that come"
        " free are given to nobody."
    )
    await _says(stage, ACCELERATOR_NODE, "l4-00", "DevicesAgree", sentence)
    await stage.seconds(STABLE_SECONDS)
    assert _uids(stage, CHAT) == before, "nobody's pod goes for it"
    free = await _class(stage, "l4")
    assert (free["gpus"], free["freeGpus"]) == (7, 0)
    await stage.scale(CHAT, 7)
    await stage.until(lambda _: settled(stage, CHAT, 7), 60, "one less")
    await stage.apply(service("bert", "minReplicas: 1"))
    await stage.seconds(STABLE_SECONDS)
    assert not stage.seen.pods(BERT), "the one that came free is not given away"
    await stage.scale(CHAT, 6)
    await stage.until(lambda seen: seen.ready(BERT) == 1, 60, "the next one is")
    await stage.seconds(5)


async def _class(stage: Stage, name: str) -> JsonObject:
    found: JsonObject = (await stage.cluster.store.get(ACCELERATOR_CLASS, name))["status"]
    return found


SHRINKS = Scenario(
    name="a node offers seven of eight GPUs that are all in use",
    fleet=eight(),
    manifests=manifests(service("chat", "replicas: 8\nmaxReplicas: 8")),
    script=_shrinks,
    final={
        f"ModelService/{CHAT}": {"status.ready": 6},
        f"ModelService/{BERT}": {"status.ready": 1},
    },
    events={"l4-00": frozenset({"DevicesDisagree"})},
    never=frozenset({"ReplicaLost", "ReplicaStuck"}),
)


async def _nobody_offers(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one replica ready")
    await stage.patch("AcceleratorClass", "a10g", {"spec": {"resourceName": "nvidia.com/gqu"}})
    await stage.apply(service("odd", "minReplicas: 1", on="a10g"))
    sentence = "1 nodes have this product, 0 offer nvidia.com/gqu"
    await _says(stage, ACCELERATOR_CLASS, "a10g", "Offered", sentence)
    await stage.seconds(STABLE_SECONDS)
    assert not stage.seen.pods("shop/odd")
    assert settled(stage, CHAT, 1)


NOBODY_OFFERS = Scenario(
    name="a device resource that no node offers",
    fleet=fleet(l4=1, a10g=1),
    manifests=manifests(service("chat", "replicas: 1\nmaxReplicas: 1")),
    script=_nobody_offers,
    final={
        "ModelService/shop/odd": {"status.phase": re.compile("Pending|Degraded"), "conditions.Ready.status": "False"},
        f"ModelService/{CHAT}": {"status.phase": "Serving", "status.ready": 1},
    },
    never=frozenset({"ReplicaStuck"}),
)  # fmt: skip


ODD = """
apiVersion: plimsoll.dev/v1alpha1
kind: AcceleratorClass
metadata: {name: odd}
spec:
  memoryBytes: 25769803776
  bandwidthBytesPerSecond: 600000000000
  flops: {bf16: 70.0e12}
  minWatts: 100
  maxWatts: 300
  tdpWatts: 300
  safeWatts: 200
  rdma: {resourceName: nvidia.com/gpu}
"""


async def _claimed_twice(stage: Stage) -> None:
    """The RDMA resource of one class is the GPU resource of another: the younger class is refused, and says by whom."""
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one replica ready")
    before = _uids(stage, CHAT)
    await stage.apply(ODD)
    sentence = "spec.rdma.resourceName nvidia.com/gpu is what pods ask GPUs by"
    await _says(stage, ACCELERATOR_CLASS, "odd", "Accepted", sentence)
    await stage.seconds(STABLE_SECONDS)
    assert _uids(stage, CHAT) == before


CLAIMED_TWICE = Scenario(
    name="a resource that two classes claim for different devices",
    fleet=fleet(l4=1),
    manifests=manifests(service("chat", "replicas: 1\nmaxReplicas: 1")),
    script=_claimed_twice,
    final={f"ModelService/{CHAT}": {"status.phase": "Serving", "status.ready": 1}},
    events={"odd": frozenset({"SpecInvalid"})},
)


async def _kubelets_word(stage: Stage) -> None:
    """The plan said one GPU, the kubelet gave the other: the model has it so, and the planned one is free."""
    await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one replica ready")
    (pod,) = stage.seen.pods(CHAT)
    key = f"shop/{pod['metadata']['name']}"
    agent = stage.cluster.fleet.nodes["l4-00"].agent
    assert agent is not None
    planned = stage.operator.observer.live("launchers")[key].slots[0].devices[0]
    given = 1 - planned
    row = Holder(
        device=given, device_id=f"GPU-l4-00-{given}", pod=key, container="engine", resource="nvidia.com/gpu"
    )
    agent._holders = lambda: Holders(rows=(row,), known=True, offered=(0, 1))
    await stage.seconds(5)
    launchers = stage.operator.observer.live("launchers")
    assert launchers[key].slots[0].devices == (given,)
    snapshot = stage.operator.observer.snapshot(stage.now)
    assert Space(snapshot.nodes, snapshot.claims.values()).free_devices("l4-00") == [planned]


KUBELETS_WORD = Scenario(
    name="the kubelet gives another GPU than was planned",
    fleet=fleet(l4=1),
    manifests=manifests(service("chat", "replicas: 1\nmaxReplicas: 1")),
    script=_kubelets_word,
    final={f"ModelService/{CHAT}": {"status.phase": "Serving", "status.ready": 1}},
    never=frozenset({"DevicesDisagree", "ReplicaStuck"}),
)

ALL = [KUBELETS_WORD, RELABELLED, SHRINKS, NOBODY_OFFERS, CLAIMED_TWICE]
