"""Shares of GPUs: which device they go to under best fit and under prices, and what of a device is free for whom."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.admission import Fence
from cluster.base import Ref
from cluster.hardware import Device, Node, Offer, Slot
from cluster.occupancy import Claim, Reservation
from cluster.space import Space
from placement.packing.best_fit import Choice, Rooms
from placement.packing.fleet import Shape
from placement.packing.priced_rooms import PricedRooms, basis_of
from placement.packing.rules.priced_fgd import PricedFgdConfig
from tests.placement.test_priced_rooms import Who

DIVISIBLE = {"memory": 24 * 2**30}


def node(name: str, gpus: int = 2, order: int = 0, **more: Any) -> Node:
    more.setdefault("divisible", DIVISIBLE)
    return Node(
        ref=Ref("Node", name, name), pool="p", accelerator="L4", order=order,
        devices=tuple(Device(uuid=f"{name}{i}", index=i) for i in range(gpus)), **more,
    )  # fmt: skip


def share(name: str, device: int, milli: int) -> Slot:
    return Slot(node=name, devices=(device,), milli_per_device=milli)


def books(*nodes: Node, taken: tuple[Slot, ...] = (), wanted: dict[tuple[int, int], int] | None = None):
    """Best fit and prices over the same nodes; `wanted` are pods by (GPUs, thousandths)."""
    known = {n.name: n for n in nodes}
    space = Space(known, [])
    for slot in taken:
        space.take(slot)
    demand = {
        Shape(0, gpus, milli, ()): n for (gpus, milli), n in (wanted or {(1, 250): 4, (2, 1_000): 1}).items()
    }
    bases = {"p": basis_of(nodes, demand, 0.0, None, 60.0)}
    return (
        Rooms(known, space),
        PricedRooms(known, space, bases, PricedFgdConfig(gang_milli=20.0, begin_milli=10.0), {}),
        space,
    )


@pytest.mark.parametrize("which", [0, 1], ids=["best fit", "prices"])
def test_a_share_goes_onto_a_device_that_is_shared_already(which: int) -> None:
    book = books(node("a"), node("b", order=1), taken=(share("b", 1, 600),))[which]
    first = book.choose_share("p", 250)
    assert first is not None
    assert first.slot == share("b", 1, 250)
    assert (first.free, first.left, first.fit_nodes, first.second) == (0.4, 0.15, 2, "a")
    assert first.second_milli > first.cost_milli
    second = book.choose_share("p", 500)
    assert second is not None
    assert second.slot.node == "b", "and not onto the wholly free node"
    assert second.slot.devices == (0,)
    assert book.choose_share("p", 250, ("b",)).slot.node == "a"  # type: ignore[union-attr]
    assert book.choose_share("q", 250) is None


@pytest.mark.parametrize("which", [0, 1], ids=["best fit", "prices"])
def test_devices_that_are_given_out_whole_closed_or_kept_are_not_shared(which: int) -> None:
    nodes = [
        node("whole", divisible={}),
        node("shut", offer=Offer.CORDONED),
        node("far"),
        node("near", order=1),
    ]
    known = {n.name: n for n in nodes}
    book = books(*nodes)[which]
    fence = Fence(Who(cpu_millis=0, memory_bytes=0, confined_to=("near", "whole", "shut")), known)
    found = book.choose_share("p", 250, (), fence)
    assert found is not None
    assert (found.slot.node, found.fit_nodes) == ("near", 1)
    assert book.choose_share("p", 250, ("near",), fence) is None
    assert book.most_left("p", fence) == 1.0
    assert books(node("whole", divisible={}))[which].most_left("p") == 0.0


def test_a_device_in_part_use_is_no_whole_one_and_shares_add_up() -> None:
    best, priced, space = books(node("a", 1))
    for number in range(4):
        for book in (best, priced):
            found = book.choose_share("p", 250)
            assert found is not None
            assert found.slot == share("a", 0, 250)
            assert found.left == 0.75 - 0.25 * number
        space.take(share("a", 0, 250))
        best.refresh("a")
        priced.refresh("a")
        assert best.choose("p", 1) is None
        assert priced.choose("p", 1) is None
    assert best.choose_share("p", 250) is None
    assert priced.choose_share("p", 1) is None
    assert space.lacking(share("a", 0, 1)) == 1


def test_what_nobody_numbered_is_left_alone() -> None:
    """A pod that has some device has none that is shared; where no whole one is left for it, nothing is given away."""
    known = {"a": node("a", 2)}
    other = Claim(key="x", owner=Ref("Pod", "x"), slot=Slot(node="a", devices=(-1,)), foreign=True)
    mine = Claim(key="y", owner=Ref("Replica", "y"), slot=share("a", 0, 500))
    assert Space(known, [mine]).free_levels("a") == [(0, 500), (1, 1_000)]
    assert Space(known, [other]).free_levels("a") == [(0, 1_000)]
    both = Space(known, [mine, other])
    assert both.free_levels("a") == []
    assert both.lacking(share("a", 0, 500)) == 1
    kept = Reservation(
        key="r", owner=Ref("TrainingJob", "j"), slots=(Slot(node="a", devices=(0,)),), priority=5,
        starts_seconds=0.0, expires_seconds=9.0,
    )  # fmt: skip
    space = Space(known, [mine], [kept])
    assert space.free_levels("a") == [(1, 1_000)]
    assert space.free_levels("a", Ref("TrainingJob", "j")) == [(0, 500), (1, 1_000)]
    assert space.free_levels("a", None, 6) == [(0, 500), (1, 1_000)]
    assert space.free_levels("nobody") == []


STEPS = st.lists(st.tuples(st.sampled_from((100, 250, 300, 500, 700, 1_000)), st.booleans()), max_size=25)


@settings(max_examples=25, deadline=None)
@given(STEPS)
def test_both_find_room_where_there_is_any_and_never_more_than_there_is(
    steps: list[tuple[int, bool]],
) -> None:
    nodes = [
        node(name, 1 + i, order=i % 2, divisible=DIVISIBLE if name != "c" else {})
        for i, name in enumerate("abcd")
    ]
    best, priced, space = books(*nodes)
    held: list[Slot] = []
    for milli, give_back in steps:
        if give_back and held:
            slot = held.pop(0)
            space.give(slot)
        else:
            found: list[Choice | None] = [
                book.choose("p", 1) if milli == 1_000 else book.choose_share("p", milli)
                for book in (best, priced)
            ]
            usable = [n for n in nodes if milli == 1_000 or n.divisible]
            room = any(left >= milli for n in usable for _, left in space.free_levels(n.name))
            assert [choice is not None for choice in found] == [room, room]
            if found[1] is None:
                continue
            slot = found[1].slot
            assert space.lacking(slot) == 0
            space.take(slot)
            held.append(slot)
        best.refresh(slot.node)
        priced.refresh(slot.node)
        assert all(space.free_milli(n.name, d.index) >= 0 for n in nodes for d in n.devices)


@pytest.mark.parametrize(("begin", "device"), [(0.0, 0), (10.0, 1)])
def test_a_free_device_is_begun_at_a_charge(begin: float, device: int) -> None:
    known = {"a": node("a")}
    space = Space(known, [])
    space.take(share("a", 1, 600))
    bases = {
        "p": basis_of(known.values(), {Shape(0, 1, 250, ()): 4, Shape(0, 2, 1_000, ()): 1}, 0.0, None, 60.0)
    }
    book = PricedRooms(known, space, bases, PricedFgdConfig(begin_milli=begin), {})
    found = book.choose_share("p", 250)
    assert found is not None
    assert found.slot.devices == (device,)
