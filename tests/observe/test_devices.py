"""Devices of a node: what kubelet, agent and drivers say of them, each believed for less."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.hardware import AcceleratorClass
from controller.hub.messages import InventorySeen
from controller.observe import intents
from controller.observe.devices import Devices, Holding, devices_of
from controller.observe.dra import Announced
from tests.observe import objects as made
from tests.observe.objects import device, inventory


def product(**spec: Any) -> AcceleratorClass:
    return intents.accelerator(made.accelerator(**spec))[0]


WHOLE = product()
SLICES = product(sharing="mig", resourceName="nvidia.com/mig-1g.5gb")
CLAIMED = product(sharing="dra")


def announced(*numbers: int, usable: tuple[int, ...] | None = None) -> tuple[Announced, ...]:
    return tuple(
        Announced("gpu.nvidia.com", "n1", f"gpu-{i}", uuid=f"GPU-{i}", number=i, usable=usable is None or i in usable)
        for i in numbers
    )  # fmt: skip


def usable(found: Devices) -> list[int]:
    return [each.index for each in found.devices if each.healthy]


def eight() -> InventorySeen:
    return inventory(*(device(i) for i in range(8)))


@pytest.mark.parametrize(
    ("allocatable", "holding", "offered", "rest", "lost"),
    [
        pytest.param(8, Holding(), None, [*range(8)], 0, id="all of eight"),
        pytest.param(7, Holding(), None, [*range(7)], 0, id="seven, nobody there: the last is out"),
        pytest.param(7, Holding(), range(1, 8), [*range(1, 8)], 0, id="seven, and the kubelet says which one is out"),
        pytest.param(7, Holding(frozenset({7})), None, [0, 1, 2, 3, 4, 5, 7], 0, id="one that a pod has is not taken from it"),
        pytest.param(7, Holding(frozenset(range(8))), None, [*range(8)], 1, id="all are in use: none is taken, the next free one is nobody's"),
        pytest.param(7, Holding(frozenset(range(8)) - {3}), None, [0, 1, 2, 4, 5, 6, 7], 0, id="that next one came free"),
        pytest.param(7, Holding(unnumbered=8), None, [*range(8)], 1, id="all are in use, by pods of unknown devices"),
        pytest.param(6, Holding(frozenset({0}), 6), None, [*range(7)], 1, id="two too many, one of them free"),
        pytest.param(0, Holding(frozenset({0, 1})), None, [0, 1], 2, id="the device plugin is gone under two pods"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("found", [eight(), None], ids=["with an agent", "without one"])
def test_a_node_that_offers_fewer_than_it_has(
    found: InventorySeen | None,
    allocatable: int,
    holding: Holding,
    offered: range | None,
    rest: list[int],
    lost: int,
) -> None:
    obj = made.node(gpus=allocatable, capacity={"nvidia.com/gpu": "8"})
    result = devices_of(obj, found, WHOLE, holding, (), offered)
    assert (usable(result), result.lost) == (rest, lost)
    assert (result.allocatable, result.present) == (allocatable, 8)


@given(
    healthy=st.sets(st.integers(0, 7)),
    allocatable=st.integers(0, 9),
    numbered=st.sets(st.integers(0, 7)),
    unnumbered=st.integers(0, 4),
)
def test_never_more_is_given_away_than_the_scheduler_would_bind(
    healthy: set[int], allocatable: int, numbered: set[int], unnumbered: int
) -> None:
    """Whatever is in use: what is free in the model, less what is kept back, never exceeds what is offered and unused."""
    found = inventory(*(device(i, healthy=i in healthy) for i in range(8)))
    obj = made.node(gpus=allocatable, capacity={"nvidia.com/gpu": "8"})
    result = devices_of(obj, found, WHOLE, Holding(frozenset(numbered), unnumbered))
    free = len(set(usable(result)) - numbered) - unnumbered - result.lost
    assert free <= max(0, allocatable - len(numbered) - unnumbered)
    assert set(usable(result)) <= healthy
    assert numbered & healthy <= set(usable(result)), "nothing is taken from a pod that has it"


def test_parts_of_a_gpu_are_counted_by_the_kubelet_not_by_the_driver() -> None:
    obj = made.node(gpus=0, allocatable={"nvidia.com/mig-1g.5gb": "14"})
    result = devices_of(obj, inventory(device(0), device(1)), SLICES)
    assert (len(usable(result)), result.lost) == (14, 0)


@pytest.mark.parametrize(
    ("found", "gpus", "rest"),
    [
        pytest.param(None, announced(0, 1), [0, 1], id="announced, and no agent"),
        pytest.param(None, announced(0, 1, usable=(1,)), [1], id="one of them tainted"),
        pytest.param(eight(), announced(2, 5), [2, 5], id="of an agent's eight, those announced"),
        pytest.param(eight(), announced(2, 5, usable=(5,)), [5], id="and not tainted"),
        pytest.param(inventory(device(0), device(1, healthy=False)), announced(0, 1), [0], id="the driver calls one sick"),
        pytest.param(eight(), (), [], id="announced nowhere"),
        pytest.param(None, (*announced(0), Announced("gpu.nvidia.com", "n1", "mig", parent="GPU-0")), [0], id="a slice is no GPU"),
    ],
)  # fmt: skip
def test_with_claims_what_drivers_announce_counts(
    found: InventorySeen | None, gpus: tuple[Announced, ...], rest: list[int]
) -> None:
    assert usable(devices_of(made.node(gpus=0), found, CLAIMED, Holding(), gpus)) == rest


def test_a_gpu_offered_both_ways_is_one_gpu() -> None:
    for accelerator in (WHOLE, CLAIMED):
        result = devices_of(made.node(gpus=8), eight(), accelerator, Holding(), announced(*range(8)))
        assert len(usable(result)) == 8
