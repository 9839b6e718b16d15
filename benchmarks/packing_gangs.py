"""Packing with gangs waiting: the largest gang that could start at once, over time, with and without the term that keeps it.

Data (`--data DIR`): as for `packing`. Pods of one openb list (`default`, else the first) come and go on its nodes; beside
them come gangs of one and of two whole nodes of 8 GPUs of one product, which wait in line until they can start. All rules see
the same arrivals and lifetimes. Seeds 42-44, or the one of `--seed`.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Mapping
from statistics import mean
from typing import NamedTuple

import numpy as np

from benchmarks.base import Arguments, BenchmarkError, Figure, Result, Row, Table, data_folder
from benchmarks.packing_runs import Trace, arrivals, pod_lists, read
from placement.packing.duals import stocks_of, worths_of
from placement.packing.fleet import WHOLE, Fleet, Placed, Request
from placement.packing.fragmentation import Fragmentation, typical
from placement.packing.packer import Packer
from placement.packing.registry import Setting, rule_of
from placement.packing.rules.priced_fgd import PricedFgd, PricedFgdConfig
from placement.packing.rules.rule import Rule
from placement.packing.worth import Worth

SEEDS = (42, 43, 44)
NODE_GPUS = 8
GANG_LOAD = 0.20
"""Share of all GPUs that gangs want on average, half of it gangs of one node."""

LOADS = (0.90, 0.96)
"""Shares of all GPUs that pods and gangs want together."""

GANG_LIFETIME = 0.25
"""Mean life of a gang; that of a pod is 1. Both are drawn from exponential distributions."""

WARM_UP, END = 1.0, 3.0
OPERATORS = 20.0
"""The operator's charge (`policies/place/priced_fgd.py`)."""

TERMS = {"ours, no term": 0.0, "ours, 20": OPERATORS, "ours, 60": 60.0}


class Coming(NamedTuple):
    """When something comes, how long it stays, and what it is: a pod's index, or (below 0) a gang of so many nodes."""

    at: float
    stays: float
    what: int


class Seen(NamedTuple):
    """Means over time of one run: GPUs of the largest gang that could start, percent of GPUs allocated; then mean wait of
    gangs of one and two nodes (in thousandths of a pod's mean life), gangs that still waited at the end, and percent of pods
    refused.
    """

    largest_gpus: float
    allocated: float
    wait_of_one: float
    wait_of_two: float
    waiting: float
    refused: float


def run(args: Arguments) -> Result:
    """Plays every rule on every seed. Raises: BenchmarkError when the data is not there, or has no node of 8 GPUs."""
    folder = data_folder(args, "training-placement") / "openb"
    lists = pod_lists(folder)
    name = "default" if "default" in lists else next(iter(lists))
    trace = read(folder, name, lists[name])
    if not any(node.gpus == NODE_GPUS for node in trace.nodes):
        raise BenchmarkError(
            f"{folder}: no node has {NODE_GPUS} GPUs: gangs of whole nodes have nowhere to go."
        )
    seeds = (args.seed,) if args.one_seed else SEEDS[:1] if args.quick else SEEDS
    end = WARM_UP + 0.1 if args.quick else END
    rules = ("bestfit", "fgd", *TERMS)
    found = {
        f"{load:.0%}": {rule: [play(trace, rule, seed, end, load) for seed in seeds] for rule in rules}
        for load in LOADS
    }
    return _result(found, name, len(seeds))


def _result(found: Mapping[str, Mapping[str, list[Seen]]], name: str, seeds: int) -> Result:
    table: Table = {
        f"{load}, {rule}": _mean(runs)._asdict() for load, by in found.items() for rule, runs in by.items()
    }
    rows = [_row(f"{load}: {rule}", runs) for load, by in found.items() for rule, runs in by.items()]
    figures: dict[str, Figure | Table] = {"by_load_and_rule": table, "seeds": seeds, "trace": name}
    remark = (
        f"Largest gang of whole nodes of {NODE_GPUS} GPUs of one product that could start, mean over time ({name}; gangs want"
        f" {GANG_LOAD:.0%} of all GPUs, pods the rest). Waits of gangs of one and of two nodes are in thousandths of a pod's mean life; refused are pods. The operator charges"
        f" {OPERATORS:g}."
    )
    return Result(rows=tuple(rows), figures=figures, remark=remark)


def _mean(runs: list[Seen]) -> Seen:
    return Seen(*(round(mean(values), 3) for values in zip(*runs, strict=True)))


def _row(name: str, runs: list[Seen]) -> Row:
    seen = _mean(runs)
    largest = [each.largest_gpus for each in runs]
    return Row(
        name,
        f"{seen.largest_gpus:.0f} GPUs ({min(largest):.0f} to {max(largest):.0f})",
        f"waits {seen.wait_of_one:.1f}, {seen.wait_of_two:.1f}; refused {seen.refused:.2f} %",
    )


def coming(trace: Trace, seed: int, end: float, load: float) -> list[Coming]:
    """What comes until `end`, in order: Poisson arrivals, exponential lives, the same for every rule. As many as there are on
    average are there from the beginning.
    """
    generator = np.random.Generator(np.random.PCG64([seed, 2]))
    gpus = trace.capacity_millis / WHOLE
    each = sum(pod.gpu_millis for pod in trace.pods) / WHOLE / len(trace.pods)
    found = [
        Coming(at, float(generator.exponential(1.0)), int(generator.integers(len(trace.pods))))
        for at in _times(generator, (load - GANG_LOAD) * gpus / each, 1.0, end)
    ]
    for nodes in (1, 2):
        rate = GANG_LOAD / 2 * gpus / (nodes * NODE_GPUS * GANG_LIFETIME)
        found += [
            Coming(at, float(generator.exponential(GANG_LIFETIME)), -nodes)
            for at in _times(generator, rate, GANG_LIFETIME, end)
        ]
    return sorted(found)


def _times(generator: np.random.Generator, rate: float, lifetime: float, end: float) -> list[float]:
    first = [0.0] * int(generator.poisson(rate * lifetime))
    return first + sorted(float(at) for at in generator.uniform(0.0, end, int(generator.poisson(rate * end))))


def play(trace: Trace, rule: str, seed: int, end: float, load: float) -> Seen:
    """One rule on the arrivals of one seed."""
    machines = arrivals(trace, seed).machines
    fleet = Fleet(machines)
    setting = Setting(
        typical(trace.pods),
        trace.workload,
        fleet.kinds,
        stocks_of(machines),
        np.random.Generator(np.random.PCG64(seed)),
    )
    made: Callable[[], Rule] = (
        (lambda: _priced(setting, TERMS[rule])) if rule in TERMS else lambda: rule_of(rule, setting)
    )
    cluster = Cluster(Packer(fleet, made()), trace.pods)
    for each in coming(trace, seed, end, load):
        cluster.until(each.at)
        cluster.comes(each)
    cluster.until(end)
    return cluster.seen(trace.capacity_millis, end)


def _priced(setting: Setting, gang_milli: float) -> Rule:
    widest = max(stock.gpus for stock in setting.stocks)
    worth = Worth(worths_of(setting.workload, setting.stocks), setting.kinds, widest)
    config = PricedFgdConfig(gang_milli=gang_milli)
    return PricedFgd(Fragmentation(setting.typical, setting.kinds), worth, config)


class Cluster:
    """Pods and gangs on one fleet, as time goes by."""

    def __init__(self, packer: Packer, pods: tuple[Request, ...], warm_up: float = WARM_UP) -> None:
        self._packer, self._pods, self._warm_up = packer, pods, warm_up
        self._leaving: list[tuple[float, int, list[tuple[Request, Placed]]]] = []
        self._queue: deque[Coming] = deque()
        self._now, self._number, self._allocated = 0.0, 0, 0
        self._largest = self._largest_over_time = self._allocated_over_time = 0.0
        self._waits: dict[int, list[float]] = {1: [], 2: []}
        self._came = self._refused = 0

    def until(self, at: float) -> None:
        """Let time pass: what has lived leaves, and gangs that wait start."""
        while self._leaving and self._leaving[0][0] <= at:
            when, _, places = heapq.heappop(self._leaving)
            self._pass(when)
            for request, placed in places:
                self._packer.remove(request, placed)
                self._allocated -= request.gpu_millis
            self._start_gangs()
        self._pass(at)

    def _pass(self, at: float) -> None:
        spent = max(0.0, at - max(self._now, self._warm_up))
        self._largest_over_time += spent * self._largest
        self._allocated_over_time += spent * self._allocated
        self._now = at

    def comes(self, each: Coming) -> None:
        """A pod comes and goes where the rule says, or away; a gang stands in line."""
        if each.what < 0:
            self._queue.append(each)
        else:
            pod = self._pods[each.what]
            placed = self._packer.place(pod)
            late = each.at >= self._warm_up
            self._came += late
            if placed is None:
                self._refused += late
            else:
                self._stay(each.stays, [(pod, placed)])
        self._start_gangs()

    def _stay(self, seconds: float, places: list[tuple[Request, Placed]]) -> None:
        self._number += 1
        self._allocated += sum(request.gpu_millis for request, _ in places)
        heapq.heappush(self._leaving, (self._now + seconds, self._number, places))

    def _start_gangs(self) -> None:
        """Those in line start in order; nobody overtakes."""
        free = self._free_nodes()
        while self._queue:
            gang = self._queue[0]
            nodes = -gang.what
            fitting = [rows for rows in free.values() if len(rows) >= nodes]
            if not fitting:
                break
            rows = min(fitting, key=lambda found: (len(found), found))
            member = Request(0, 0, NODE_GPUS, WHOLE)
            places = [(member, Placed(row, tuple(range(NODE_GPUS)))) for row in rows[:nodes]]
            for request, placed in places:
                self._packer.put(request, placed)
            del rows[:nodes]
            self._queue.popleft()
            self._stay(gang.stays, places)
            if gang.at >= self._warm_up:
                self._waits[nodes].append(self._now - gang.at)
        self._largest = float(NODE_GPUS * max((len(rows) for rows in free.values()), default=0))

    def _free_nodes(self) -> dict[int, list[int]]:
        """Wholly free nodes of 8 GPUs, by product."""
        fleet = self._packer.fleet
        free = np.flatnonzero((fleet.size == NODE_GPUS) & (fleet.free.sum(axis=1) == NODE_GPUS * WHOLE))
        found: dict[int, list[int]] = {}
        for row in free.tolist():
            found.setdefault(int(fleet.kind[row]), []).append(row)
        return found

    def seen(self, capacity_millis: int, end: float) -> Seen:
        """What was measured from the warm-up to the end."""
        span = max(end - self._warm_up, 1e-9)
        still = [(-gang.what, end - gang.at) for gang in self._queue if gang.at >= self._warm_up]
        waits = {n: [*found, *(w for m, w in still if m == n)] for n, found in self._waits.items()}
        return Seen(
            self._largest_over_time / span,
            100.0 * self._allocated_over_time / span / capacity_millis,
            1_000.0 * mean(waits[1] or [0.0]),
            1_000.0 * mean(waits[2] or [0.0]),
            float(len(self._queue)),
            100.0 * self._refused / max(1, self._came),
        )
