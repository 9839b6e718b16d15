"""The protocol of FGD's evaluation on openb traces (research: training-placement §4.2), and what one run of it gives.

GPU nodes only, their order permuted by the seed. All pods of the list, shuffled, then pods drawn from it again until
the GPU that was asked for reaches 130 % of the cluster. Nothing departs. A pod that fits nowhere is dropped.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.base import BenchmarkError
from placement.packing.duals import best_fill, stocks_of
from placement.packing.fleet import WHOLE, Fleet, Machine, Placed, Request, shape_of
from placement.packing.fragmentation import Typical, typical
from placement.packing.moving import make_room
from placement.packing.packer import Packer
from placement.packing.registry import RULES, Setting, rule_of
from simulator.traces.openb import OpenbNode, OpenbPod, read_nodes, read_pods
from simulator.traces.requests import Tally, TraceError

ARRIVAL = 1.3
NODES = "openb_node_list_gpu_node.csv"
"""The node list of the protocol; where it is not there, the only one that is."""

OTHER_NODES = "openb_node_list_*.csv"
MOST_ARRIVALS = 1_000_000
"""Pods of one sequence; more would take hours a rule."""

PODS = "openb_pod_list_"
GANG_LOAD = 0.8
"""Share of the cluster allocated at which the largest gang that could start is measured."""

MOVING = "ours_moving"
"""`ours` with at most one live migration for each pod that found no room."""


class Stranded(NamedTuple):
    """Pods that no node holds even when it is empty: how many, the name of the first, and percent of the GPUs that the list
    asks for.
    """

    pods: int = 0
    first: str = ""
    asked: float = 0.0


class Trace(NamedTuple):
    """Nodes and pods as published, and what does not change between seeds. `workload` has the pods that some node holds when
    it is empty; those that are `stranded` come like all others, and every rule refuses them.
    """

    name: str
    nodes: tuple[OpenbNode, ...]
    pods: tuple[Request, ...]
    workload: tuple[Typical, ...]
    capacity_millis: int
    stranded: Stranded = Stranded()


class Ran(NamedTuple):
    """One rule on one arrival sequence: percent allocated at the end and at 100 % arrival, milliseconds per pod with
    and without setting the rule up, pods dropped, pods moved, wholly free nodes at `GANG_LOAD` (None: never loaded so).
    """

    allocated: float
    allocated_at_100: float
    milliseconds: float
    milliseconds_setup: float
    dropped: int
    moved: int
    free_nodes: int | None


def pod_lists(folder: Path) -> dict[str, Path]:
    """Every pod list there, by trace. Raises: BenchmarkError where there is none, or no node list."""
    node_list(folder)
    found = {path.stem.removeprefix(PODS): path for path in sorted(folder.glob(PODS + "*.csv"))}
    if not found:
        raise BenchmarkError(f"{folder} has no {PODS}*.csv: give the folder above openb/ with --data.")
    return found


def node_list(folder: Path) -> Path:
    """The list of nodes. Raises: BenchmarkError where there is none, or several others than the protocol's."""
    if (folder / NODES).exists():
        return folder / NODES
    found = sorted(folder.glob(OTHER_NODES))
    if not found:
        raise BenchmarkError(f"{folder / NODES} is missing: give the folder above openb/ with --data.")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise BenchmarkError(
            f"{folder} has {names}, and no {NODES}: leave one of them, or give it that name."
        )
    return found[0]


def read(folder: Path, name: str, path: Path) -> Trace:
    """One trace. Raises: BenchmarkError where a file cannot be read, or has a line that is not understood."""
    listed = node_list(folder)
    try:
        nodes = tuple(node for node in read_nodes(listed, strict=True) if node.gpus)
        named = [(pod.name, _request(pod)) for pod in read_pods(path, strict=True, tally=Tally())]
    except TraceError as error:
        raise BenchmarkError(str(error)) from None
    pods = tuple(pod for _, pod in named)
    capacity = WHOLE * sum(node.gpus for node in nodes)
    if not capacity:
        raise BenchmarkError(f"{listed}: none of its nodes has a GPU (column gpu): give a list of GPU nodes.")
    if not any(pod.gpus for pod in pods):
        raise BenchmarkError(
            f"{path}: none of its {len(pods)} pods wants a GPU (column num_gpu), there is nothing to pack: take the file out."
        )
    _look_at_length(path, pods, capacity)
    held = _held(nodes, pods)
    counts = Counter(shape_of(pod) for pod in pods if pod in held)
    workload = tuple(Typical(shape, number) for shape, number in sorted(counts.items()))
    return Trace(name, nodes, pods, workload, capacity, _stranded(named, held))


def _held(nodes: Sequence[OpenbNode], pods: Sequence[Request]) -> frozenset[Request]:
    """Those of the pods that some node holds when it is empty."""
    sizes = {(node.product, node.gpus, node.cpu_millis, node.memory_bytes) for node in nodes}
    return frozenset(
        pod
        for pod in set(pods)
        if any(
            pod.gpus <= gpus
            and pod.cpu_millis <= cpu
            and pod.memory_bytes <= memory
            and (not pod.gpus or not pod.kinds or product in pod.kinds)
            for product, gpus, cpu, memory in sizes
        )
    )


def _stranded(named: Sequence[tuple[str, Request]], held: frozenset[Request]) -> Stranded:
    lost = [(name, pod) for name, pod in named if pod not in held]
    if not lost:
        return Stranded()
    asked = sum(pod.gpu_millis for _, pod in named)
    return Stranded(len(lost), lost[0][0], 100.0 * sum(pod.gpu_millis for _, pod in lost) / asked)


def _look_at_length(path: Path, pods: Sequence[Request], capacity_millis: int) -> None:
    """Raises: BenchmarkError where it takes too many pods to ask for 130 % of the cluster."""
    each = sum(pod.gpu_millis for pod in pods) / len(pods)
    expected = max(float(len(pods)), ARRIVAL * capacity_millis / each)
    if expected > MOST_ARRIVALS:
        raise BenchmarkError(
            f"{path}: its pods want {each:.1f} thousandths of a GPU on average, so that {expected:.0f} would have to come; at"
            f" most {MOST_ARRIVALS} are played: give fewer nodes, or a list with larger pods."
        )


def _request(pod: OpenbPod) -> Request:
    return Request(
        pod.cpu_millis, pod.memory_bytes, pod.gpus, pod.milli_per_gpu, tuple(sorted(set(pod.products)))
    )


def bound(trace: Trace) -> float:
    """Percent in use at best if no pod is refused that a node can hold: cutting stock over the GPUs alone."""
    return 100.0 * best_fill(trace.workload) if any(pod.shape.gpus for pod in trace.workload) else 0.0


class Arrivals(NamedTuple):
    """Machines in their permuted order, and indices of pods as they come."""

    machines: tuple[Machine, ...]
    pods: tuple[int, ...]


def arrivals(trace: Trace, seed: int) -> Arrivals:
    """The sequence of one seed: the list shuffled, cut at 130 % of the cluster where it asks for more, else drawn on to there.

    FGD's simulator prunes random pods of such a list, which is the same in distribution as the end of a shuffled one.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    rank = np.argsort(generator.permutation(len(trace.nodes)))
    machines = _machines(trace.nodes, rank.tolist())
    coming = [int(index) for index in generator.permutation(len(trace.pods))]
    asked, wanted = sum(pod.gpu_millis for pod in trace.pods), ARRIVAL * trace.capacity_millis
    while asked > wanted:
        asked -= trace.pods[coming.pop()].gpu_millis
    while asked < wanted:
        index = int(generator.integers(len(trace.pods)))
        coming.append(index)
        asked += trace.pods[index].gpu_millis
    return Arrivals(machines, tuple(coming))


def _machines(nodes: Sequence[OpenbNode], ranks: Sequence[int]) -> tuple[Machine, ...]:
    return tuple(
        Machine(
            name=node.name,
            kind=node.product,
            cpu_millis=node.cpu_millis,
            memory_bytes=node.memory_bytes,
            free_millis=(WHOLE,) * node.gpus,
            order=rank,
        )
        for node, rank in zip(nodes, ranks, strict=True)
    )


def play(trace: Trace, coming: Arrivals, policy: str, seed: int) -> Ran:
    """One rule over one sequence."""
    fleet = Fleet(coming.machines)
    begun = time.process_time()
    setting = Setting(
        typical(trace.pods),
        trace.workload,
        fleet.kinds,
        stocks_of(coming.machines),
        np.random.Generator(np.random.PCG64([seed, 1])),
    )
    packer = Packer(fleet, rule_of("ours" if policy == MOVING else policy, setting))
    ready = time.process_time()
    pods = [trace.pods[index] for index in coming.pods]
    run = _Play(packer, trace.capacity_millis, moving=policy == MOVING)
    for key, pod in enumerate(pods):
        run.come(key, pod)
    spent = time.process_time() - ready
    each = 1_000.0 / len(pods)
    return Ran(
        100.0 * run.allocated / trace.capacity_millis,
        100.0 * (run.allocated if run.at_100 is None else run.at_100) / trace.capacity_millis,
        spent * each,
        (spent + ready - begun) * each,
        run.dropped,
        run.moved,
        run.free_nodes,
    )


class _Play:
    """What happens as pods come."""

    def __init__(self, packer: Packer, capacity_millis: int, *, moving: bool) -> None:
        self._packer, self._capacity, self._moving = packer, capacity_millis, moving
        self._hosted: dict[int, list[tuple[int, Request, Placed]]] = {}
        self.asked = self.allocated = self.dropped = self.moved = 0
        self.at_100: int | None = None
        self.free_nodes: int | None = None

    def come(self, key: int, pod: Request) -> None:
        """One pod arrives."""
        if self.at_100 is None and self.asked + pod.gpu_millis > self._capacity:
            self.at_100 = self.allocated
        self.asked += pod.gpu_millis
        placed = self._packer.place(pod)
        if placed is None and self._moving:
            placed = self._move(pod)
        if placed is None:
            self.dropped += 1
            return
        self.allocated += pod.gpu_millis
        if self._moving:
            self._hosted.setdefault(placed.row, []).append((key, pod, placed))
        if self.free_nodes is None and self.allocated >= GANG_LOAD * self._capacity:
            fleet = self._packer.fleet
            self.free_nodes = int((fleet.free_gpus() == fleet.size).sum())

    def _move(self, pod: Request) -> Placed | None:
        move = make_room(self._packer, pod, self._hosted)
        if move is None:
            return None
        self.moved += 1
        pods = self._hosted[move.source.row]
        index = next(i for i, each in enumerate(pods) if each[0] == move.key)
        key, moved, _ = pods.pop(index)
        self._hosted.setdefault(move.target.row, []).append((key, moved, move.target))
        return move.placed


def policies(*, quick: bool) -> Sequence[str]:
    """What is run: every rule of the registry, and ours with migrations."""
    return ("bestfit", "fgd", "ours") if quick else (*RULES, MOVING)
