"""Free space: claims, other people's pods, reservations, unhealthy devices, nodes that are closed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base import Ref
from cluster.hardware import Device, Node, Offer, Slot
from cluster.occupancy import Claim, Reservation
from cluster.space import Space
from tests.nouns.cases import NOW, node, slot

ME, OTHER = Ref("TrainingJob", "lab/mine", "u1", 1), Ref("TrainingJob", "lab/other", "u2", 1)


def claim(key: str, at: Slot) -> Claim:
    return Claim(key=key, owner=Ref("Pod", key), slot=at)


def reserved(*slots: Slot, owner: Ref = OTHER, priority: int = 0, key: str = "r") -> Reservation:
    return Reservation(
        key=key, owner=owner, slots=slots, priority=priority, starts_seconds=NOW, expires_seconds=NOW + 9
    )


def broken(name: str, bad: int) -> Node:
    devices = tuple(Device(uuid=f"{name}-{i}", index=i, healthy=i != bad) for i in range(4))
    return msgspec.structs.replace(node(name), devices=devices)


@pytest.mark.parametrize(
    ("made_of", "claims", "free"),
    [
        pytest.param(node("a"), [], [0, 1, 2, 3], id="an empty node"),
        pytest.param(node("a"), [slot("a", 1)], [0, 2, 3], id="one device claimed"),
        pytest.param(node("a"), [Slot(node="a", devices=(1,), milli_per_device=300)], [0, 2, 3], id="a third of a device claimed"),
        pytest.param(node("a"), [slot("a", 0), slot("a", 0)], [1, 2, 3], id="a device claimed twice"),
        pytest.param(node("a"), [slot("a", 7)], [0, 1, 2, 3], id="a device nobody has"),
        pytest.param(node("a"), [slot("a", 4)], [0, 1, 2, 3], id="one past the last device"),
        pytest.param(node("a"), [slot("z", 0)], [0, 1, 2, 3], id="a claim on a node nobody has"),
        pytest.param(node("a"), [slot("a", -1)], [0, 1, 2], id="another's pod on one unknown device"),
        pytest.param(node("a"), [slot("a", -2, -1)], [0, 1], id="another's pod on two unknown devices"),
        pytest.param(node("a"), [slot("a", 0), slot("a", -1)], [1, 2], id="a known and an unknown device"),
        pytest.param(node("a"), [slot("a", *range(-6, 0))], [], id="more unknown devices than there are"),
        pytest.param(broken("a", 2), [], [0, 1, 3], id="an unhealthy device"),
        pytest.param(node("a", offer=Offer.CORDONED), [], [], id="a cordoned node"),
        pytest.param(node("a", offer=Offer.LOST), [], [], id="a lost node"),
        pytest.param(node("a", offer=Offer.RECLAIMING), [], [], id="a node the cloud takes back"),
        pytest.param(node("a", offer=Offer.ISOLATED), [], [], id="an isolated node"),
        pytest.param(node("a", gpus=0), [], [], id="a node without GPUs"),
    ],
)  # fmt: skip
def test_whole_devices_that_are_free(made_of: Node, claims: list[Slot], free: list[int]) -> None:
    space = Space({"a": made_of}, [claim(str(i), s) for i, s in enumerate(claims)])
    assert space.free_devices("a") == free


def test_a_node_nobody_knows_has_nothing() -> None:
    space = Space({}, [])
    assert space.free_devices("z") == []
    assert (space.free_milli("z", 0), space.free_cpu_millis("z"), space.free_memory_bytes("z")) == (0, 0, 0)
    assert space.lacking(slot("z", 0, 1)) == 2
    assert space.lacking(Slot(node="z", devices=())) == 1


def test_shares_of_a_device_add_up_and_over_commitment_is_not_hidden() -> None:
    third = Slot(node="a", devices=(0,), milli_per_device=333, cpu_millis=100, memory_bytes=10)
    space = Space({"a": node("a")}, [claim(str(i), third) for i in range(2)])
    assert space.free_milli("a", 0) == 334
    assert space.free_cpu_millis("a") == 7_800
    assert space.free_memory_bytes("a") == (64 << 30) - 20
    assert space.lacking(third) == 0
    assert space.lacking(Slot(node="a", devices=(0,), milli_per_device=335)) == 1
    space.take(slot("a", 0))
    assert space.free_milli("a", 0) == -666
    space.give(slot("a", 0))
    assert space.free_milli("a", 0) == 334
    assert space.free_milli("a", -1) == 0
    assert space.free_milli("a", 4) == 0


@pytest.mark.parametrize(
    ("wanted", "claims", "lacking"),
    [
        pytest.param(slot("a", 0, 1, 2, 3), [], 0, id="a whole free node"),
        pytest.param(slot("a", 0, 1, 2, 3), [slot("a", 1), slot("a", 2)], 2, id="two of four are taken"),
        pytest.param(slot("a", 9), [], 1, id="a device the node does not have"),
        pytest.param(slot("a", 0, cpu=8_000), [], 0, id="all of the CPU"),
        pytest.param(slot("a", 0, cpu=8_001), [], 1, id="more CPU than there is"),
        pytest.param(slot("a", 0, cpu=1), [slot("a", 1, cpu=8_000)], 1, id="CPU that others took"),
        pytest.param(slot("a", 0, 1, cpu=9_000), [slot("a", 0), slot("a", 1)], 2, id="devices and CPU are short"),
        pytest.param(Slot(node="a", devices=(), memory_bytes=(64 << 30) + 1), [], 1, id="more memory than there is"),
        pytest.param(Slot(node="a", devices=(), memory_bytes=64 << 30), [], 0, id="all of the memory"),
        pytest.param(slot("a", 3), [slot("a", -1)], 1, id="the device left for a pod nobody numbered"),
        pytest.param(slot("a", 0), [slot("a", -1)], 0, id="the first device beside a pod nobody numbered"),
        pytest.param(slot("a", 0, 3), [slot("a", -1), slot("a", 0)], 2, id="one taken, one left for another"),
    ],
)  # fmt: skip
def test_how_many_devices_a_slot_lacks(wanted: Slot, claims: list[Slot], lacking: int) -> None:
    space = Space({"a": node("a")}, [claim(str(i), s) for i, s in enumerate(claims)])
    assert space.lacking(wanted) == lacking


def test_a_slot_on_a_closed_node_lacks_everything() -> None:
    assert Space({"a": node("a", offer=Offer.CORDONED)}, []).lacking(slot("a", 0, 1)) == 2


def test_a_reservation_is_open_to_its_owner_alone() -> None:
    space = Space({"a": node("a")}, [], [reserved(slot("a", 0, 1))])
    assert space.free_devices("a") == [2, 3]
    assert space.free_devices("a", ME) == [2, 3]
    assert space.free_devices("a", OTHER) == [0, 1, 2, 3]
    assert (
        space.lacking(slot("a", 0)),
        space.lacking(slot("a", 0), ME),
        space.lacking(slot("a", 0), OTHER),
    ) == (1, 1, 0)
    assert space.lacking(slot("a", 2)) == 0


def test_a_new_version_or_uid_of_the_owner_keeps_what_it_reserved() -> None:
    space = Space({"a": node("a")}, [], [reserved(slot("a", 0))])
    assert space.free_devices("a", Ref("TrainingJob", "lab/other", "u9", 7)) == [0, 1, 2, 3]
    assert space.free_devices("a", Ref("ModelService", "lab/other", "u2", 1)) == [1, 2, 3]


@pytest.mark.parametrize(
    ("mine", "others", "owner"),
    [(5, 4, ME), (4, 5, OTHER), (5, 5, OTHER)],
    ids=["the higher priority has it", "the lower does not get it", "of equals the first one keeps it"],
)
def test_two_reservations_of_one_device(mine: int, others: int, owner: Ref) -> None:
    space = Space(
        {"a": node("a")},
        [],
        [reserved(slot("a", 0), priority=others), reserved(slot("a", 0), owner=ME, priority=mine)],
    )
    assert space.lacking(slot("a", 0), owner) == 0
    assert space.lacking(slot("a", 0), OTHER if owner is ME else ME) == 1


def test_a_release_takes_only_its_own_marks_away() -> None:
    mine, others = reserved(slot("a", 0), owner=ME, priority=9), reserved(slot("a", 0, 1))
    space = Space({"a": node("a")}, [], [others, mine])
    space.release(others)
    assert space.free_devices("a") == [1, 2, 3]
    space.release(mine)
    assert space.free_devices("a") == [0, 1, 2, 3]
    space.release(mine)


@pytest.mark.parametrize(("priority", "lacking"), [(None, 1), (3, 1), (4, 1), (5, 0)], ids=str)
def test_a_reservation_below_a_priority_does_not_count(priority: int | None, lacking: int) -> None:
    space = Space({"a": node("a")}, [], [reserved(slot("a", 0), priority=4)])
    assert space.lacking(slot("a", 0), ME, priority) == lacking
    assert (0 in space.free_devices("a", ME, priority)) is (lacking == 0)


def test_a_pod_nobody_numbered_and_a_reservation_below_a_priority() -> None:
    space = Space({"a": node("a")}, [claim("x", slot("a", -1))], [reserved(slot("a", 0), priority=4)])
    assert space.lacking(slot("a", 0), ME, 5) == 0
    assert space.lacking(slot("a", 3), ME, 5) == 1


SLOTS = st.builds(
    Slot,
    node=st.sampled_from("ab"),
    devices=st.lists(st.integers(-2, 5), max_size=4, unique=True).map(tuple),
    milli_per_device=st.sampled_from([100, 500, 1000]),
    cpu_millis=st.integers(0, 5_000),
    memory_bytes=st.integers(0, 32 << 30),
)


def picture(space: Space) -> Any:
    return [
        (space.free_devices(n), [space.free_milli(n, i) for i in range(4)], space.free_cpu_millis(n), space.free_memory_bytes(n))
        for n in "ab"
    ]  # fmt: skip


@given(st.lists(SLOTS, max_size=6), st.lists(SLOTS, max_size=4))
def test_giving_back_is_the_exact_opposite_of_taking_in_any_order(
    held: list[Slot], tried: list[Slot]
) -> None:
    nodes = {n: node(n) for n in "ab"}
    space = Space(nodes, [claim(str(i), s) for i, s in enumerate(held)])
    before = picture(space)
    for each in tried:
        space.take(each)
    for each in tried:
        space.give(each)
    assert picture(space) == before
    assert before == picture(Space(nodes, [claim(str(i), s) for i, s in enumerate(reversed(held))]))


@given(st.lists(SLOTS, max_size=5))
def test_a_slot_of_free_devices_fits_and_then_no_longer_does(held: list[Slot]) -> None:
    space = Space({n: node(n) for n in "ab"}, [claim(str(i), s) for i, s in enumerate(held)])
    free = space.free_devices("a")
    whole = slot("a", *free)
    numbered_fit = space.free_cpu_millis("a") >= 0 and space.free_memory_bytes("a") >= 0
    assert (space.lacking(whole) == 0) is numbered_fit
    space.take(whole)
    assert space.free_devices("a") == []
    for index in free:
        assert space.lacking(slot("a", index)) == 1
