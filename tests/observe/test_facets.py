"""Machines whose boards are partitioned into slices of several sizes: each size is a node of the model, on one machine."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster import actions as act
from cluster.codec import to_json
from cluster.hardware import Offer, Slot
from cluster.launch import EngineLaunch
from cluster.overlay import Overlay
from cluster.serving import Variant
from controller.actor.pods import replica_pod
from controller.observe import labels
from controller.observe.facets import other_classes
from controller.resources.podpart import Wish
from policies.place.priced_fgd import PricedFgd
from tests.observe import objects as made
from tests.observe.objects import MODEL, Play, pod
from tests.policies.builders import a_cluster, context

ONE, THREE = "nvidia.com/mig-1g.10gb", "nvidia.com/mig-3g.40gb"
BOARD = "NVIDIA-A100-SXM4-80GB"
MARKS = {"nvidia.com/mig-1g.10gb.product": f"{BOARD}-MIG-1g.10gb", "nvidia.com/mig-3g.40gb.product": f"{BOARD}-MIG-3g.40gb"}  # fmt: skip
SMALL = made.accelerator(
    "a100-1g", "A100-1g", aliases=[f"{BOARD}-MIG-1g.10gb"], sharing="mig", resourceName=ONE
)
LARGE = made.accelerator(
    "a100-3g", "A100-3g", aliases=[f"{BOARD}-MIG-3g.40gb"], sharing="mig", resourceName=THREE
)
PART = "n1/A100-3g"


def mixed(ones: int = 4, threes: int = 1, **more: Any) -> Any:
    """A machine that offers so many slices of each size."""
    offered = {ONE: str(ones), THREE: str(threes)}
    capacity = more.pop("capacity", offered)
    marks = MARKS | more.pop("labels", {})
    return made.node(product="", gpus=0, labels=marks, allocatable=offered, capacity=capacity, **more)


def engine(name: str, product: str, *devices: int, **more: Any) -> Any:
    launch = EngineLaunch(
        service="shop/chat",
        model=MODEL,
        variant=Variant(accelerator=product),
        pool=f"{product.lower()}-od",
        ordinal=1,
        devices=devices,
    )
    meta = {"labels": {labels.SERVICE: "chat"}, "annotations": {labels.LAUNCH: to_json(launch).decode()}}
    return pod(name, metadata=meta, gpus=0, **more)


def theirs(name: str, resource: str, count: int) -> Any:
    limits = {"resources": {"limits": {resource: str(count)}}}
    return pod(name, gpus=0, spec={"containers": [{"name": "c", **limits}]})


def of_both(name: str, ones: int, threes: int) -> Any:
    """Somebody else's pod with two containers, each with slices of one size and 2 CPUs."""
    wants = ({ONE: str(ones), "cpu": "2"}, {THREE: str(threes), "cpu": "2"})
    limits = [{"name": f"c{i}", "resources": {"limits": each}} for i, each in enumerate(wants)]
    return pod(name, gpus=0, spec={"containers": limits})


def free(play: Play) -> dict[str, list[int]]:
    space = Overlay(play.observer.snapshot(play.now)).space
    return {name: space.free_devices(name) for name in sorted(play.live("nodes"))}


def test_each_size_is_a_node_of_its_own_class_and_pool() -> None:
    play = Play(SMALL, LARGE, mixed())
    nodes = play.live("nodes")
    assert {name: (n.accelerator, n.pool, len(n.devices), n.machine) for name, n in nodes.items()} == {
        "n1": ("A100-1g", "a100-1g-od", 4, "n1"),
        PART: ("A100-3g", "a100-3g-od", 1, "n1"),
    }
    assert len({d.uuid for n in nodes.values() for d in n.devices}) == 5
    assert play.tell(mixed()) is False, "nothing is new"


def test_pods_hold_slices_of_their_own_size() -> None:
    play = Play(SMALL, LARGE, mixed())
    play.tell(engine("a", "A100-1g", 0), engine("b", "A100-3g", 0))
    assert free(play) == {"n1": [1, 2, 3], PART: []}
    assert play.live("launchers")["shop/b"].slots[0].node == PART
    assert play.live("nodes")["n1"].accelerator == "A100-1g", "what runs on a part says nothing of the rest"
    play.gone("Pod", "shop/b")
    assert free(play) == {"n1": [1, 2, 3], PART: [0]}


@pytest.mark.parametrize(
    ("pods", "left"),
    [
        pytest.param([(ONE, 3)], (1, 1), id="of the first size"),
        pytest.param([(THREE, 1)], (4, 0), id="of the other"),
        pytest.param([(ONE, 2), (THREE, 1)], (2, 0), id="of both"),
    ],
)
def test_other_peoples_slices_count_in_their_own_size(
    pods: list[tuple[str, int]], left: tuple[int, int]
) -> None:
    play = Play(
        SMALL, LARGE, mixed(), *(theirs(f"p{i}", name, count) for i, (name, count) in enumerate(pods))
    )
    assert tuple(len(found) for found in free(play).values()) == left


def test_a_pod_of_somebody_elses_with_slices_of_two_sizes_counts_in_both() -> None:
    play = Play(SMALL, LARGE, mixed(threes=2), of_both("p", 3, 1))
    assert {name: len(found) for name, found in free(play).items()} == {"n1": 1, PART: 1}
    space = Overlay(play.observer.snapshot(play.now)).space
    assert {space.free_cpu_millis(name) for name in ("n1", PART)} == {8_000 - 4_000}, "once, not twice"
    assert play.world.workloads.gpus_used("n1") == 4
    assert play.tell(of_both("p", 3, 1)) is False, "nothing is new"
    play.tell(mixed(threes=1, capacity={ONE: "4", THREE: "2"}))
    assert free(play)[PART] == [], "what it has of the second size is not given to another"
    assert "Node/n1/A100-3g" not in play.live("claims")
    play.tell(of_both("p", 3, 0))
    assert {name: len(found) for name, found in free(play).items()} == {"n1": 1, PART: 1}
    play.tell(of_both("p", 3, 1))
    play.gone("Pod", "shop/p")
    assert play.live("claims") == {}


def test_a_size_that_is_offered_less_keeps_what_runs_and_gives_nothing_more() -> None:
    play = Play(SMALL, LARGE, mixed(threes=2))
    play.tell(engine("a", "A100-3g", 0))
    play.tell(mixed(threes=1, capacity={ONE: "4", THREE: "2"}))
    assert free(play)[PART] == []
    assert [d.healthy for d in play.live("nodes")[PART].devices] == [True, False]
    play.tell(mixed(threes=0, capacity={ONE: "4", THREE: "2"}))
    assert "Node/n1/A100-3g" in play.live("claims"), "what comes free is nobody's"
    assert "shop/a" in play.live("claims")


def test_parts_come_and_go_with_the_machine_its_slices_and_their_classes() -> None:
    play = Play(SMALL, mixed())
    assert sorted(play.live("nodes")) == ["n1"]
    assert play.tell(LARGE)
    assert sorted(play.live("nodes")) == ["n1", PART]
    play.tell(mixed(spec={"unschedulable": True}))
    assert {n.offer for n in play.live("nodes").values()} == {Offer.CORDONED}
    play.tell(mixed(threes=0))
    assert sorted(play.live("nodes")) == ["n1"]
    play.tell(mixed())
    play.gone("Node", "n1")
    assert play.live("nodes") == {}
    assert not play.world.machines.parts("n1")


def test_two_classes_of_one_resource_are_told_apart_by_label_or_not_at_all() -> None:
    other = made.accelerator(
        "h100-3g", "H100-3g", aliases=["NVIDIA-H100-MIG-3g.40gb"], sharing="mig", resourceName=THREE
    )
    assert sorted(Play(SMALL, LARGE, other, mixed()).live("nodes")) == ["n1", PART]
    bare = made.node(product=f"{BOARD}-MIG-1g.10gb", gpus=0, allocatable={ONE: "4", THREE: "1"})
    play = Play(SMALL, LARGE, other, bare)
    assert sorted(play.live("nodes")) == ["n1"]
    assert other_classes(bare, "A100-1g", play.world.classes) == []


def test_cpu_and_memory_are_the_machines() -> None:
    play = Play(SMALL, LARGE, mixed())
    heavy = {"containers": [{"name": "c", "resources": {"requests": {"cpu": "5", "memory": "60Gi"}}}]}
    play.tell(engine("a", "A100-1g", 0, spec=heavy))
    space = Overlay(play.observer.snapshot(play.now)).space
    assert {space.free_cpu_millis(name) for name in ("n1", PART)} == {3_000}
    assert {space.free_memory_bytes(name) for name in ("n1", PART)} == {4 * 2**30}


def test_both_sizes_are_placed_and_asked_for_by_their_own_resource_on_the_machine() -> None:
    play = Play(SMALL, LARGE, mixed(), made.service())
    view = play.observer.snapshot(play.now)
    service = next(iter(view.services.values()))
    for product, node in (("A100-1g", "n1"), ("A100-3g", PART)):
        action = act.CreateReplica(
            service=service.name, name="shop/x", variant=Variant(accelerator=product), pool="p", ordinal=1,
            slots=(Slot(node=node, devices=(0,)),), reason=0,
        )  # fmt: skip
        made_pod = replica_pod(action, service, view.accelerators[product], Wish(), node=view.nodes[node])
        (term,) = made_pod["spec"]["affinity"]["nodeAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]["nodeSelectorTerms"]
        assert "n1" in str(term)
        assert PART not in str(term)
        limits = made_pod["spec"]["containers"][0]["resources"]["limits"]
        assert limits[view.accelerators[product].resource_name] == "1"
        assert len([name for name in limits if name.startswith("nvidia.com/")]) == 1


def test_a_plan_takes_no_more_cpu_of_a_machine_than_it_has_over_all_its_parts() -> None:
    made_cluster = a_cluster().with_pool("l4-od", "L4", 1.0).with_pool("a10g-od", "A10G", 1.0)
    made_cluster.with_nodes(1, "l4-od", gpus=4, cpu_millis=4_000)
    made_cluster.with_nodes(1, "a10g-od", gpus=4, cpu_millis=4_000)
    made_cluster.changing("nodes", "a10g-od-0", host="l4-od-0")
    for name, product, pool in (("shop/a", "L4", "l4-od"), ("shop/b", "A10G", "a10g-od")):
        made_cluster.with_service(name, product, cpu_millis=1_500)
        made_cluster.with_capacity(name, 0.0, (product, pool, 2), owner="user")
    policy = PricedFgd()
    plan = policy.decide(made_cluster.build(), policy.initial(), context(loop="place")).plan
    assert len([a for a in plan.actions if isinstance(a, act.CreateReplica)]) == 2


def test_a_bought_machine_is_kept_while_one_of_its_parts_is_used() -> None:
    cluster = a_cluster().with_pool("l4-od", "L4", 1.0).with_pool("a10g-od", "A10G", 1.0)
    cluster.with_nodes(1, "l4-od", gpus=1, bought=True).with_nodes(1, "a10g-od", gpus=1)
    cluster.changing("nodes", "a10g-od-0", host="l4-od-0")
    busy = cluster.with_claim("other/p", "a10g-od-0", 0).build()
    policy = PricedFgd()
    state = msgspec.structs.replace(policy.initial(), idle={"l4-od-0": 0.0})
    for view, back in ((busy, 0), (msgspec.structs.replace(busy, claims={}), 1)):
        plan = policy.decide(view, state, context(loop="place")).plan
        assert len([a for a in plan.actions if isinstance(a, act.ReleaseNode)]) == back
