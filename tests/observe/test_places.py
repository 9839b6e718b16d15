"""Where a node is and what it has, by the labels of Topograph, feature discovery and the cloud."""

from __future__ import annotations

import pytest

from cluster.hardware import Offer
from controller.hub.messages import InventorySeen
from controller.observe import intents
from controller.observe.fabric import island_of, place_of
from controller.observe.nodes import NodeFacts, node
from controller.observe.recognise import recognise
from controller.observe.seating import Beside
from tests.observe import objects as made
from tests.observe.objects import device, inventory, nic

OLD = "network.topology.nvidia.com/"
NEW = "fabric.topograph.run/tier-"
ZONE = "topology.kubernetes.io/zone"


@pytest.mark.parametrize(
    ("marks", "topology", "fabric"),
    [
        pytest.param({}, (), "", id="no label at all"),
        pytest.param({NEW + "0": "leaf7", NEW + "1": "spine2", NEW + "2": "core"}, ("core", "spine2", "leaf7"), "core",
                     id="Topograph's tiers, 0 the closest"),
        pytest.param({NEW + "10": "top", NEW + "2": "low"}, ("top", "low"), "top", id="by number, not by text"),
        pytest.param({OLD + "block": "b", OLD + "spine": "s", OLD + "datacenter": "d", OLD + "accelerator": "nvl1"},
                     ("d", "s", "b", "nvl1"), "d", id="its older names"),
        pytest.param({OLD + "block": "b", NEW + "0": "leaf"}, ("leaf",), "leaf", id="the newer ones where both are"),
        pytest.param({ZONE: "z", OLD + "spine": "s", "accelerator.topograph.run/domain": "d",
                      "accelerator.topograph.run/sub-domain": "d1"}, ("z", "s", "d", "d1"), "s", id="zone, fabric, NVLink domain"),
        pytest.param({"topology.kubernetes.io/block": "b", "topology.kubernetes.io/rack": "r", "nvidia.com/gpu.clique": "u.1"},
                     ("b", "r", "u.1"), "", id="by hand, and the clique that feature discovery saw"),
        pytest.param({NEW + "0": "", NEW + "x": "y"}, (), "", id="labels without a value or a number"),
    ],
)  # fmt: skip
def test_a_place_in_the_network(marks: dict[str, str], topology: tuple[str, ...], fabric: str) -> None:
    assert place_of(marks) == (topology, fabric)


@pytest.mark.parametrize(
    ("marks", "fabric", "island"),
    [
        pytest.param({}, "", "", id="nobody says"),
        pytest.param({}, "core", "core/roce", id="one fabric of one kind of NIC"),
        pytest.param({"plimsoll.dev/island": "mine"}, "core", "mine", id="as it is labelled"),
    ],
)
def test_an_island(marks: dict[str, str], fabric: str, island: str) -> None:
    assert island_of(marks, fabric, "roce") == island


WHOLE = intents.accelerator(made.accelerator("a100", "A100", aliases=["NVIDIA-A100-SXM4-80GB"]))[0]
SLICE = intents.accelerator(
    made.accelerator("a100-1g", "A100-1g", aliases=["NVIDIA-A100-SXM4-80GB-MIG-1g.10gb"], sharing="mig",
                     resourceName="nvidia.com/mig-1g.10gb")
)[0]  # fmt: skip
L4 = intents.accelerator(made.accelerator())[0]
SHARED = intents.accelerator(
    made.accelerator("l4-shared", "L4-shared", aliases=["NVIDIA-L4-SHARED"], sharing="timeSlicing")
)[0]
CLASSES = {each.name: each for each in (WHOLE, SLICE, L4, SHARED)}
BOARD = "NVIDIA-A100-SXM4-80GB"
BOARDS = inventory(device(0, product="NVIDIA A100-SXM4-80GB"))
MIXED = {"nvidia.com/mig-1g.10gb.product": BOARD + "-MIG-1g.10gb"}
TIMES = {"nvidia.com/gpu.replicas": "4", "nvidia.com/gpu.sharing-strategy": "time-slicing"}


@pytest.mark.parametrize(
    ("obj", "found", "accelerator", "closed"),
    [
        pytest.param(made.node(product=BOARD), None, "A100", "", id="whole boards"),
        pytest.param(made.node(product=""), BOARDS, "A100", "", id="as the driver writes it, with spaces"),
        pytest.param(made.node(product=BOARD), BOARDS, "A100", "", id="label and driver, each in its own writing"),
        pytest.param(made.node(product=BOARD, gpus=0, labels=MIXED, allocatable={"nvidia.com/mig-1g.10gb": "7"}), BOARDS,
                     "A100-1g", "", id="mixed MIG: what the node offers decides"),
        pytest.param(made.node(product=BOARD, gpus=3, labels=MIXED, allocatable={"nvidia.com/mig-1g.10gb": "7"}), BOARDS,
                     "A100", "", id="mixed MIG with whole boards left: those"),
        pytest.param(made.node(product=BOARD + "-MIG-1g.10gb", gpus=7), None, "A100-1g", "", id="single MIG, as its alias says"),
        pytest.param(made.node(product="NVIDIA-L4-SHARED", labels=TIMES, gpus=16), None, "L4-shared", "", id="time-sliced, as allowed"),
        pytest.param(made.node(product="NVIDIA-L4", labels=TIMES, gpus=16), None, "L4",
                     "each of its GPUs is offered 4 times (time-slicing), which AcceleratorClass L4 does not allow (sharing: none)",
                     id="time-sliced, and the class has it whole"),
        pytest.param(made.node(product="NVIDIA-L4", labels={**TIMES, "nvidia.com/gpu.replicas": "many"}), None, "L4", "",
                     id="an unreadable number of replicas is none"),
        pytest.param(made.node(product="", gpus=0, allocatable={"nvidia.com/mig-1g.10gb": "7"}), None, "A100-1g", "",
                     id="unlabelled, and one class alone has that resource"),
    ],
)  # fmt: skip
def test_a_product_is_recognised_as_it_is_shared(
    obj: made.core.Node, found: InventorySeen | None, accelerator: str, closed: str
) -> None:
    known = recognise(obj, found, CLASSES)
    assert (known.accelerator, known.closed, known.mismatch) == (accelerator, closed, "")


def facts(obj: made.core.Node, found: InventorySeen | None = None, **beside: str) -> NodeFacts:
    return node(obj, found, CLASSES, {}, domain="", silent=False, seed=1, beside=Beside(**beside))  # type: ignore[arg-type]


def test_slices_of_a_class_that_has_them_whole_take_nothing_new() -> None:
    found = facts(made.node(product="NVIDIA-L4", labels=TIMES, gpus=16))
    assert found.node is not None
    assert found.node.offer is Offer.CORDONED
    assert "sharing: none" in found.closed


def test_a_relabelled_node_stays_what_its_driver_says() -> None:
    found = facts(made.node(product=BOARD, gpus=1), inventory(device(0)))
    assert found.node is not None
    assert (found.node.accelerator, found.node.offer, found.closed) == ("L4", Offer.OPEN, "")
    assert found.mismatch == (
        f"label nvidia.com/gpu.product says {BOARD} (A100), the driver says NVIDIA-L4 (L4): the driver is believed"
    )


@pytest.mark.parametrize("label", [BOARD, "Tesla-X", ""])
def test_a_relabelled_node_without_an_agent_stays_what_runs_there_and_takes_nothing_new(label: str) -> None:
    found = facts(made.node(product=label), in_use="L4")
    assert found.node is not None
    assert (found.node.accelerator, found.node.offer) == ("L4", Offer.CORDONED)
    assert "pods placed for L4 run on it" in found.closed
    assert facts(made.node(product=BOARD)).node.accelerator == "A100"  # type: ignore[union-attr] - when they have gone


def test_a_resource_that_two_classes_claim_is_told_and_not_guessed() -> None:
    other = intents.accelerator(
        made.accelerator(
            "a30-1g", "A30-1g", aliases=["A30"], sharing="mig", resourceName="nvidia.com/mig-1g.10gb"
        )
    )[0]
    obj = made.node(product="", gpus=0, allocatable={"nvidia.com/mig-1g.10gb": "7"})
    found = node(obj, None, {**CLASSES, "A30-1g": other}, {}, domain="", silent=False, seed=1)
    assert (found.node, found.gpus) == (None, 7)
    assert "could be of AcceleratorClasses A100-1g, A30-1g" in found.unknown_product


def test_without_its_rdma_resource_a_node_has_ethernet_for_pods() -> None:
    with_rdma = {"rdma": {"resourceName": "rdma/hca"}}
    ours = intents.accelerator(made.accelerator(**with_rdma))[0]
    found = inventory(device(0), nics=(nic("ib0", "infiniband"),))
    for offered, link in (("4", "infiniband"), ("0", "ethernet")):
        obj = made.node(gpus=1, allocatable={"rdma/hca": offered})
        noun = node(obj, found, {"L4": ours}, {}, domain="", silent=False, seed=1).node
        assert noun is not None
        assert (noun.link, noun.rdma_devices) == (link, int(offered))


def test_a_node_of_slices_may_carry_the_taint_of_whole_gpus() -> None:
    taint = {"taints": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}]}
    obj = made.node(product="", gpus=0, allocatable={"nvidia.com/mig-1g.10gb": "7"}, spec=taint)
    found = facts(obj)
    assert found.node is not None
    assert (found.node.accelerator, found.node.taints, found.closed) == ("A100-1g", (), "")
