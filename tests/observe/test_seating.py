"""Who really has which device: kubelets' words, allocated claims and pods' requests as one account."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.space import Space
from controller.hub.messages import HolderSeen, HoldersSeen, NodeReport
from controller.observe.reports import fold_agent
from controller.observe.seats import LEFTOVER_SECONDS
from controller.resources.coredra import EXTENDED, ResourceClaim, ResourceSlice
from tests.observe import objects as made
from tests.observe.objects import NOW, Play, device, engine_pod, inventory, pod

GPU = "nvidia.com/gpu"


def slice_of(
    *numbers: int, node: str = "n1", generation: int = 1, name: str = "", **more: Any
) -> ResourceSlice:
    devices = [
        {"name": f"gpu-{i}", "attributes": {"uuid": {"string": f"GPU-{i}"}, "index": {"int": i}}, **more}
        for i in numbers
    ]
    spec = {
        "driver": "gpu.nvidia.com", "nodeName": node, "devices": devices,
        "pool": {"name": node, "generation": generation, "resourceSliceCount": 1},
    }  # fmt: skip
    return msgspec.convert({"metadata": {"name": name or f"{node}-slice"}, "spec": spec}, ResourceSlice)


def claim(
    *numbers: int,
    name: str = "c",
    pod: str = "",
    pool: str = "n1",
    notes: dict[str, str] | None = None,
    **more: Any,
) -> ResourceClaim:
    results = [
        {"request": "gpus", "driver": "gpu.nvidia.com", "pool": pool, "device": f"gpu-{i}", **more}
        for i in numbers
    ]
    used = [{"resource": "pods", "name": pod, "uid": f"uid-{pod}"}] if pod else []
    status = {"allocation": {"devices": {"results": results}}, "reservedFor": used} if numbers else {}
    meta = {"name": name, "namespace": "lab", "uid": f"uid-{name}", "annotations": notes or {}}
    return msgspec.convert({"metadata": meta, "status": status}, ResourceClaim)


def holders(
    *rows: tuple[int, str], resource: str = GPU, offered: tuple[int, ...] | None = None
) -> HoldersSeen:
    found = tuple(
        HolderSeen(device=i, device_id=f"GPU-{i}", pod=name, container="c", resource=resource)
        for i, name in rows
    )
    return HoldersSeen(rows=found, known=True, fault="", offered=offered)


def hear(play: Play, held: HoldersSeen, sequence: int = 1, gpus: int = 4, **more: Any) -> None:
    """The agent of n1 tells what it has and who holds it."""
    report = NodeReport(
        node="n1", tick=sequence, sequence=sequence, observed_seconds=play.now, delivered_seconds=play.now, boot_id="b",
        last_command_sequence=0, inventory=inventory(*(device(i) for i in range(gpus))), holders=held, **more,
    )  # fmt: skip
    fold_agent(play.world, report, play.now)
    play.tell()


def free(play: Play, name: str = "n1") -> list[int]:
    snapshot = play.observer.snapshot(play.now)
    return Space(snapshot.nodes, snapshot.claims.values()).free_devices(name)


def devices(play: Play, key: str) -> tuple[int, ...]:
    found: tuple[int, ...] = play.live("claims")[key].slot.devices
    return found


# claims of dynamic resource allocation


def test_a_gpu_that_a_claim_of_somebodys_has_is_not_free() -> None:
    play = Play(made.node(), slice_of(0, 1, 2, 3), claim(2))
    assert free(play) == [0, 1, 3]
    play.tell(claim(2, 3))
    assert free(play) == [0, 1]
    play.tell(claim())
    assert free(play) == [0, 1, 2, 3]


def test_in_whatever_order_slice_claim_and_node_come() -> None:
    parts = [made.node(), slice_of(0, 1, 2, 3), claim(2)]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]):
        play = Play()
        for place in order:
            play.tell(parts[place])
        assert free(play) == [0, 1, 3], order


@pytest.mark.parametrize(
    ("given", "rest"),
    [
        pytest.param(claim(2, adminAccess=True), 4, id="who only looks on takes nothing"),
        pytest.param(claim(2, notes={EXTENDED: "true"}), 4, id="made for an extended resource: the pod's request counts"),
        pytest.param(claim(2, pool="elsewhere"), 4, id="of a pool that is not here"),
        pytest.param(claim(9), 4, id="of a device that nobody announces any more"),
        pytest.param(claim(), 4, id="not allocated"),
        pytest.param(claim(0, 1, 2, 3), 0, id="of all"),
    ],
)  # fmt: skip
def test_what_a_claim_takes(given: ResourceClaim, rest: int) -> None:
    assert len(free(Play(made.node(), slice_of(0, 1, 2, 3), given))) == rest


def test_two_claims_on_slices_of_one_board_take_one_board() -> None:
    parts = [{"name": f"gpu-{i}", "attributes": {"parentUUID": {"string": "GPU-1"}}} for i in (5, 6)]
    pool = {"name": "n1", "generation": 1}
    spec = {"driver": "gpu.nvidia.com", "nodeName": "n1", "devices": parts, "pool": pool}
    sliced = msgspec.convert({"metadata": {"name": "mig"}, "spec": spec}, ResourceSlice)
    play = Play(made.node(), slice_of(0, 1, 2, 3), sliced, claim(5, name="a"), claim(6, name="b"))
    assert free(play) == [0, 1], "while no agent says which board they are of, they may be of two"
    hear(play, holders())
    assert free(play) == [0, 2, 3]


def test_only_the_newest_generation_of_a_pool_counts() -> None:
    play = Play(
        made.accelerator(sharing="dra"),
        made.node(gpus=0),
        slice_of(0, 1),
        slice_of(2, generation=2, name="new"),
    )
    assert [d.uuid for d in play.live("nodes")["n1"].devices] == ["GPU-2"]
    play.gone("ResourceSlice", "new")
    assert [d.uuid for d in play.live("nodes")["n1"].devices] == ["GPU-0", "GPU-1"]


def test_our_own_claim_is_counted_once_and_by_what_it_got() -> None:
    play = Play(
        made.accelerator(sharing="dra"), made.node(gpus=0), slice_of(0, 1, 2, 3), engine_pod(devices=(0,))
    )
    assert devices(play, "shop/chat-0") == (0,)
    play.tell(claim(3, pod="chat-0"))
    assert devices(play, "shop/chat-0") == (3,)
    assert play.live("launchers")["shop/chat-0"].slots[0].devices == (3,)
    assert sorted(play.live("claims")) == ["shop/chat-0"]
    assert free(play) == [0, 1, 2]


def test_a_pod_with_a_request_and_another_with_a_claim_take_two() -> None:
    assert free(Play(made.node(), slice_of(0, 1, 2, 3), pod(), claim(0, pod="p2"))) == [1, 2]


# what the kubelet says


def test_the_kubelets_devices_count_before_the_plans() -> None:
    play = Play(made.node(), engine_pod(devices=(0,)))
    hear(play, holders((2, "shop/chat-0")))
    assert devices(play, "shop/chat-0") == (2,)
    assert free(play) == [0, 1, 3]


def test_a_pod_planned_onto_a_device_that_another_got_has_some_device() -> None:
    play = Play(made.node(), engine_pod(devices=(0,)), pod("theirs"))
    hear(play, holders((0, "shop/theirs")))
    assert devices(play, "shop/theirs") == (0,)
    assert devices(play, "shop/chat-0") == (-1,)
    assert free(play) == [1, 2], "two are in use, whichever they are"


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(((0, "shop/chat-0"), (1, "shop/chat-0")), id="more than it asked for"),
        pytest.param(((-1, "shop/chat-0"),), id="one that the driver does not know"),
        pytest.param(((9, "shop/chat-0"),), id="one that the node does not have"),
    ],
)
def test_what_the_kubelet_says_and_cannot_be_leaves_the_plans_numbers(
    rows: tuple[tuple[int, str], ...],
) -> None:
    play = Play(made.node(), engine_pod(devices=(0,)))
    hear(play, holders(*rows))
    assert devices(play, "shop/chat-0") == (0,)


def test_a_pod_without_a_request_that_the_kubelet_gave_a_device_counts() -> None:
    play = Play(made.node(), pod("sly", gpus=0))
    hear(play, holders((1, "shop/sly"), resource="other.com/gpu"))
    assert free(play) == [0, 2, 3]
    hear(play, holders(), sequence=2)
    assert free(play) == [0, 1, 2, 3]


def test_a_pod_that_only_the_kubelet_knows_counts_after_a_while() -> None:
    play = Play(made.node(), pod("gone"))
    hear(play, holders((1, "shop/gone")))
    play.gone("Pod", "shop/gone", after=1.0)
    assert free(play) == [0, 1, 2, 3], "the kubelet is merely late"
    play.now += LEFTOVER_SECONDS
    hear(play, holders((1, "shop/gone")), sequence=2)
    assert free(play) == [0, 2, 3]
    play.tell(pod("gone"))
    assert sorted(play.live("claims")) == ["shop/gone"]
    hear(play, holders(), sequence=3)
    play.gone("Pod", "shop/gone")
    assert free(play) == [0, 1, 2, 3]


# a node that offers fewer than it has


def busy(count: int) -> list[Any]:
    return [engine_pod(f"chat-{i}", devices=(i,)) for i in range(count)]


def test_seven_of_eight_while_all_are_in_use() -> None:
    """Nobody's device is taken; the next one that comes free is nobody's; then seven are what there is."""
    play = Play(made.node(gpus=8), *busy(8))
    hear(play, holders(), gpus=8)
    assert free(play) == []
    play.tell(made.node(gpus=7))
    assert all(d.healthy for d in play.live("nodes")["n1"].devices)
    assert play.live("claims")["Node/n1"].slot.devices == (-1,)
    play.gone("Pod", "shop/chat-3")
    assert free(play) == [], "it came free, and the node has seven"
    assert "Node/n1" not in play.live("claims")
    play.gone("Pod", "shop/chat-5")
    assert len(free(play)) == 1
    play.tell(made.node(gpus=8))
    assert free(play) == [3, 5]


def test_seven_of_eight_without_an_agent() -> None:
    eight = {"nvidia.com/gpu": "8"}
    play = Play(made.node(gpus=8, capacity=eight), *busy(8))
    play.tell(made.node(gpus=7, capacity=eight))
    assert (free(play), play.world.seating.lost) == ([], {"n1": 1})
    play.gone("Pod", "shop/chat-0")
    assert (free(play), play.world.seating.lost) == ([], {})


def test_a_node_that_is_gone_leaves_no_account_behind() -> None:
    play = Play(made.node(gpus=4, capacity={"nvidia.com/gpu": "8"}), slice_of(0, 1), claim(0), *busy(8))
    assert "Node/n1" in play.live("claims")
    assert "ResourceClaim/lab/c" in play.live("claims")
    play.gone("Node", "n1")
    assert sorted(play.live("claims")) == sorted(f"shop/chat-{i}" for i in range(8))


def test_other_peoples_slices_count_in_their_own_resource() -> None:
    """A pod's MIG slice takes no whole board; on a node of that class it does take a slice."""
    sliced = made.accelerator(
        "mig", "MIG", sharing="mig", resourceName="nvidia.com/mig-1g.5gb", aliases=["X-MIG-1g.5gb"]
    )
    theirs = pod("theirs", gpus=0, spec={"containers": [
        {"name": "c", "resources": {"limits": {"nvidia.com/mig-1g.5gb": "3"}}}]})  # fmt: skip
    whole = Play(sliced, made.node(), theirs)
    assert free(whole) == [0, 1, 2, 3]
    parts = Play(
        sliced, made.node(product="X-MIG-1g.5gb", gpus=0, allocatable={"nvidia.com/mig-1g.5gb": "7"}), theirs
    )
    assert len(free(parts)) == 4


def test_the_account_is_the_same_whatever_came_first() -> None:
    def told(play: Play) -> dict[str, Any]:
        return dict(play.live("claims")) | {"nodes": dict(play.live("nodes"))}

    parts = [
        made.node(gpus=3, capacity={"nvidia.com/gpu": "4"}),
        slice_of(0, 1, 2, 3),
        claim(0),
        *busy(3),
        pod("p"),
    ]
    forward, backward = Play(*parts), Play()
    for each in reversed(parts):
        backward.tell(each)
    assert told(forward) == told(backward)
    assert forward.now == NOW
