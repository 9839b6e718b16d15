"""Whatever comes: scores kept equal scores computed anew, no capacity is exceeded, and order alone breaks ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.packing.duals import stocks_of
from placement.packing.fleet import Fleet, Machine, Placed, Request, shape_of
from placement.packing.fragmentation import Fragmentation, Typical, typical
from placement.packing.moving import make_room
from placement.packing.packer import Packer
from placement.packing.registry import RULES, Setting, rule_of
from placement.packing.trials import trials_of

KINDS = ("A", "B")
LASTING = [name for name in RULES if name != "random"]

machines = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, 40),
        st.integers(1, 20),
        st.lists(st.sampled_from([1_000, 1_000, 0, 300]), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=6,
).map(
    lambda rows: [
        Machine(
            name=f"n{i}",
            kind=kind,
            cpu_millis=1_000 * cpu,
            memory_bytes=memory,
            free_millis=tuple(free),
            order=i // 2,
        )
        for i, (kind, cpu, memory, free) in enumerate(rows)
    ]
)
pods = st.lists(
    st.builds(
        lambda cpu, memory, size, kinds: Request(1_000 * cpu, memory, *size, kinds),
        st.integers(0, 8),
        st.integers(0, 4),
        st.sampled_from([(0, 0), (1, 200), (1, 300), (1, 700), (1, 1_000), (2, 1_000)]),
        st.sampled_from([(), (), ("A",), ("B",), KINDS]),
    ),
    min_size=1,
    max_size=25,
)


def made(name: str, nodes: list[Machine], workload: list[Request]) -> Packer:
    fleet = Fleet(nodes)
    shapes = [shape_of(pod) for pod in workload]
    counted = [Typical(shape, shapes.count(shape)) for shape in sorted(set(shapes))]
    generator = np.random.Generator(np.random.PCG64(7))
    setting = Setting(typical(workload), counted, fleet.kinds, stocks_of(nodes), generator)
    return Packer(fleet, rule_of(name, setting))


@pytest.mark.parametrize("name", LASTING)
@settings(max_examples=12, deadline=None)
@given(nodes=machines, workload=pods, data=st.data())
def test_kept_scores_equal_scores_computed_anew(name, nodes, workload, data):
    packer = made(name, nodes, workload)
    held: list[tuple[Request, Placed]] = []
    for pod in workload:
        if held and data.draw(st.integers(0, 3)) == 0:
            packer.remove(*held.pop(data.draw(st.integers(0, len(held) - 1))))
        placed = packer.place(pod)
        if placed is not None:
            held.append((pod, placed))
        for each in set(workload):
            kept, devices = packer.scores(each)
            again, devices_again = Packer(packer.fleet, packer.rule).scores(each)
            assert kept.tolist() == again.tolist()
            fit = kept > -np.inf
            assert devices[fit].tolist() == devices_again[fit].tolist()


@pytest.mark.parametrize("name", list(RULES))
@settings(max_examples=12, deadline=None)
@given(nodes=machines, workload=pods)
def test_no_capacity_is_exceeded_and_nothing_that_fits_is_refused(name, nodes, workload):
    packer = made(name, nodes, workload)
    by_name = {node.name: node for node in nodes}
    taken: list[tuple[Request, Placed]] = []
    for pod in workload:
        placed = packer.place(pod)
        if placed is None:
            fleet = packer.fleet
            fits = fleet.fits(shape_of(pod), np.arange(len(fleet))) & (fleet.memory >= pod.memory_bytes)
            assert not fits.any()
        else:
            taken.append((pod, placed))
    for row, node in enumerate(packer.fleet.names):
        here = [(pod, placed) for pod, placed in taken if placed.row == row]
        assert sum(pod.cpu_millis for pod, _ in here) <= by_name[node].cpu_millis
        assert sum(pod.memory_bytes for pod, _ in here) <= by_name[node].memory_bytes
        assert all(not pod.gpus or not pod.kinds or by_name[node].kind in pod.kinds for pod, _ in here)
        for device, free in enumerate(by_name[node].free_millis):
            assert sum(pod.milli for pod, placed in here if device in placed.devices) <= free
    assert all(len(set(placed.devices)) == pod.gpus for pod, placed in taken)


@pytest.mark.parametrize("name", LASTING)
@settings(max_examples=12, deadline=None)
@given(nodes=machines, workload=pods, data=st.data())
def test_the_order_of_the_list_of_nodes_changes_nothing(name, nodes, workload, data):
    shuffled = data.draw(st.permutations(nodes))
    one, other = made(name, nodes, workload), made(name, list(shuffled), list(reversed(workload)))
    for pod in workload:
        assert one.place(pod) == other.place(pod)
    assert one.fleet.names == other.fleet.names


@settings(max_examples=50, deadline=None)
@given(nodes=machines, workload=pods)
def test_the_fall_of_fragmentation_is_that_of_the_state_after(nodes, workload):
    fleet = Fleet(nodes)
    measure = Fragmentation(typical(workload), fleet.kinds)
    for pod in workload:
        rows = np.nonzero(
            fleet.fits(shape_of(pod), np.arange(len(fleet))) & (fleet.memory >= pod.memory_bytes)
        )[0]
        trials = trials_of(fleet, shape_of(pod), rows)
        told = measure.gain(fleet, rows, trials)
        before = measure.of(fleet, rows)
        for i, at in enumerate(trials.position):
            placed = Placed(int(rows[at]), fleet.devices(int(rows[at]), pod, int(trials.device[i])))
            fleet.take(pod, placed)
            assert told[i] == before[at] - measure.of(fleet, rows)[at]
            fleet.give(pod, placed)


@settings(max_examples=50, deadline=None)
@given(nodes=machines, workload=pods)
def test_a_move_makes_room_and_exceeds_nothing(nodes, workload):
    packer = made("bestfit", nodes, workload)
    hosted: dict[int, list[tuple[int, Request, Placed]]] = {}
    for key, pod in enumerate(workload):
        placed = packer.place(pod)
        if placed is not None:
            hosted.setdefault(placed.row, []).append((key, pod, placed))
            continue
        before = packer.fleet.free.sum(), packer.fleet.cpu.sum(), len(packer.fleet.log)
        move = make_room(packer, pod, hosted)
        if move is None:
            assert before == (packer.fleet.free.sum(), packer.fleet.cpu.sum(), len(packer.fleet.log))
            continue
        assert move.source.row == move.placed.row != move.target.row
        assert packer.fleet.free.sum() == before[0] - pod.gpu_millis
        assert packer.fleet.free.min() >= 0 <= packer.fleet.cpu.min()
        index = next(i for i, each in enumerate(hosted[move.source.row]) if each[0] == move.key)
        key_moved, moved, _ = hosted[move.source.row].pop(index)
        hosted.setdefault(move.target.row, []).append((key_moved, moved, move.target))
        hosted.setdefault(move.placed.row, []).append((key, pod, move.placed))


def test_one_move_lets_a_whole_gpu_in():
    nodes = [
        Machine(name=n, kind="A", cpu_millis=64_000, memory_bytes=9, free_millis=(1_000,), order=i)
        for i, n in enumerate("ab")
    ]
    small, whole = Request(1_000, 1, 1, 300), Request(1_000, 1, 1, 1_000)
    packer = made("bestfit", nodes, [small, whole])
    places = [Placed(0, (0,)), Placed(1, (0,))]
    for place in places:
        packer.put(small, place)
    hosted = {row: [(row, small, place)] for row, place in enumerate(places)}
    assert packer.best(whole) is None
    move = make_room(packer, whole, hosted)
    assert move is not None
    assert (move.key, move.source, move.target, move.placed) == (0, places[0], places[1], places[0])
    assert packer.fleet.free.tolist() == [[0], [400]]
