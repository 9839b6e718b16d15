"""What pods get beside their container: GPUs by name or by claim, shared memory, RDMA and its networks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.actions import CreateReplica, StartGang
from cluster.base import Ref
from cluster.hardware import AcceleratorClass, Device, Nic, Node, Slot
from cluster.serving import Objective, Service, Variant
from cluster.training import Job, Layout
from controller.actor.equipment import GIB, NETWORKS, Share, claim_template, only, share_of, template_name
from controller.actor.pods import gang_pods, replica_pod
from controller.actor.templates import KNOWN_SECONDS, Templates
from controller.observe import intents
from controller.resources.coredra import CLAIM_TEMPLATE
from controller.resources.podpart import PodPart, Wish
from controller.store.embedded import open_store
from runtime.clock import VirtualClock
from tests.observe.objects import MODEL, SHAPE, accelerator
from tests.store.following import now

RDMA: dict[str, Any] = {"resourceName": "rdma/hca", "networks": ["ib0", "net/ib1"]}


def product(**spec: Any) -> AcceleratorClass:
    return intents.accelerator(accelerator(**spec))[0]


def node(ports: int = 4, offered: int = 4, link: str = "infiniband") -> Node:
    nics = tuple(Nic(name=f"p{i}", link=link, rate_bits_per_second=10) for i in range(ports))
    return Node(
        ref=Ref("Node", "n1"), pool="p", accelerator="L4", devices=(), nics=nics, rdma_devices=offered
    )


def replica(of: AcceleratorClass, gpus: int = 1, memory: int = 0, **part: Any) -> dict[str, Any]:
    variant = Variant(accelerator="L4", gpus=gpus, tensor=gpus)
    chat = Service(
        ref=Ref("ModelService", "shop/chat", "uid", 3), model=MODEL, variants=(variant,),
        objectives=(Objective(ttft_seconds=1.0, tpot_seconds=1.0),),
    )  # fmt: skip
    slot = Slot(node="n1", devices=tuple(range(gpus)), memory_bytes=memory)
    action = CreateReplica(
        service=chat.name, name="shop/chat-1", variant=variant, pool="p", ordinal=1, slots=(slot,), reason=0
    )
    return replica_pod(action, chat, of, Wish(pod=msgspec.convert(part, PodPart)))


def rank(
    of: AcceleratorClass, network: str = "infiniband", nodes: int = 2, at: Node | None = None, **part: Any
) -> dict[str, Any]:
    bert = Job(
        ref=Ref("TrainingJob", "lab/bert", "uid", 3), shape=SHAPE, steps=5, global_batch=4, micro_batch=1,
        min_nodes=nodes, max_nodes=nodes, gpus_per_node=2,
    )  # fmt: skip
    slots = tuple(Slot(node=f"n{i + 1}", devices=(0, 1)) for i in range(nodes))
    layout = Layout(tensor=1, pipeline=1, data=2 * nodes, micro_batch=1, slots=slots, network=network)
    action = StartGang(job=bert.ref, attempt=1, layout=layout, reason=0)
    wish = Wish(pod=msgspec.convert(part, PodPart))
    return gang_pods(action, bert, of, wish, 0, nodes={"n1": at or node()})[0]


def container(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


def shared_memory(pod: dict[str, Any]) -> int:
    """Bytes of the pod's own /dev/shm, 0 where it has none."""
    mounts = {m["name"]: m["mountPath"] for m in container(pod).get("volumeMounts", ())}
    for volume in pod["spec"].get("volumes", ()):
        if mounts.get(volume["name"]) == "/dev/shm" and volume["name"] == "plimsoll-shm":
            assert volume["emptyDir"]["medium"] == "Memory"
            return int(volume["emptyDir"]["sizeLimit"])
    return 0


@pytest.mark.parametrize(
    ("pod", "size"),
    [
        pytest.param(rank(product()), 4 * GIB, id="a rank of two GPUs: two GiB each"),
        pytest.param(replica(product(), gpus=4), 8 * GIB, id="an engine of four"),
        pytest.param(replica(product()), 0, id="an engine of one exchanges with nobody"),
        pytest.param(rank(product(sharedMemoryBytes=GIB)), GIB, id="as its class says"),
        pytest.param(replica(product(), gpus=4, memory=6 * GIB), 3 * GIB, id="within half of its memory limit"),
        pytest.param(rank(product(), volumes=[{"name": "own", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}],
                          volumeMounts=[{"name": "own", "mountPath": "/dev/shm/"}]), 0, id="its user mounts one"),
    ],
)  # fmt: skip
def test_shared_memory(pod: dict[str, Any], size: int) -> None:
    assert shared_memory(pod) == size


@pytest.mark.parametrize(
    ("pod", "asked"),
    [
        pytest.param(rank(product(rdma=RDMA)), 4, id="one for each RDMA port of its node"),
        pytest.param(rank(product(rdma=RDMA), at=node(offered=1)), 1, id="no more than the node offers"),
        pytest.param(rank(product(rdma={**RDMA, "count": 2})), 2, id="as many as its class says"),
        pytest.param(rank(product(rdma=RDMA), network="roce", at=node(link="roce")), 4, id="on RoCE too"),
        pytest.param(rank(product(rdma=RDMA), network="ethernet"), 0, id="a gang on Ethernet asks for none"),
        pytest.param(rank(product(rdma=RDMA), nodes=1), 0, id="a gang of one node talks to nobody outside"),
        pytest.param(rank(product()), 0, id="of a class that names none"),
        pytest.param(replica(product(rdma=RDMA), gpus=2), 0, id="an engine on one node"),
    ],
)
def test_rdma_networks_and_pinned_memory(pod: dict[str, Any], asked: int) -> None:
    limits, requests = (container(pod)["resources"][part] for part in ("limits", "requests"))
    assert limits.get("rdma/hca") == requests.get("rdma/hca") == (str(asked) if asked else None)
    capabilities = container(pod)["securityContext"]["capabilities"]
    assert capabilities == ({"drop": ["ALL"], "add": ["IPC_LOCK"]} if asked else {"drop": ["ALL"]})
    assert pod["metadata"]["annotations"].get(NETWORKS) == ("ib0,net/ib1" if asked else None)


def test_what_the_user_asks_for_stays_beside_it() -> None:
    wanted = {
        "annotations": {NETWORKS: "storage"}, "containerSecurityContext": {"capabilities": {"add": ["NET_BIND_SERVICE"]}},
    }  # fmt: skip
    pod = rank(product(rdma=RDMA), **wanted)
    assert container(pod)["securityContext"]["capabilities"]["add"] == ["IPC_LOCK", "NET_BIND_SERVICE"]
    assert pod["metadata"]["annotations"][NETWORKS] == "storage,ib0,net/ib1"


def test_without_pinned_memory_where_the_class_says_so() -> None:
    pod = rank(product(rdma={**RDMA, "ipcLock": False}))
    assert container(pod)["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container(pod)["resources"]["limits"]["rdma/hca"] == "4"


def test_gpus_by_claim_are_asked_for_by_no_name() -> None:
    of = product(sharing="dra", dra={"deviceClass": "gpu.example.com"})
    for pod, gpus, name in ((replica(of), 1, "chat-engines"), (rank(of), 2, "bert-ranks")):
        template = f"{name}-{gpus}-gpu.example.com"
        assert pod["spec"]["resourceClaims"] == [{"name": "gpus", "resourceClaimTemplateName": template}]
        assert container(pod)["resources"]["claims"] == [{"name": "gpus"}]
        assert "nvidia.com/gpu" not in container(pod)["resources"]["limits"]
        made = claim_template(pod, of, gpus)
        assert (made["metadata"]["name"], made["metadata"]["namespace"]) == (
            template,
            pod["metadata"]["namespace"],
        )
        assert made["metadata"]["ownerReferences"] == pod["metadata"]["ownerReferences"]
        exactly = made["spec"]["spec"]["devices"]["requests"][0]["exactly"]
        assert (exactly["deviceClassName"], exactly["count"]) == ("gpu.example.com", gpus)


@pytest.mark.parametrize(
    ("at", "slot", "asked"),
    [
        pytest.param({"memory": 24, "cores": 100}, Slot(node="n1", devices=(1,), milli_per_device=250),
                     Share(250, (("cores", 25), ("memory", 6)), "GPU-1"), id="a quarter of the second one"),
        pytest.param({"memory": 7}, Slot(node="n1", devices=(0,), milli_per_device=333),
                     Share(333, (("memory", 2),), "GPU-0"), id="rounded down: three of them fit"),
        pytest.param({"slots": 2}, Slot(node="n1", devices=(0,), milli_per_device=100),
                     Share(100, (("slots", 1),), "GPU-0"), id="but something"),
        pytest.param({"memory": 24}, Slot(node="n1", devices=(0,)), None, id="a whole one"),
    ],
)  # fmt: skip
def test_what_a_share_asks_for(at: dict[str, int], slot: Slot, asked: Share | None) -> None:
    devices = tuple(Device(uuid=f"GPU-{i}", index=i) for i in range(2))
    there = msgspec.structs.replace(node(), devices=devices, divisible=at)
    assert share_of(slot, there) == asked


def test_a_template_of_a_share_is_named_after_all_that_it_asks_for() -> None:
    of, pod = product(sharing="dra"), replica(product(sharing="dra"))
    one, other = Share(250, (("memory", 6),), "GPU-0"), Share(250, (("memory", 6),), "GPU-1")
    names = [template_name("chat-engines", of, 1, share) for share in (one, other, None)]
    assert len(set(names)) == 3
    assert names[0].startswith("chat-engines-250m-")
    exactly = claim_template(pod, of, 1, one)["spec"]["spec"]["devices"]["requests"][0]["exactly"]
    assert exactly["capacity"] == {"requests": {"memory": "6"}}
    assert [each["cel"]["expression"] for each in exactly["selectors"]] == [only("gpu.nvidia.com", "GPU-0")]
    anywhere = claim_template(pod, of, 1, one._replace(uuid=""))["spec"]["spec"]["devices"]["requests"][0][
        "exactly"
    ]
    assert "selectors" not in anywhere


def test_a_template_is_made_once_and_again_when_somebody_deletes_it() -> None:
    clock = VirtualClock(1_000.0)
    store = open_store(clock, namespaces=("default", "shop"))
    templates, of = Templates(store), product(sharing="dra")
    pod = replica(of)
    for at in (0.0, 1.0, 2.0):
        now(templates.ensure(pod, of, 1, at))
    assert store.requests["create", "ResourceClaimTemplate"] == 1
    name = pod["spec"]["resourceClaims"][0]["resourceClaimTemplateName"]
    now(store.delete(CLAIM_TEMPLATE, name, "shop"))
    for at in (3.0, KNOWN_SECONDS + 3.0, KNOWN_SECONDS + 4.0):
        now(templates.ensure(pod, of, 1, at))
    assert len(now(store.list(CLAIM_TEMPLATE, "shop")).raw_items) == 1
    now(Templates(store).ensure(pod, of, 1, 0.0))  # another operator finds it there
    now(templates.ensure(replica(product()), product(), 1, 0.0))  # and a pod without a claim needs none
    assert len(now(store.list(CLAIM_TEMPLATE, "shop")).raw_items) == 1
