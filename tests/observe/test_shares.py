"""Shares of GPUs by claim: which nodes divide their devices, who has how much of which, and what nobody can have."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.occupancy import devices_held
from cluster.space import Space
from controller.observe import intents
from controller.observe.dra import Announced, DraBook, divisible
from controller.observe.revisions import standing_of
from controller.observe.seats import Seats
from controller.telling.devices import offered
from tests.observe import objects as made
from tests.observe.objects import Play, engine_pod
from tests.observe.test_seating import claim, slice_of

GIB = 2**30
PARTS = {
    "allowMultipleAllocations": True,
    "capacity": {"memory": {"value": "24Gi"}, "gpu.nvidia.com/cores": {"value": 100}},
}
SHARED: dict[str, Any] = {"sharing": "dra", "dra": {"shareCapacities": ["memory", "cores"]}}


def gpu(number: int = 0, parent: str = "", **capacities: int) -> Announced:
    return Announced(
        "gpu.nvidia.com", "n1", f"gpu-{number}", parent=parent, capacities=tuple(capacities.items())
    )


@pytest.mark.parametrize(
    ("gpus", "wanted", "found"),
    [
        pytest.param([gpu(memory=24, cores=100)], ("memory",), {"memory": 24}, id="what the class names"),
        pytest.param([gpu(memory=24), gpu(1, memory=22)], ("memory",), {"memory": 22}, id="the least of it"),
        pytest.param([gpu(memory=24), gpu(1)], ("memory",), {}, id="one of them is given out whole"),
        pytest.param([gpu(memory=24)], ("memory", "cores"), {}, id="a capacity that is not announced"),
        pytest.param([gpu(memory=24)], (), {}, id="the class names none"),
        pytest.param([], ("memory",), {}, id="nothing is announced"),
        pytest.param([gpu(memory=24), gpu(1, parent="GPU-0")], ("memory",), {"memory": 24}, id="slices do not count"),
        pytest.param([gpu(memory=24)], ("x.y/memory",), {"memory": 24}, id="a name is asked for as it is announced"),
    ],
)  # fmt: skip
def test_devices_are_divided_where_all_announce_what_the_class_names(
    gpus: list[Announced], wanted: tuple[str, ...], found: dict[str, int]
) -> None:
    assert divisible(gpus, wanted) == found


@pytest.mark.parametrize(
    ("more", "consumed", "milli"),
    [
        pytest.param(PARTS, {"memory": "6Gi"}, 250, id="a quarter"),
        pytest.param(PARTS, {"memory": "6Gi", "cores": "50"}, 500, id="the capacity that it has most of"),
        pytest.param(PARTS, {"gpu.nvidia.com/memory": str(8 * GIB)}, 334, id="rounded up"),
        pytest.param(PARTS, {"memory": "96Gi"}, 1_000, id="never more than all of it"),
        pytest.param(PARTS, {"memory": "0"}, 1, id="nothing is still somebody"),
        pytest.param(PARTS, {}, 1_000, id="nothing is said: all of it"),
        pytest.param(PARTS, {"slots": "1"}, 1_000, id="of a capacity that is not announced"),
        pytest.param({}, {"memory": "6Gi"}, 1_000, id="of a device that is given out whole"),
    ],
)
def test_how_much_a_claim_has(more: dict[str, Any], consumed: dict[str, str], milli: int) -> None:
    book = DraBook()
    book.slice("s", slice_of(0, **more))
    book.claim("lab/c", claim(0, consumedCapacity=consumed))
    (held,) = book.held("n1")
    assert held.milli == milli


def play(*objects: Any) -> Play:
    """A node of two GPUs whose driver lets claims have parts of them."""
    return Play(made.accelerator(**SHARED), made.node(gpus=0), slice_of(0, 1, **PARTS), *objects)


def levels(world: Play) -> list[tuple[int, int]]:
    """What is free of each device of the node."""
    snapshot = world.observer.snapshot(world.now)
    return Space(snapshot.nodes, snapshot.claims.values()).free_levels("n1")


def test_shares_of_ours_and_of_others_leave_the_rest_of_a_device() -> None:
    world = play()
    assert world.live("nodes")["n1"].divisible == {"gpu.nvidia.com/cores": 100, "memory": 24 * GIB}
    world.tell(engine_pod(devices=(1,), milli=250))
    assert levels(world) == [(0, 1_000), (1, 750)], "as it was planned, before anybody allocated it"
    world.tell(claim(1, pod="chat-0", consumedCapacity={"memory": "6Gi"}))
    assert levels(world) == [(0, 1_000), (1, 750)], "its claim is itself"
    world.tell(claim(1, name="theirs", consumedCapacity={"memory": "12Gi"}))
    assert levels(world) == [(0, 1_000), (1, 250)]
    assert world.live("claims")["ResourceClaim/lab/theirs"].slot.milli_per_device == 500
    world.tell(claim(0, name="all"))
    assert levels(world) == [(1, 250)], "a claim that names no part has all of it"
    assert devices_held(world.live("claims").values()) == 2
    world.gone("ResourceClaim", "lab/theirs")
    assert levels(world) == [(1, 750)]


def test_a_share_is_beside_others_and_a_whole_one_is_not() -> None:
    """Planned onto a device of which a share went to somebody: a share is still there, a whole GPU is some other one."""
    others = [
        engine_pod("chat-9", devices=(0,), milli=500),
        claim(0, pod="chat-9", consumedCapacity={"memory": "12Gi"}),
    ]
    share = play(*others, engine_pod(devices=(0,), milli=250))
    assert share.live("claims")["shop/chat-0"].slot.devices == (0,)
    assert share.live("launchers")["shop/chat-0"].slots[0].milli_per_device == 250
    assert levels(share) == [(0, 250), (1, 1_000)]
    whole = play(*others, engine_pod(devices=(0,)))
    assert whole.live("claims")["shop/chat-0"].slot.devices == (-1,)
    assert levels(whole) == []


def test_seats_of_shares() -> None:
    seats = Seats({"a": (0,), "b": (1,)}, (), frozenset({"a"}))
    assert [seats.of("c", (0,)), seats.of("c", (0,), shares=True)] == [(-1,), (0,)]
    assert [seats.of("c", (1,)), seats.of("c", (1,), shares=True)] == [(-1,), (-1,)]


def test_a_node_whose_driver_divides_nothing_says_so() -> None:
    whole = Play(made.accelerator(**SHARED), made.node(gpus=0), slice_of(0, 1))
    assert whole.live("nodes")["n1"].divisible == {}
    (accelerator,) = whole.live("accelerators").values()
    said = [offered(accelerator, list(each.live("nodes").values()), 1) for each in (whole, play())]
    assert [(each.status, each.reason) for each in said] == [
        ("False", "SharesNotOffered"),
        ("True", "Offered"),
    ]
    assert said[0].message == (
        "1 nodes have this product, 1 of them give their GPUs out whole: gpu.nvidia.com does not announce memory and cores"
        " with allowMultipleAllocations there. Correct spec.dra.shareCapacities, or the driver."
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param({"sharing": "none"}, "has sharing: none: its GPUs are given out whole.", id="none"),
        pytest.param({"sharing": "mig"}, "has sharing: mig: a device of it is a part of a GPU already", id="mig"),
        pytest.param({"sharing": "timeSlicing"}, "has sharing: timeSlicing: a device of it is a part", id="time slices"),
        pytest.param({"sharing": "dra"}, "has sharing: dra and no dra.shareCapacities: its GPUs are claimed whole", id="dra"),
        pytest.param(SHARED, "", id="dra with capacities"),
        pytest.param({"sharing": "none", "dra": SHARED["dra"]}, "has sharing: none", id="capacities without dra"),
    ],
)  # fmt: skip
def test_a_share_that_nobody_gives_is_refused_in_a_sentence(spec: dict[str, Any], words: str) -> None:
    classes = {"L4": intents.accelerator(made.accelerator(**spec))[0]}
    chat = made.service(variants=[{"accelerator": "l4", "gpuMilli": 250}, {"accelerator": "l4"}])
    found = intents.service(standing_of(chat, []), classes)
    if not words:
        assert [v.milli for v in found.noun.variants] == [250, 1_000]
        assert [v.key for v in found.noun.variants] == ["L4x0.25-bf16", "L4x1-bf16"]
        return
    (fault,) = found.faults
    assert fault.startswith(
        "ModelService shop/chat: spec.variants asks for 250 thousandths of l4, whose AcceleratorClass "
    )
    assert words in fault
    assert "Leave gpuMilli out" in fault
