"""What is said of devices: where API server and node disagree, with both numbers; what a class's nodes offer."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.reasons import render
from controller.observe import intents
from controller.observe.seats import LEFTOVER_SECONDS
from controller.resources.acceleratorclass import AcceleratorClass
from controller.telling.devices import agreement, disagreement_reasons, offered
from controller.telling.faults import faults_found
from controller.telling.memory import Sayings
from controller.telling.statuses import class_status
from tests.observe import objects as made
from tests.observe.objects import Play, device, engine_pod, inventory, nic, pod
from tests.observe.test_facets import LARGE, ONE, SMALL, THREE, mixed
from tests.observe.test_seating import hear, holders

COUNT, MEMORY, RDMA = (
    "nvidia.com/gpu.count",
    "nvidia.com/gpu.memory",
    "feature.node.kubernetes.io/rdma.capable",
)
WITH_RDMA = {"rdma": {"resourceName": "rdma/hca"}}
ROCE = (nic("r0", "roce"), nic("r1", "roce"))


def told(play: Play) -> str:
    found = agreement("n1", play.world)
    assert (found.status == "True") == (not disagreement_reasons(play.world))
    return found.message


def agent(play: Play, *healthy: bool, nics: tuple[Any, ...] = ()) -> Play:
    """Its agent finds devices, healthy or not."""
    found = inventory(*(device(i, healthy=fine) for i, fine in enumerate(healthy)), nics=nics)
    play.world.inventory("n1", found, play.now)
    play.tell()
    return play


def with_holders(play: Play, **more: Any) -> Play:
    hear(play, holders(**more))
    return play


@pytest.mark.parametrize(
    ("play", "message"),
    [
        pytest.param(Play(made.node()), "4 devices are offered and 4 are there.", id="they agree"),
        pytest.param(Play(made.node(product="X")), "No AcceleratorClass describes its GPUs.", id="of no class"),
        pytest.param(agent(Play(made.node(gpus=3)), True, True, True, True),
                     "The API server offers nvidia.com/gpu: 3, the node has 4 GPUs: 3 count.", id="fewer offered than there are"),
        pytest.param(agent(Play(made.node(gpus=1), engine_pod(devices=(0,)), engine_pod("chat-1", devices=(1,))), True, True),
                     "The API server offers nvidia.com/gpu: 1, the node has 2 GPUs: 1 count; all are in use, and the next 1"
                     " that come free are given to nobody.", id="fewer than are in use"),
        pytest.param(agent(Play(made.node()), True, True, False, True),
                     "The API server offers nvidia.com/gpu: 4, the driver calls 3 healthy: 3 count.", id="one is sick"),
        pytest.param(with_holders(Play(made.node()), offered=(0, 1, 3)),
                     "The API server offers nvidia.com/gpu: 4, its kubelet would give out 3.", id="the kubelet says otherwise"),
        pytest.param(agent(Play(made.node(labels={COUNT: "8"})), True, True, True, True),
                     "Its label nvidia.com/gpu.count says 8, the node has 4 GPUs: the node is believed.", id="a label of before"),
        pytest.param(Play(made.node(labels={MEMORY: "12288"})),
                     "Its label nvidia.com/gpu.memory says 12288 MiB, AcceleratorClass L4 has 24576 MiB: models may not fit;"
                     " correct the class or its aliases.", id="a board with half the memory"),
        pytest.param(Play(made.node(labels={MEMORY: "23034"})), "4 devices are offered and 4 are there.",
                     id="what the driver keeps of the memory is no difference"),
        pytest.param(agent(Play(made.node(gpus=1, labels={RDMA: "true"})), True),
                     "Its labels of node feature discovery say that it has RDMA, its agent finds 0 such ports that are up.",
                     id="no RDMA after all"),
        pytest.param(agent(Play(made.accelerator(**WITH_RDMA), made.node(gpus=1)), True, nics=ROCE),
                     "It has 2 RDMA ports that are up and offers 0 rdma/hca: gangs there talk over Ethernet.",
                     id="RDMA that pods cannot have"),
        pytest.param(Play(made.accelerator(sharing="mig", resourceName="nvidia.com/mig-1g.5gb"),
                          made.node(gpus=0, allocatable={"nvidia.com/mig-1g.5gb": "6"}, labels={"nvidia.com/mig-1g.5gb.count": "7"})),
                     "Its label nvidia.com/mig-1g.5gb.count says 7, 6 are offered: 6 count.", id="a slice less than was counted"),
        pytest.param(Play(made.accelerator(sharing="dra"), made.node(gpus=4)),
                     "0 devices are offered and 0 are there.", id="by claim, and nobody announces any"),
    ],
)  # fmt: skip
def test_both_numbers_are_said(play: Play, message: str) -> None:
    assert told(play) == message


def test_pods_that_only_the_kubelet_knows_are_said_with_what_they_hold() -> None:
    play = Play(made.node(), pod("gone"))
    hear(play, holders((1, "shop/gone"), (2, "shop/gone")))
    play.gone("Pod", "shop/gone")
    assert told(play) == "4 devices are offered and 4 are there."
    play.now += LEFTOVER_SECONDS
    hear(play, holders((1, "shop/gone"), (2, "shop/gone")), sequence=2)
    assert told(play) == (
        "Its kubelet says that 2 GPUs belong to 1 pods that the API server does not have, such as shop/gone: they count as"
        " taken."
    )


def test_a_disagreement_is_an_event_about_the_node() -> None:
    play = agent(Play(made.node(gpus=3)), True, True, True, True)
    (reason,) = [r for r in faults_found(play.observer, play.world, {}) if r.code == "DevicesDisagree"]
    assert (reason.subject.kind, reason.subject.name) == ("AcceleratorNode", "n1")
    assert render(reason).endswith("(3 GPU by the API server, 4 GPU by the node).")


@pytest.mark.parametrize(
    ("objects", "spec", "reason", "message"),
    [
        pytest.param((), {}, "NoNodes", "0 nodes have this product.", id="nobody has it"),
        pytest.param((made.node(),), {}, "Offered", "1 of 1 nodes offer it.", id="one offers it"),
        pytest.param((made.node(),), {"resourceName": "nvidia.com/gqu"}, "ResourceNotOffered",
                     "1 nodes have this product, 0 offer nvidia.com/gqu: correct spec.resourceName, or the device plugin or"
                     " driver on the nodes.", id="a resource that no node offers"),
        pytest.param((made.node(),), {"sharing": "dra"}, "ResourceNotOffered",
                     "1 nodes have this product, 0 offer ResourceSlices of gpu.nvidia.com: correct spec.resourceName, or the"
                     " device plugin or driver on the nodes.", id="a driver that announces nothing"),
        pytest.param((made.node(),), WITH_RDMA, "RdmaNotOffered",
                     "1 nodes have this product, 0 offer rdma/hca: gangs talk over Ethernet. Correct spec.rdma.resourceName.",
                     id="an RDMA resource that no node offers"),
        pytest.param((made.node(allocatable={"rdma/hca": "8"}), made.node("n2")), WITH_RDMA, "Offered",
                     "2 of 2 nodes offer it, 1 of them rdma/hca.", id="RDMA on some"),
    ],
)  # fmt: skip
def test_what_a_class_offers(
    objects: tuple[Any, ...], spec: dict[str, Any], reason: str, message: str
) -> None:
    play = Play(made.accelerator(**spec), *objects)
    snapshot = play.observer.snapshot(play.now)
    found = offered(snapshot.accelerators["L4"], list(snapshot.nodes.values()), 3)
    assert (found.reason, found.message, found.observed_generation) == (reason, message, 3)
    assert found.status == ("True" if reason == "Offered" else "False")


def test_a_class_counts_what_its_nodes_still_offer() -> None:
    eight = [engine_pod(f"chat-{i}", devices=(i,)) for i in range(8)]
    obj: AcceleratorClass = made.accelerator()
    play = Play(made.node(gpus=7, capacity={"nvidia.com/gpu": "8"}), *eight)
    status = class_status(obj, play.observer.snapshot(play.now), Sayings(), (), play.now)
    assert (status.nodes, status.gpus, status.free_gpus) == (1, 7, 0)
    assert intents.accelerator(obj)[0].name == "L4"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        pytest.param({}, "4 devices are offered and 4 are there. Of A100-3g 2 are offered and 2 are there.", id="both"),
        pytest.param({"threes": 1, "capacity": {ONE: "4", THREE: "2"}},
                     "4 devices are offered and 4 are there. Of A100-3g 1 are offered and 2 are there.", id="one is withheld"),
        pytest.param({"labels": {f"{THREE}.count": "3"}},
                     f"Its label {THREE}.count says 3, 2 are offered: 2 count. Of A100-3g 2 are offered and 2 are there.",
                     id="feature discovery counted another number"),
    ],
)  # fmt: skip
def test_a_machine_with_slices_of_two_sizes_tells_of_both(more: dict[str, Any], message: str) -> None:
    assert told(Play(SMALL, LARGE, mixed(**{"threes": 2, **more}))) == message
