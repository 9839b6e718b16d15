"""Nodes that are bought because a mix counts on them: they come, never come, are refused, and are given back."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from controller.config import OperatorConfig, PolicyDefault
from controller.provisioning.objects import NODE_CLAIM, PROVISIONING_REQUEST
from controller.provisioning.settings import NodeClass, PoolOrder, ProvisioningSettings, Requirement
from controller.store.interface import JsonObject, Resource
from simulator.fleet.karpenter import Market
from tests.scenarios.props import fleet, manifests, service
from tests.scenarios.scenario import CONFIG, Scenario
from tests.scenarios.seen import node_of
from tests.scenarios.stage import Stage

CHAT = "shop/chat"
CHAT_SERVICE = f"ModelService/{CHAT}"
POOL = "l4-on-demand"
HOLD_SECONDS = 30.0
READY_SECONDS = 40.0

ORDER = PoolOrder(
    node_class=NodeClass("karpenter.example", "ExampleNodeClass", "gpus"),
    requirements=(Requirement("node.kubernetes.io/instance-type", "In", ("g6.xlarge",)),),
    taints=("nvidia.com/gpu=present:NoSchedule",),
)
BUYING = ProvisioningSettings(
    provisioner="karpenter",
    pools={POOL: ORDER},
    max_nodes=3,
    max_dollars_per_hour=100.0,
    ready_seconds=READY_SECONDS,
    backoff_seconds=30.0,
)


def config(**changes: Any) -> OperatorConfig:
    """The scenarios' settings, with a provisioner."""
    place = PolicyDefault("priced_fgd", {"idle_hold_seconds": HOLD_SECONDS})
    bought = msgspec.structs.replace(BUYING, **changes)
    return msgspec.structs.replace(CONFIG, provisioning=bought, policies={**CONFIG.policies, "place": place})


def market(**more: Any) -> Market:
    """Machines of two L4s, like those of the fleet."""
    return Market(machines={POOL: fleet(l4=1).nodes[0]}, **more)


def sold(text: str, gpus: int = 8) -> str:
    """The pool would still sell so many GPUs, two at a time."""
    listed = "source: AWS g6.xlarge"
    assert listed in text
    return text.replace(listed, f"{listed}, availableGpus: {gpus}, nodeSize: 2")


TWO = sold(manifests(service("chat", "replicas: 2\nmaxReplicas: 8")))


async def orders(stage: Stage, resource: Resource = NODE_CLAIM) -> list[JsonObject]:
    """The orders that stand."""
    return list((await stage.cluster.store.list(resource)).items)


async def none_stand(stage: Stage, seconds: int) -> None:
    """Until no order stands any more."""
    for _ in range(seconds):
        if not await orders(stage):
            return
        await stage.second()
    raise AssertionError(f"orders stand: {await orders(stage)}\n{stage.told()}")


# ----------------------------------------------------------------------------- bought, used, stood empty, given back


async def _bought(stage: Stage) -> None:
    await stage.until(lambda seen: seen.ready(CHAT) == 2, 60, "both GPUs of the only node serve")
    await stage.seconds(10)
    assert not stage.karpenter.orders, "nothing is bought while what exists carries the load"
    await stage.scale(CHAT, 4)
    await stage.until(lambda _: bool(stage.karpenter.orders), 20, "a node is ordered")
    (claim,) = await orders(stage)
    assert claim["spec"]["resources"]["requests"] == {"nvidia.com/gpu": "2"}
    assert claim["spec"]["nodeClassRef"] == {
        "group": "karpenter.example",
        "kind": "ExampleNodeClass",
        "name": "gpus",
    }
    await stage.until(lambda seen: seen.ready(CHAT) == 4, 60, "it came, and two more replicas serve on it")
    assert stage.karpenter.orders == [f"plimsoll-{POOL}-1"], "one order was enough"
    new = f"plimsoll-{POOL}-1-node"
    assert sorted(node_of(pod) for pod in stage.seen.pods(CHAT)).count(new) == 2
    await stage.scale(CHAT, 2)
    await stage.until(lambda seen: len(seen.pods(CHAT)) == 2, 60, "two replicas go")
    left = {node_of(pod) for pod in stage.seen.pods(CHAT)}
    assert new not in left, "the youngest go first, and leave the bought node empty"
    await stage.seconds(int(HOLD_SECONDS) - 10)
    assert await orders(stage), "it is kept for a while"
    await none_stand(stage, 60)
    await stage.until(lambda seen: new not in seen.objects["Node"], 30, "the node is gone")


BOUGHT = Scenario(
    name="a node is bought and given back",
    fleet=fleet(l4=1),
    manifests=TWO,
    script=_bought,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 2}},
    events={"l4": frozenset({"NodesOrdered", "NodeGivenBack"}), CHAT: frozenset({"NodesAwaited"})},
    actions={"Provision": 1, "ReleaseNode": 1},
    never=frozenset({"NodesNotReady", "ReplicaUnplaceable"}),
    config=config(),
    market=market(),
    converges=False,  # the script counts orders
)


# -------------------------------------------------------------------------------------- ordered, and it never comes


async def _never(stage: Stage) -> None:
    await stage.until(lambda seen: seen.ready(CHAT) == 2, 60, "both GPUs of the only node serve")
    await stage.until(lambda _: len(stage.karpenter.orders) == 1, 20, "a node is ordered")
    for _ in range(int(READY_SECONDS)):
        assert len(await orders(stage)) <= 1, "a second order while one is pending"
        await stage.second()
    await none_stand(stage, 15)
    await stage.seconds(15)
    assert len(stage.karpenter.orders) == 1, "its pool rests"
    await stage.until(lambda _: len(stage.karpenter.orders) == 2, 60, "and is tried again")
    assert stage.seen.ready(CHAT) == 2


NEVER = Scenario(
    name="a node that never comes",
    fleet=fleet(l4=1),
    manifests=sold(manifests(service("chat", "replicas: 4\nmaxReplicas: 8"))),
    script=_never,
    final={CHAT_SERVICE: {"status.ready": 2}},
    events={"l4": frozenset({"NodesOrdered", "NodesNotReady"})},
    config=config(),
    market=market(never=(POOL,)),
    converges=False,
)


# ------------------------------------------------------------------------------------------------ within the budget


async def _budget(stage: Stage) -> None:
    await stage.until(lambda seen: seen.ready(CHAT) == 4, 120, "one more node is all the budget gives")
    await stage.seconds(30)
    assert len(stage.karpenter.orders) == 1
    assert stage.seen.ready(CHAT) == 4


BUDGET = Scenario(
    name="a budget for one node",
    fleet=fleet(l4=1),
    manifests=sold(manifests(service("chat", "replicas: 8\nmaxReplicas: 8"))),
    script=_budget,
    final={CHAT_SERVICE: {"status.ready": 4}},
    actions={"Provision": 1},
    config=config(max_dollars_per_hour=2.5),  # a node of two L4s is $1.61/h
    market=market(),
)


# ------------------------------------------------------------------------- the cluster autoscaler instead of Karpenter


async def _requested(stage: Stage) -> None:
    await stage.until(lambda _: bool(stage.karpenter.orders), 30, "a node is asked for")
    (asked,) = await orders(stage, PROVISIONING_REQUEST)
    assert asked["spec"]["provisioningClassName"].startswith("best-effort-atomic-scale-up")
    assert asked["spec"]["podSets"] == [{"podTemplateRef": {"name": f"plimsoll-{POOL}-1"}, "count": 1}]
    await stage.until(lambda seen: seen.ready(CHAT) == 4, 90, "it came, and is used")
    await stage.seconds(20)
    assert len(stage.karpenter.orders) == 1
    assert not await orders(stage, PROVISIONING_REQUEST), "what was fulfilled is tidied away"


REQUESTED = Scenario(
    name="a node by ProvisioningRequest",
    fleet=fleet(l4=1),
    manifests=sold(manifests(service("chat", "replicas: 4\nmaxReplicas: 4"))),
    script=_requested,
    final={CHAT_SERVICE: {"status.ready": 4, "conditions.Planned.message": re.compile("4 L4x1")}},
    actions={"Provision": 1},
    config=config(provisioner="provisioningRequest", booking_seconds=30.0, namespace="default"),
    market=market(requests=True),
)


# ------------------------------------------------------------------------------------------- bought, as it converges


async def _stays(stage: Stage) -> None:
    await stage.until(lambda seen: seen.ready(CHAT) == 4, 150, "four replicas on two nodes")
    assert len(stage.karpenter.orders) == 1, f"ordered twice: {stage.karpenter.orders}"


STAYS = Scenario(
    name="a node is bought",
    fleet=fleet(l4=1),
    manifests=sold(manifests(service("chat", "replicas: 4\nmaxReplicas: 4"))),
    script=_stays,
    final={CHAT_SERVICE: {"status.phase": "Serving", "status.ready": 4}},
    actions={"Provision": 1},
    config=config(),
    market=market(),
)

ALL = [BOUGHT, NEVER, BUDGET, REQUESTED, STAYS]
