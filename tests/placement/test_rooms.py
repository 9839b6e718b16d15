"""Best fit over open nodes: the same as looking at every node, whatever was taken before."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.base import Ref
from cluster.hardware import Device, Node, Offer, Slot
from cluster.space import Space
from placement.packing.best_fit import Choice, Rooms, pick_devices


def node(name: str, gpus: int = 4, order: int = 0, pool: str = "p", **more: Any) -> Node:
    return Node(
        ref=Ref("Node", name, name), pool=pool, accelerator="L4", order=order,
        devices=tuple(Device(uuid=f"{name}{i}", index=i, clique=i // 2) for i in range(gpus)), **more,
    )  # fmt: skip


def rooms(*nodes: Node) -> tuple[Rooms, Space]:
    known = {n.name: n for n in nodes}
    space = Space(known, [])
    return Rooms(known, space), space


def test_a_replica_goes_where_least_is_left_over() -> None:
    book, _ = rooms(node("a", 8), node("b", 2), node("c", 4))
    assert book.choose("p", 2) == Choice(Slot(node="b", devices=(0, 1)), 2, 0, 3, 0, "c", 2_000)
    assert book.choose("p", 3) == Choice(Slot(node="c", devices=(0, 1, 2)), 4, 1, 2, 1_000, "a", 5_000)
    assert book.choose("p", 8) == Choice(Slot(node="a", devices=tuple(range(8))), 8, 0, 1)
    assert book.choose("p", 9) is None
    assert book.choose("elsewhere", 1) is None


def test_ties_go_by_order_then_by_name() -> None:
    book, _ = rooms(node("a", order=2), node("c", order=1), node("b", order=1))
    assert [book.choose("p", 1, avoid).slot.node for avoid in ((), ("b",), ("b", "c"))] == ["b", "c", "a"]  # type: ignore[union-attr]
    assert book.choose("p", 1, ("a", "b", "c")) is None


def test_what_is_avoided_gives_way_to_a_worse_fit() -> None:
    book, _ = rooms(node("a", 2), node("b", 4))
    assert book.choose("p", 2, ("a",)) == Choice(Slot(node="b", devices=(0, 1)), 4, 2, 2, 2_000)


def test_only_open_nodes_count() -> None:
    book, _ = rooms(node("a", offer=Offer.CORDONED), node("b", offer=Offer.LOST), node("c", pool="q"))
    assert (book.choose("p", 1), book.open_nodes("p"), book.most_free("p"), book.free("a")) == (None, 0, 0, 0)
    assert (book.open_nodes("q"), book.most_free("q"), book.free("c"), book.free("nobody")) == (1, 4, 4, 0)


def test_a_node_is_seen_anew_when_asked() -> None:
    book, space = rooms(node("a"), node("b", order=1))
    space.take(Slot(node="b", devices=(0, 1)))
    assert book.free("b") == 4
    book.refresh("b")
    assert (book.free("b"), book.most_free("p"), book.open_nodes("p")) == (2, 4, 2)
    assert book.choose("p", 2).slot == Slot(node="b", devices=(2, 3))  # type: ignore[union-attr]
    book.refresh("b")
    book.refresh("nobody")
    space.take(Slot(node="a", devices=(0, 1, 2, 3)))
    book.refresh("a")
    assert book.most_free("p") == 2
    space.give(Slot(node="b", devices=(0, 1)))
    book.refresh("b")
    assert book.choose("p", 4).slot.node == "b"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("free", "gpus", "picked"),
    [
        pytest.param([0, 1, 2, 3], 2, (0, 1), id="inside the first clique"),
        pytest.param([1, 2, 3], 2, (2, 3), id="inside the clique that holds both"),
        pytest.param([0, 2, 3], 1, (0,), id="the smallest clique that holds it"),
        pytest.param([1, 3], 2, (1, 3), id="over two cliques where none holds both"),
        pytest.param([3, 2, 1, 0], 3, (0, 1, 2), id="lowest numbers first"),
        pytest.param([0, 1, 9], 1, (0,), id="a device the node does not know is of the first clique"),
    ],
)
def test_devices_stay_inside_a_clique(free: list[int], gpus: int, picked: tuple[int, ...]) -> None:
    assert pick_devices(node("a"), free, gpus) == picked


STEPS = st.lists(st.tuples(st.integers(1, 5), st.sampled_from("pq"), st.booleans()), max_size=20)
ORDERS = st.lists(st.integers(0, 2), min_size=6, max_size=6)


@given(STEPS, ORDERS)
def test_the_index_chooses_what_a_look_at_every_node_would(
    steps: list[tuple[int, str, bool]], orders: list[int]
) -> None:
    nodes = [node(name, 2 + i, orders[i], "pq"[i % 2]) for i, name in enumerate("fedcba")]
    book, space = rooms(*nodes)
    held: list[Slot] = []
    for gpus, pool, give_back in steps:
        if give_back and held:
            slot = held.pop(0)
            space.give(slot)
            book.refresh(slot.node)
            continue
        fit = [n for n in nodes if n.pool == pool and len(space.free_devices(n.name)) >= gpus]
        best = min(fit, key=lambda n: (len(space.free_devices(n.name)), n.order, n.name), default=None)
        chosen = book.choose(pool, gpus)
        assert (chosen is None) == (best is None)
        if chosen is not None and best is not None:
            free = len(space.free_devices(best.name))
            assert (chosen.slot.node, chosen.free, chosen.left, chosen.fit_nodes) == (
                best.name,
                free,
                free - gpus,
                len(fit),
            )
            assert chosen.slot.gpus == gpus
            space.take(chosen.slot)
            book.refresh(chosen.slot.node)
            held.append(chosen.slot)
