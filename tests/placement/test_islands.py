"""Islands and cuts: which nodes take a gang, and how few ways its model is cut."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.base import Ref
from cluster.hardware import AcceleratorClass, Device, Nic, Node, Offer
from cluster.training import Job, TrainingShape
from placement.training.degrees import Degrees, degrees_for, parameters, state_bytes
from placement.training.islands import Fit, Shortage, choose_island, islands_of, link_rank

SMALL = TrainingShape(layers=24, hidden_size=2048, sequence_length=2048, vocabulary=32_000)
L4 = AcceleratorClass(
    ref=Ref("AcceleratorClass", "L4"), memory_bytes=24 * 2**30, bandwidth_bytes_per_second=1, flops={}, min_watts=1,
    max_watts=1, tdp_watts=1, safe_watts=1,
)  # fmt: skip
PRODUCTS = {
    "L4": L4,
    "H100": msgspec.structs.replace(L4, ref=Ref("AcceleratorClass", "H100"), memory_bytes=80 * 2**30),
}


def nic(link: str, gigabits: int = 100) -> Nic:
    return Nic(name=link, link=link, rate_bits_per_second=gigabits * 10**9)


def node(
    name: str, *nics: Nic, gpus: int = 4, island: str = "x", accelerator: str = "L4", **more: Any
) -> Node:
    return Node(
        ref=Ref("Node", name, name), pool="p", accelerator=accelerator, nics=nics or (nic("ethernet", 25),), island=island,
        devices=tuple(Device(uuid=f"{name}{i}", index=i) for i in range(gpus)), **more,
    )  # fmt: skip


def job(**more: Any) -> Job:
    given: dict[str, Any] = {
        "ref": Ref("TrainingJob", "lab/x"), "shape": SMALL, "steps": 1, "global_batch": 64, "min_nodes": 2, "max_nodes": 2,
        "gpus_per_node": 4,
    }  # fmt: skip
    return Job(**{**given, **more})


def known(*nodes: Node) -> dict[str, Node]:
    return {n.name: n for n in nodes}


def choose(
    *nodes: Node, free: dict[str, int] | None = None, prefer: tuple[str, ...] = (), **spec: Any
) -> Fit | Shortage:
    vacant = {n.name: len(n.devices) for n in nodes} | (free or {})
    return choose_island(islands_of(known(*nodes)), vacant, job(**spec), PRODUCTS, prefer)


def names(found: Fit | Shortage) -> list[str]:
    assert isinstance(found, Fit)
    return [n.name for n in found.nodes]


def test_an_island_is_one_product_on_one_network() -> None:
    found = islands_of(
        known(
            node("a"), node("b", nic("roce"), nic("ethernet", 25)), node("c", nic("roce", 50)), node("d", island="y"),
            node("e", accelerator="H100"), node("f", offer=Offer.CORDONED), node("g", nic("infiniband")),
        )
    )  # fmt: skip
    assert [(i.name, i.accelerator, i.link, i.rate, [n.name for n in i.nodes]) for i in found] == [
        ("x", "L4", "infiniband", 100 * 10**9, ["g"]),
        ("x", "L4", "roce", 50 * 10**9, ["b", "c"]),
        ("x", "H100", "ethernet", 25 * 10**9, ["e"]),
        ("x", "L4", "ethernet", 25 * 10**9, ["a"]),
        ("y", "L4", "ethernet", 25 * 10**9, ["d"]),
    ]
    assert found[1].members == (("b", 4), ("c", 4))
    assert found[0].text == "x (L4, infiniband)"
    assert islands_of(known(node("a", island="")))[0].text == "no island (L4, ethernet)"
    assert islands_of({}) == []


def test_of_equal_networks_the_faster_comes_first_and_no_nic_is_slowest() -> None:
    found = islands_of(
        known(node("a", nic("roce", 50), island="slow"), node("b", nic("roce", 90), island="fast"))
    )
    assert [i.name for i in found] == ["fast", "slow"]
    bare = msgspec.structs.replace(node("c"), nics=())
    assert [(i.link, i.rate) for i in islands_of(known(bare))] == [("none", 0)]
    assert [link_rank(link) for link in ("infiniband", "roce", "ethernet", "none")] == [0, 1, 2, 3]


def test_nodes_of_an_island_are_in_topology_order() -> None:
    one = node("a", topology=("z", "r2"))
    two = node("c", topology=("z", "r1"), order=5)
    three = node("b", topology=("z", "r1"), order=5)
    four = node("d", topology=("z", "r1"), order=1)
    assert [n.name for n in islands_of(known(one, two, three, four))[0].nodes] == ["d", "b", "c", "a"]


def test_a_gang_takes_the_fastest_kind_of_network_first() -> None:
    nodes = [
        node(f"{link[0]}{i}", nic(link)) for link in ("ethernet", "roce", "infiniband") for i in range(2)
    ]
    assert names(choose(*nodes)) == ["i0", "i1"]
    assert names(choose(*nodes, free={"i0": 0})) == ["r0", "r1"]


def test_a_fit_tells_its_island_its_cut_and_what_was_free() -> None:
    found = choose(node("a"), node("b"), node("c"))
    assert isinstance(found, Fit)
    assert (found.island.name, found.free_nodes, found.degrees) == ("x", 3, Degrees(1, 1, 8, (24,)))


def test_more_nodes_win_up_to_the_most_that_are_asked_for() -> None:
    few = [node(f"a{i}", island="few") for i in range(2)]
    many = [node(f"b{i}", island="many") for i in range(4)]
    assert len(names(choose(*few, *many, max_nodes=4))) == 4
    assert len(names(choose(*few, *many, max_nodes=3, global_batch=48))) == 3
    assert names(choose(*few, *many, max_nodes=2)) == ["a0", "a1"], (
        "of equals the one with the fewest left over"
    )


def test_nodes_it_holds_already_are_preferred() -> None:
    one = [node(f"a{i}", island="one") for i in range(2)]
    two = [node(f"b{i}", island="two") for i in range(3)]
    assert names(choose(*one, *two, prefer=("b2",))) == ["b0", "b2"]
    assert names(choose(*one, *two, prefer=("a1", "b2", "b1"))) == ["b1", "b2"]


def test_partly_used_nodes_are_taken_before_whole_ones() -> None:
    nodes = [node(f"n{i}", gpus=8) for i in range(3)]
    assert names(choose(*nodes, free={"n1": 4, "n2": 5})) == ["n1", "n2"]


def test_a_free_island_is_named_by_place_of_equal_ones() -> None:
    assert names(
        choose(node("b0", island="b"), node("b1", island="b"), node("a0", island="a"), node("a1", island="a"))
    ) == ["a0", "a1"]


@pytest.mark.parametrize(
    ("nodes", "spec", "shortage"),
    [
        pytest.param((), {}, Shortage("any network", 0, 0, 2), id="no node at all"),
        pytest.param((node("a"),), {}, Shortage("x (L4, ethernet)", 1, 1, 2), id="one node of two"),
        pytest.param((node("a", gpus=2), node("b", gpus=2)), {}, Shortage("any network", 0, 0, 2), id="nodes that are too small"),
        pytest.param((node("a"), node("b", island="y"), node("c", island="y", gpus=2)), {"min_nodes": 3, "max_nodes": 3}, Shortage("x (L4, ethernet)", 1, 1, 3), id="of equals the first is named"),
        pytest.param((node("a"), node("b", accelerator="H100")), {"accelerators": ("A100",)}, Shortage("any network", 0, 0, 2), id="no product that is allowed"),
        pytest.param((node("a"), node("b"), node("c")), {"global_batch": 7, "micro_batch": 2}, Shortage("x (L4, ethernet)", 3, 3, 2, divides=False), id="a batch that nothing divides"),
        pytest.param((node("a", accelerator="B300"), node("b", accelerator="B300")), {}, Shortage("x (B300, ethernet)", 2, 2, 2, divides=False), id="a product of unknown memory holds nothing"),
    ],
)  # fmt: skip
def test_what_comes_closest_when_nothing_fits(
    nodes: tuple[Node, ...], spec: dict[str, Any], shortage: Shortage
) -> None:
    assert choose(*nodes, **spec) == shortage


def test_used_nodes_count_as_nodes_but_not_as_free() -> None:
    nodes = [node(f"n{i}") for i in range(3)]
    assert choose(*nodes, free={"n0": 3, "n1": 0}) == Shortage("x (L4, ethernet)", 1, 3, 2)


# cuts


def test_parameters_and_state_of_a_shape() -> None:
    assert parameters(SMALL) == 12 * 24 * 2048**2 + 32_000 * 2048
    assert state_bytes(SMALL, 1, 1) == parameters(SMALL) * 16
    assert state_bytes(SMALL, 4, 6) == parameters(SMALL) / 4 * 6


def shape(billions: float, layers: int = 32) -> TrainingShape:
    width = round((billions * 1e9 / (12 * layers)) ** 0.5)
    return TrainingShape(layers=layers, hidden_size=width, sequence_length=2048, vocabulary=1)


@pytest.mark.parametrize(
    ("spec", "nodes", "gigabytes", "cut"),
    [
        pytest.param({}, 2, 24, Degrees(1, 1, 8, (24,)), id="a small model is not cut"),
        pytest.param({}, 1, 24, Degrees(1, 1, 4, (24,)), id="on one node"),
        pytest.param({"shape": shape(7)}, 2, 24, Degrees(4, 1, 2, (32,)), id="a larger one is cut inside the node"),
        pytest.param({"shape": shape(10)}, 2, 24, Degrees(4, 2, 1, (16, 16)), id="a still larger one over nodes too"),
        pytest.param({"shape": shape(7)}, 2, 80, Degrees(1, 1, 8, (32,)), id="more memory needs no cut"),
        pytest.param({"shape": shape(70)}, 2, 24, None, id="a model that does not fit at all"),
        pytest.param({"global_batch": 12}, 2, 24, None, id="a batch that the data parallel degree does not divide"),
        pytest.param({"global_batch": 16, "micro_batch": 2}, 2, 24, Degrees(1, 1, 8, (24,)), id="micro batches that just divide it"),
        pytest.param({"global_batch": 16, "micro_batch": 3}, 2, 24, None, id="micro batches that do not"),
        pytest.param({"shape": shape(13, layers=3)}, 4, 24, Degrees(4, 2, 2, (2, 1)), id="earlier stages take the remainder"),
        pytest.param({"shape": shape(30, layers=1)}, 4, 24, None, id="no more stages than layers"),
        pytest.param({"gpus_per_node": 6, "global_batch": 12, "shape": shape(8)}, 2, 24, Degrees(3, 1, 4, (32,)), id="six devices are cut by divisors"),
    ],
)  # fmt: skip
def test_the_smallest_cut_that_fits(
    spec: dict[str, Any], nodes: int, gigabytes: int, cut: Degrees | None
) -> None:
    assert degrees_for(job(**spec), nodes, gigabytes * 2**30) == cut


def test_memory_that_just_holds_the_state_does() -> None:
    need = state_bytes(SMALL, 1, 8) / 0.8
    assert degrees_for(job(), 2, int(need) + 1) == Degrees(1, 1, 8, (24,))
    assert degrees_for(job(), 2, int(need) - 1) != Degrees(1, 1, 8, (24,))


def test_a_finer_cut_is_taken_where_only_that_divides_the_batch() -> None:
    assert degrees_for(job(global_batch=12), 2, 24 * 2**30, any_cut=True) == Degrees(2, 1, 4, (24,))
    assert degrees_for(job(global_batch=7), 2, 24 * 2**30, any_cut=True) == Degrees(4, 2, 1, (12, 12))
    assert degrees_for(job(global_batch=7, micro_batch=2), 2, 24 * 2**30, any_cut=True) is None


def test_an_island_prefers_fewer_nodes_without_a_needless_cut() -> None:
    three = [node(f"n{i}") for i in range(3)]
    found = choose(*three, max_nodes=3, global_batch=16)
    assert isinstance(found, Fit)
    assert (len(found.nodes), found.degrees) == (2, Degrees(1, 1, 8, (24,)))
    odd = choose(*three, min_nodes=3, max_nodes=3, global_batch=18)
    assert isinstance(odd, Fit)
    assert (len(odd.nodes), odd.degrees.data) == (3, 6)
