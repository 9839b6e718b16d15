"""Shares of GPUs on a whole cluster: several replicas on one device, by claims of a part of it, and what is refused.

On the embedded store, which allocates no claims; tests/cluster/test_devices.py has the real scheduler do that.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cluster.codec import from_json
from cluster.launch import EngineLaunch
from controller.observe import labels
from controller.resources.coredra import CLAIM_TEMPLATE, RESOURCE_SLICE
from tests.observe.test_shares import PARTS
from tests.scenarios.plays_buying import POOL, config, market, sold
from tests.scenarios.plays_serving import settled
from tests.scenarios.props import fleet, manifests, service
from tests.scenarios.scenario import Scenario, play
from tests.scenarios.stage import Stage

CHAT, WHOLE, ODD = "shop/chat", "shop/whole", "shop/odd"
SMALL = "small, parameters: 500000000, layers: 24, hiddenSize: 1024, weightBytes: 1000000000, kvBytesPerToken: 49152"
QUARTERS = "variants: [{accelerator: l4, gpuMilli: 250}]\nreplicas: %d\nmaxReplicas: %d"


def announced(node: str, gpus: int) -> dict[str, object]:
    """What a DRA driver that divides devices would announce of a simulated node."""
    devices = [
        {
            "name": f"gpu-{i}",
            "attributes": {"uuid": {"string": f"GPU-{node}-{i}"}, "index": {"int": i}},
            **PARTS,
        }
        for i in range(gpus)
    ]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    return {
        "apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": f"{node}-gpus"},
        "spec": {"driver": "gpu.nvidia.com", "nodeName": node, "pool": pool, "devices": devices},
    }  # fmt: skip


def seats(stage: Stage, key: str) -> Counter[tuple[str, int]]:
    """Thousandths that a service's pods have, by node and device."""
    found: Counter[tuple[str, int]] = Counter()
    for pod in stage.seen.pods(key):
        launch = from_json(pod["metadata"]["annotations"][labels.LAUNCH], EngineLaunch)
        found[pod["spec"]["nodeName"], launch.devices[0]] += launch.variant.milli
    return found


async def _shares(stage: Stage) -> None:
    await stage.cluster.store.create(RESOURCE_SLICE, announced("l4-00", 2), field_manager="driver")
    shared = {"spec": {"sharing": "dra", "dra": {"shareCapacities": ["memory", "cores"]}}}
    await stage.patch("AcceleratorClass", "l4", shared)
    await stage.apply(service("chat", QUARTERS % (6, 6), model=SMALL))
    await stage.until(lambda _: settled(stage, CHAT, 6), 90, "six quarters on two GPUs")
    assert sorted(seats(stage, CHAT).values()) == [500, 1_000]
    for pod in stage.seen.pods(CHAT):
        assert "nvidia.com/gpu" not in pod["spec"]["containers"][0]["resources"].get("limits", {})
    stage.load(CHAT, 2.0, 5)
    await stage.until(lambda _: len(stage.traffic.ended("served")) == 10, 30, "they serve")
    await stage.apply(service("whole", "minReplicas: 1"))
    await stage.seconds(20)
    assert not stage.seen.pods(WHOLE), "no device is wholly free"
    await stage.scale(CHAT, 4)
    await stage.until(lambda _: settled(stage, CHAT, 4), 60, "two quarters go")
    await stage.apply(
        service("odd", "variants: [{accelerator: a10g, gpuMilli: 500}]", model=SMALL, on="a10g")
    )
    await stage.seconds(10)


SHARES = Scenario(
    name="replicas that share GPUs",
    fleet=fleet(l4=1, a10g=1),
    manifests=manifests(),
    script=_shares,
    final={
        f"ModelService/{CHAT}": {
            "status.phase": "Serving", "status.ready": 4, "status.gpus": 1, "status.mix": "4 L4x0.25-bf16",
            "status.costPerHour": 0.805,
        },
        f"ModelService/{ODD}": {"status.phase": "Refused", "conditions.Accepted.status": "False"},
    },
    events={CHAT: frozenset({"MixChosen", "ReplicaPlaced"})},
    never=frozenset({"ReplicaLost", "ReplicaStuck"}),
    converges=False,
)  # fmt: skip


def test_replicas_share_devices_and_leave_whole_ones_alone(tmp_path: Path) -> None:
    play(SHARES, tmp_path)


def test_a_claim_asks_for_its_part_of_the_device_that_was_chosen(tmp_path: Path) -> None:
    asked: list[dict[str, object]] = []

    async def script(stage: Stage) -> None:
        await stage.cluster.store.create(RESOURCE_SLICE, announced("l4-00", 2), field_manager="driver")
        shared = {"spec": {"sharing": "dra", "dra": {"shareCapacities": ["memory", "cores"]}}}
        await stage.patch("AcceleratorClass", "l4", shared)
        await stage.apply(service("chat", QUARTERS % (1, 1), model=SMALL))
        await stage.until(lambda _: settled(stage, CHAT, 1), 60, "one quarter")
        (pod,) = stage.seen.pods(CHAT)
        (claim,) = pod["spec"]["resourceClaims"]
        template = await stage.cluster.store.get(CLAIM_TEMPLATE, claim["resourceClaimTemplateName"], "shop")
        asked.extend(template["spec"]["spec"]["devices"]["requests"])

    play(
        Scenario(name="a quarter", fleet=fleet(l4=1), manifests=manifests(), script=script, converges=False),
        tmp_path,
    )
    (request,) = asked
    uuid = 'device.attributes["gpu.nvidia.com"]'
    assert request["exactly"] == {
        "deviceClassName": "gpu.nvidia.com", "allocationMode": "ExactCount", "count": 1,
        "capacity": {"requests": {"memory": str(6 * 2**30), "gpu.nvidia.com/cores": "25"}},
        "selectors": [{"cel": {"expression": f'!("uuid" in {uuid}) || {uuid}.uuid == "GPU-l4-00-0"'}}],
    }  # fmt: skip


async def _divided(stage: Stage, *nodes: str) -> None:
    """The driver announces the GPUs of these nodes, and L4s are given out in shares."""
    for node in nodes:
        await stage.cluster.store.create(RESOURCE_SLICE, announced(node, 2), field_manager="driver")
    shared = {"spec": {"sharing": "dra", "dra": {"shareCapacities": ["memory", "cores"]}}}
    await stage.patch("AcceleratorClass", "l4", shared)


async def _giving_way(stage: Stage) -> None:
    await _divided(stage, "l4-00")
    await stage.apply(service("chat", QUARTERS % (6, 6), model=SMALL))
    await stage.until(lambda _: settled(stage, CHAT, 6), 90, "six quarters on two GPUs")
    alone = next(device for device, milli in seats(stage, CHAT).items() if milli == 500)
    await stage.apply(service("whole", "replicas: 1\nmaxReplicas: 1", priority=5))
    await stage.until(
        lambda _: settled(stage, WHOLE, 1) and settled(stage, CHAT, 4), 120, "two quarters give way"
    )
    assert seats(stage, CHAT) == {next(d for d in [("l4-00", 0), ("l4-00", 1)] if d != alone): 1_000}
    halves = "variants: [{accelerator: l4, gpuMilli: 500}]\nreplicas: 1\nmaxReplicas: 1"
    await stage.apply(service("half", halves, model=SMALL, priority=3))
    await stage.until(
        lambda _: settled(stage, HALF, 1) and settled(stage, CHAT, 2), 120, "two more to a half"
    )
    assert settled(stage, WHOLE, 1), "nobody takes anything from the more important"
    await stage.seconds(15)


HALF = "shop/half"
GIVING_WAY = Scenario(
    name="shares give way to what is more important",
    fleet=fleet(l4=1),
    manifests=manifests(),
    script=_giving_way,
    final={
        f"ModelService/{CHAT}": {"status.ready": 2, "status.mix": "2 L4x0.25-bf16"},
        f"ModelService/{HALF}": {"status.phase": "Serving", "status.ready": 1},
        f"ModelService/{WHOLE}": {"status.phase": "Serving", "status.ready": 1},
    },
    actions={"Drain": 4},
    never=frozenset({"ReplicaLost", "ReplicaStuck"}),
    converges=False,
)


async def _bought(stage: Stage) -> None:
    await _divided(stage, "l4-00")
    await stage.apply(service("chat", QUARTERS % (8, 16), model=SMALL))
    await stage.until(lambda _: settled(stage, CHAT, 8), 90, "eight quarters fill the only node")
    await stage.seconds(5)
    assert not stage.karpenter.orders
    await stage.scale(CHAT, 14)
    await stage.until(lambda _: bool(stage.karpenter.orders), 30, "a node is ordered for six quarters")
    new = f"plimsoll-{POOL}-1-node"
    await stage.until(lambda seen: new in seen.objects["Node"], 60, "it came")
    await stage.seconds(10)
    assert len(stage.karpenter.orders) == 1, "it is not ordered again while its driver has yet to announce it"
    await stage.cluster.store.create(RESOURCE_SLICE, announced(new, 2), field_manager="driver")
    await stage.until(lambda _: settled(stage, CHAT, 14), 90, "all six are on it")
    assert sorted(milli for (node, _), milli in seats(stage, CHAT).items() if node == new) == [500, 1_000]
    assert len(stage.karpenter.orders) == 1
    await stage.scale(CHAT, 6)
    await stage.until(lambda _: settled(stage, CHAT, 6), 90, "eight go, the youngest first")
    await stage.until(lambda seen: new not in seen.objects["Node"], 90, "and the node is given back")


BOUGHT = Scenario(
    name="a node is bought for shares and given back",
    fleet=fleet(l4=1),
    manifests=sold(manifests()),
    script=_bought,
    final={f"ModelService/{CHAT}": {"status.phase": "Serving", "status.ready": 6}},
    actions={"Provision": 1, "ReleaseNode": 1},
    config=config(),
    market=market(),
    converges=False,
)


@pytest.mark.parametrize("scenario", [GIVING_WAY, BOUGHT], ids=lambda each: each.name)
def test_shares_are_treated_as_everybody_else(scenario: Scenario, tmp_path: Path) -> None:
    play(scenario, tmp_path)
