"""Nodes with what their agents found, as nouns."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.base import Ref
from cluster.hardware import Device, Market, Nic, Node, Offer, Pool
from cluster.seeds import stable_hash
from controller.hub.messages import InventorySeen
from controller.observe import intents, labels
from controller.observe.nodes import NodeFacts, node
from controller.observe.recognise import product_names
from controller.resources import core
from tests.observe import objects as made
from tests.observe.objects import device, inventory, nic

CLASSES = {name: intents.accelerator(made.accelerator(name.lower(), name))[0] for name in ("L4", "H100")}
POOLS = {"l4-od": Pool(name="l4-od", accelerator="L4", dollars_per_gpu_hour=0.8)}


def facts(
    obj: core.Node, found: InventorySeen | None = None, *, silent: bool = False, **more: Any
) -> NodeFacts:
    given: dict[str, Any] = {"classes": CLASSES, "pools": POOLS, **more}
    return node(obj, found, given["classes"], given["pools"], domain="row", silent=silent, seed=7)


def projected(obj: core.Node, found: InventorySeen | None = None, **more: Any) -> Node:
    noun = facts(obj, found, **more).node
    assert noun is not None
    return noun


def test_a_whole_node() -> None:
    obj = made.node(
        labels={
            labels.ISLAND: "ib-1",
            labels.ZONE: "z1",
            labels.RACK: "r9",
            labels.BLOCK: "b2",
            labels.POOL: "l4-od",
        }
    )
    found = inventory(device(1), device(0), nics=(nic("ib0", "infiniband", numa=-1), nic("eth1", up=False)))
    assert projected(obj, found) == Node(
        ref=Ref("Node", "n1", "uid-n1"),
        pool="l4-od",
        accelerator="L4",
        devices=(
            Device(uuid="GPU-0", index=0),
            Device(uuid="GPU-1", index=1),
        ),
        nics=(
            Nic(name="ib0", link="infiniband", rate_bits_per_second=25 * 10**9, gid_types=("RoCE v2",), subnet="10.0.0.0/24"),
        ),
        cpu_millis=8_000,
        memory_bytes=64 * 2**30,
        dram_cache_bytes=7,
        nvme_bytes=9,
        island="ib-1",
        topology=("z1", "b2", "r9"),
        power_domain="row",
        offer=Offer.OPEN,
        order=stable_hash(7, "n1") >> 16,
    )  # fmt: skip


def test_while_no_agent_has_reported_the_kubelet_is_believed() -> None:
    noun = projected(made.node(gpus=2))
    assert noun.devices == (Device(uuid="n1-0", index=0), Device(uuid="n1-1", index=1))
    assert (noun.nics, noun.dram_cache_bytes, noun.nvme_bytes, noun.topology, noun.island) == (
        (),
        0,
        0,
        (),
        "",
    )


def test_an_agent_without_devices_is_not_believed_against_the_kubelet() -> None:
    assert len(projected(made.node(gpus=2), inventory()).devices) == 2


@pytest.mark.parametrize(
    ("offered", "unhealthy", "usable"),
    [
        pytest.param(4, (), [0, 1, 2, 3], id="all of them"),
        pytest.param(4, (2,), [0, 1, 3], id="the driver sees a fault before the kubelet does"),
        pytest.param(3, (2,), [0, 1, 3], id="both know of the fault"),
        pytest.param(2, (), [0, 1], id="the kubelet offers fewer than there are"),
        pytest.param(0, (), [], id="the kubelet offers none"),
        pytest.param(9, (), [0, 1, 2, 3], id="the kubelet offers more than there are"),
    ],
)
def test_a_device_is_usable_when_healthy_and_offered(
    offered: int, unhealthy: tuple[int, ...], usable: list[int]
) -> None:
    found = inventory(*(device(i, healthy=i not in unhealthy) for i in range(4)))
    noun = projected(made.node(gpus=offered), found)
    assert [d.index for d in noun.devices if d.healthy] == usable
    assert [d.index for d in noun.devices] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("obj", "found", "accelerator"),
    [
        pytest.param(made.node(product="L4"), None, "L4", id="by its name"),
        pytest.param(made.node(product="NVIDIA-H100"), None, "H100", id="by an alias"),
        pytest.param(made.node(product="h100"), None, "H100", id="by the object's name"),
        pytest.param(made.node(product=""), inventory(device(0)), "L4", id="by what the driver says where there is no label"),
        pytest.param(made.node(product="NVIDIA-H100"), inventory(device(0)), "L4", id="by the driver before a label, which anybody can write"),
    ],
)  # fmt: skip
def test_a_product_is_recognised(obj: core.Node, found: InventorySeen | None, accelerator: str) -> None:
    assert projected(obj, found).accelerator == accelerator


@pytest.mark.parametrize(
    ("obj", "found", "product", "gpus"),
    [
        pytest.param(made.node(product="NVIDIA-B300", gpus=8), None, "NVIDIA-B300", 8, id="a product nobody described"),
        pytest.param(made.node(product="", gpus=8), None, "unlabelled", 8, id="GPUs of a node without a label"),
        pytest.param(made.node(product="NVIDIA-B300", gpus=0), None, "NVIDIA-B300", 0, id="a label without GPUs"),
        pytest.param(made.node(product="", gpus=2), inventory(device(0, product="Tesla X")), "Tesla X", 2, id="a driver's unknown product"),
        pytest.param(made.node(product="", gpus=0), None, "", 0, id="a node without GPUs is nothing to us"),
        pytest.param(made.node(product="", gpus="lots"), None, "", 0, id="an unreadable number of GPUs is none"),
    ],
)  # fmt: skip
def test_an_unknown_product_is_told_not_guessed(
    obj: core.Node, found: InventorySeen | None, product: str, gpus: int
) -> None:
    assert facts(obj, found) == NodeFacts(None, product, gpus)


def test_without_any_class_nvidias_resource_is_looked_at() -> None:
    assert facts(made.node(gpus=3, product="X"), classes={}) == NodeFacts(None, "X", 3)


def test_a_product_of_another_resource_counts_its_own_devices() -> None:
    other = intents.accelerator(made.accelerator("mi300", "MI300", resourceName="amd.com/gpu"))[0]
    obj = made.node(product="MI300", gpus=0, allocatable={"amd.com/gpu": "8"})
    assert len(projected(obj, classes={"MI300": other}).devices) == 8
    unknown = made.node(product="?", gpus=0, allocatable={"amd.com/gpu": "8"})
    assert facts(unknown, classes={"MI300": other}).gpus == 8


def test_two_classes_of_one_alias_resolve_the_same_way_each_time() -> None:
    twice = {
        name: intents.accelerator(made.accelerator(name.lower(), name, aliases=["GPU"]))[0]
        for name in ("B", "A")
    }
    assert product_names(twice)["GPU"] == product_names(dict(reversed(twice.items())))["GPU"] == "B"
    assert product_names(twice)["A"] == "A"


def pool(name: str, accelerator: str = "L4", market: Market = Market.ON_DEMAND) -> Pool:
    return Pool(name=name, accelerator=accelerator, market=market, dollars_per_gpu_hour=1.0)


@pytest.mark.parametrize(
    ("marks", "pools", "chosen"),
    [
        pytest.param({labels.POOL: "mine"}, (pool("a"), pool("mine")), "mine", id="the pool its label names"),
        pytest.param({labels.POOL: "gone"}, (pool("b"), pool("a")), "a", id="a label of a pool nobody has"),
        pytest.param({}, (pool("h", "H100"), pool("b"), pool("a")), "a", id="the first of its product"),
        pytest.param({labels.CAPACITY_TYPE: "spot"}, (pool("a"), pool("s", market=Market.SPOT)), "s", id="the one of its market"),
        pytest.param({labels.CAPACITY_TYPE: "on-demand"}, (pool("a", market=Market.SPOT), pool("o")), "o", id="on demand"),
        pytest.param({}, (pool("a", market=Market.SPOT), pool("o")), "o", id="on demand where nothing is said"),
        pytest.param({labels.CAPACITY_TYPE: "spot"}, (pool("a"),), "a", id="any of its product where its market has none"),
        pytest.param({}, (pool("h", "H100"),), "", id="none of its product"),
    ],
)  # fmt: skip
def test_a_node_is_paid_for_from_a_pool(marks: dict[str, str], pools: tuple[Pool, ...], chosen: str) -> None:
    assert projected(made.node(labels=marks), pools={p.name: p for p in pools}).pool == chosen


TAINT = {"key": "maintenance", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("obj", "silent", "offer"),
    [
        pytest.param(made.node(), False, Offer.OPEN, id="a ready node"),
        pytest.param(made.node(), True, Offer.LOST, id="its agent is silent"),
        pytest.param(made.node(ready="False"), False, Offer.LOST, id="its kubelet is not ready"),
        pytest.param(made.node(ready="Unknown"), False, Offer.LOST, id="its kubelet is silent"),
        pytest.param(made.node(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), False, Offer.RECLAIMING, id="it is being deleted"),
        pytest.param(made.node(spec={"unschedulable": True}), False, Offer.CORDONED, id="the user cordoned it"),
        pytest.param(made.node(spec={"taints": [TAINT]}), False, Offer.OPEN, id="a taint keeps pods off it"),
        pytest.param(made.node(spec={"taints": [{"key": "x", "effect": "NoExecute"}]}), False, Offer.OPEN, id="a taint drives pods away"),
        pytest.param(made.node(spec={"taints": [{"key": "x", "effect": "PreferNoSchedule"}]}), False, Offer.OPEN, id="a taint that only prefers"),
        pytest.param(made.node(spec={"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}), False, Offer.OPEN, id="the taint of all GPU nodes"),
        pytest.param(made.node(ready="False", spec={"unschedulable": True}), False, Offer.LOST, id="lost counts before cordoned"),
        pytest.param(made.node(metadata={"deletionTimestamp": "x"}, spec={"unschedulable": True}), False, Offer.RECLAIMING, id="leaving counts before cordoned"),
    ],
)  # fmt: skip
def test_whether_a_node_takes_new_work(obj: core.Node, silent: bool, offer: Offer) -> None:
    assert projected(obj, silent=silent).offer is offer


def test_ties_are_drawn_from_the_seed_and_the_name() -> None:
    def order(seed: int, **metadata: str) -> int:
        noun = node(
            made.node(metadata=metadata), None, CLASSES, POOLS, domain="", silent=False, seed=seed
        ).node
        assert noun is not None
        return noun.order

    assert order(1, uid="u") == order(1, uid="v") == stable_hash(1, "n1") >> 16, (
        "a uid is the server's to draw"
    )
    assert order(1) != order(2)
    assert order(1) != order(1, name="n2")


@pytest.mark.parametrize(
    ("obj", "silent", "why"),
    [
        pytest.param(made.node(), False, "", id="open"),
        pytest.param(made.node(), True, "its agent is silent", id="silent"),
        pytest.param(made.node(spec={"unschedulable": True}), False, "it is cordoned", id="cordoned"),
        pytest.param(made.node(spec={"taints": [{"key": "dedicated", "value": "ml", "effect": "NoSchedule"}]}), False, "its taint dedicated=ml:NoSchedule is not tolerated", id="a taint with a value"),
        pytest.param(made.node(spec={"taints": [{"key": "nvidia.com/other", "effect": "NoSchedule"}]}), False, "its taint nvidia.com/other:NoSchedule is not tolerated", id="a taint of the vendor's that is not the resource's name"),
        pytest.param(made.node(spec={"taints": [{"key": "nvidia.com/gpu", "effect": "NoExecute"}]}), False, "", id="the taint of GPU nodes, whatever its effect"),
        pytest.param(made.node(ready="Unknown"), False, "its Ready condition is Unknown", id="its kubelet is silent"),
    ],
)  # fmt: skip
def test_why_a_node_takes_no_new_work_is_said_in_its_own_words(
    obj: core.Node, silent: bool, why: str
) -> None:
    found = node(obj, None, CLASSES, POOLS, domain="", silent=silent, seed=7)
    assert found.closed == why
    assert found.node is not None
    assert (found.node.offer is Offer.OPEN and not found.node.taints) is (why == "")
