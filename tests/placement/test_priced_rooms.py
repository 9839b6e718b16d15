"""Nodes chosen by prices: what fits is found, what does not is not, and CPU that is short counts."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.admission import Fence
from cluster.base import Ref
from cluster.hardware import Device, Node, Offer, Slot
from cluster.space import Space
from cluster.taints import Toleration
from placement.packing.best_fit import Choice, Rooms
from placement.packing.fleet import Shape
from placement.packing.priced_rooms import Basis, PricedRooms, basis_of
from placement.packing.rules.priced_fgd import PricedFgdConfig


class Who(NamedTuple):
    cpu_millis: int = 0
    memory_bytes: int = 0
    confined_to: tuple[str, ...] | None = None
    confined_by: str = ""
    tolerates: tuple[Toleration, ...] = ()


def node(name: str, gpus: int = 4, order: int = 0, pool: str = "p", **more: Any) -> Node:
    return Node(
        ref=Ref("Node", name, name), pool=pool, accelerator="L4", order=order,
        devices=tuple(Device(uuid=f"{name}{i}", index=i, clique=i // 2) for i in range(gpus)), **more,
    )  # fmt: skip


def rooms(*nodes: Node, wanted: tuple[tuple[int, int, int], ...] = ((0, 1, 5),), gang: float = 0.0):
    """`wanted` are (millicores, GPUs, pods) of pool p."""
    known = {n.name: n for n in nodes}
    space = Space(known, [])
    demand = {Shape(cpu, gpus, 1_000, ()): number for cpu, gpus, number in wanted}
    bases = {"p": basis_of([n for n in nodes if n.pool == "p"], demand, 0.0, None, 60.0)}
    return PricedRooms(known, space, bases, PricedFgdConfig(gang_milli=gang), {}), space


def test_an_odd_gap_is_filled_before_a_pair_is_broken() -> None:
    book, _ = rooms(node("pair", 2), node("single", 1, order=1), wanted=((0, 1, 2), (0, 2, 1)))
    assert book.choose("p", 1) == Choice(Slot(node="single", devices=(0,)), 1, 0, 2, 994, "pair", 1_006)
    assert book.choose("p", 2) == Choice(Slot(node="pair", devices=(0, 1)), 2, 0, 1, 2_000)
    assert book.choose("p", 3) is None
    assert book.choose("elsewhere", 1) is None


def test_pods_of_little_cpu_go_where_cpu_is_short() -> None:
    roomy, short = node("roomy", 2, cpu_millis=64_000), node("short", 2, order=1, cpu_millis=4_000)
    book, space = rooms(roomy, short, wanted=((2_000, 1, 2), (30_000, 1, 2)))
    nodes = {"roomy": roomy, "short": short}
    light, heavy = Fence(Who(cpu_millis=2_000), nodes), Fence(Who(cpu_millis=30_000), nodes)
    for expected in ("short", "short", "roomy"):
        found = book.choose("p", 1, (), light)
        assert found is not None
        assert (found.slot.node, found.slot.cpu_millis) == (expected, 2_000)
        space.take(found.slot)
        book.refresh(found.slot.node)
    found = book.choose("p", 1, (), heavy)
    assert found is not None
    assert found.slot.node == "roomy"


def test_what_is_avoided_outside_the_fence_or_closed_is_left_alone() -> None:
    nodes = [node("a"), node("b", order=1), node("c", order=2), node("d", order=3, offer=Offer.CORDONED)]
    book, _ = rooms(*nodes)
    fence = Fence(Who(confined_to=("b", "c", "d"), confined_by="its volume"), {n.name: n for n in nodes})
    assert [book.choose("p", 1, avoid, fence).slot.node for avoid in ((), ("b",))] == ["b", "c"]  # type: ignore[union-attr]
    assert book.choose("p", 1, ("b",), fence).fit_nodes == 2  # type: ignore[union-attr]
    assert book.choose("p", 1, ("b", "c"), fence) is None


@pytest.mark.parametrize(("gang", "expected"), [(0.0, "free"), (20.0, "used")])
def test_free_nodes_are_kept_for_gangs_where_that_is_asked_for(gang: float, expected: str) -> None:
    book, space = rooms(node("free"), node("used", order=1), gang=gang)
    space.take(Slot(node="used", devices=(0,)))
    book.refresh("used")
    assert book.choose("p", 1).slot.node == expected  # type: ignore[union-attr]


def test_prices_stand_until_their_time_is_up_or_what_is_wanted_has_moved_far() -> None:
    nodes, single, pair = [node("a"), node("b", order=1)], Shape(0, 1, 1_000, ()), Shape(0, 2, 1_000, ())
    first = basis_of(nodes, {single: 4, pair: 4}, 100.0, None, 60.0)
    assert first == Basis(
        since_seconds=100.0, workload=((0, 1, 1_000, 4), (0, 2, 1_000, 4)), stocks=((4, 0, 2),)
    )
    cases: list[tuple[str, list[Node], dict[Shape, int], float, bool]] = [
        ("nothing is new", nodes, {single: 4, pair: 4}, 159.0, True),
        ("a little more is wanted", nodes, {single: 7, pair: 4}, 159.0, True),
        ("a little less is wanted", nodes, {single: 4, pair: 3}, 159.0, True),
        ("their time is up", nodes, {single: 4, pair: 4}, 160.0, False),
        ("a third more is wanted", nodes, {single: 8, pair: 4}, 159.0, False),
        ("a third goes", nodes, {pair: 4}, 159.0, False),
        ("a new shape", nodes, {single: 4, pair: 4, Shape(500, 1, 1_000, ()): 1}, 101.0, False),
        ("a machine is lost", nodes[:1], {single: 4, pair: 4}, 159.0, True),
        ("a wider machine", [*nodes, node("c", 8)], {single: 4, pair: 4}, 101.0, False),
    ]
    for name, there, wanted, now, stands in cases:
        found = basis_of(there, wanted, now, first, 60.0)
        assert (found is first) == stands, name
        assert stands or found.since_seconds == now, name
    empty = basis_of(nodes, {}, 1.0, None, 60.0)
    assert basis_of(nodes, {}, 2.0, empty, 60.0) is empty
    assert basis_of(nodes, {single: 1}, 2.0, empty, 60.0) is not empty


STEPS = st.lists(st.tuples(st.integers(1, 5), st.sampled_from("pq"), st.booleans()), max_size=15)
ORDERS = st.lists(st.integers(0, 2), min_size=6, max_size=6)


@settings(max_examples=20, deadline=None)
@given(STEPS, ORDERS)
def test_it_finds_room_exactly_where_best_fit_does(
    steps: list[tuple[int, str, bool]], orders: list[int]
) -> None:
    nodes = [node(name, 2 + i, orders[i], "pq"[i % 2]) for i, name in enumerate("fedcba")]
    book, space = rooms(*nodes, wanted=((0, 1, 3), (0, 2, 2), (0, 4, 1)))
    held: list[Slot] = []
    for gpus, pool, give_back in steps:
        if give_back and held:
            slot = held.pop(0)
            space.give(slot)
            book.refresh(slot.node)
            continue
        usual = Rooms({n.name: n for n in nodes}, space).choose(pool, gpus)
        found = book.choose(pool, gpus)
        assert (found is None) == (usual is None)
        if found is not None and usual is not None:
            assert found.fit_nodes == usual.fit_nodes
            assert found.free == len(space.free_devices(found.slot.node)) == found.left + gpus
            assert space.lacking(found.slot) == 0
            space.take(found.slot)
            book.refresh(found.slot.node)
            held.append(found.slot)
