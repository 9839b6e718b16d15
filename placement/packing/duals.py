"""What each pod of the workload is worth, from a linear programme over the whole cluster, by column generation.

    minimise    GPUs used + penalty of what is left out
    subject to  patterns and whole GPUs serve the demand of each shape          dual: worth of a pod
                GPUs and CPU of each group of like machines                      dual: price of a GPU, of CPU

A pattern fills one GPU with shares; which machines may run it depends on the products its pods accept, and its CPU is
charged to them. So a worth knows GPU, CPU and product. Demand is scaled to just below what could be packed at best,
where prices say most (research: training-placement §5.1). HiGHS, one thread, fixed seed; every loop bounded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import highspy
import numpy as np

from placement.packing.fleet import WHOLE, Floats, Machine, Shape
from placement.packing.fragmentation import Typical

ROUNDS = 120
CLASSES = 300
"""Most shapes that are priced, the most frequent ones; the others are worth what they take."""

FILL = 0.97
"""Demand as a share of the best packing of the GPUs alone."""

PENALTY = 2.0
"""GPUs that leaving out a pod costs for each GPU it wants."""

NEAR = 1e-4
"""Column generation ends when no better programme than by this share can exist."""

_TIGHT = 1e-7
_CORES = 1e4
"""CPU rows are in tens of cores, so that all coefficients are of one size."""

_OPTIONS: dict[str, bool | int | str] = {
    "output_flag": False,
    "threads": 1,
    "random_seed": 1,
    "presolve": "off",
    "solver": "simplex",
}


class Stock(NamedTuple):
    """Like machines: product, GPUs and millicores of each when empty."""

    kind: str
    gpus: int
    cpu_millis: int
    machines: int


class Worths(NamedTuple):
    """GPU-thousandths a pod of each shape is worth [s], a GPU of each stock [h] and a core of it [h] beyond that.

    `left_out` is the share of the GPUs wanted that the programme could not serve.
    """

    shapes: tuple[Shape, ...]
    pods: Floats
    gpus: Floats
    cores: Floats
    left_out: float


class DualError(RuntimeError):
    """HiGHS ended without an answer to a programme that has one."""


def stocks_of(machines: Sequence[Machine]) -> tuple[Stock, ...]:
    """Like machines counted; what is taken now is taken as if it were free."""
    found = Counter((machine.kind, len(machine.free_millis), machine.cpu_millis) for machine in machines)
    return tuple(Stock(*key, count) for key, count in sorted(found.items()) if key[1] > 0)


def best_fill(pods: Sequence[Typical]) -> float:
    """Share of GPUs in use at best if no pod is refused, CPU and products apart (cutting stock); at most 1."""
    merged: Counter[Shape] = Counter()
    for shape, count in pods:
        if shape.gpus:
            merged[Shape(0, shape.gpus, shape.milli, ())] += count
    wanted = sum(shape.gpus * shape.milli * count for shape, count in merged.items())
    if not wanted:
        return 1.0
    demand = [Typical(shape, count) for shape, count in sorted(merged.items())]
    programme = _Programme(demand, [Stock("", WHOLE, 0, 2 * sum(merged.values()))], [1.0] * len(demand))
    return min(1.0, wanted / (WHOLE * programme.solve(near=0.0)))


def holdable(pods: Sequence[Typical], stocks: Sequence[Stock]) -> list[Typical]:
    """The pods that some machine holds when it is empty: of its product, with as many GPUs and as much CPU."""
    return [pod for pod in pods if any(_holds(stock, pod.shape) for stock in stocks)]


def _holds(stock: Stock, shape: Shape) -> bool:
    known = not shape.kinds or stock.kind in shape.kinds
    return known and shape.gpus <= stock.gpus and shape.cpu_millis <= stock.cpu_millis


def worths_of(pods: Sequence[Typical], stocks: Sequence[Stock], fill: float = FILL) -> Worths:
    """Worths of the most frequent shapes of a workload that these machines can hold. Raises: DualError."""
    possible = holdable(pods, stocks)
    kept = sorted(sorted(possible, key=lambda pod: (-pod.number, pod.shape))[:CLASSES])
    wanted = sum(shape.gpus * shape.milli * count for shape, count in kept)
    capacity = WHOLE * sum(stock.gpus * stock.machines for stock in stocks)
    if not wanted or not capacity:
        shapes = tuple(pod.shape for pod in kept)
        return Worths(shapes, np.zeros(len(kept)), np.zeros(len(stocks)), np.zeros(len(stocks)), 0.0)
    scale = fill * best_fill(kept) * capacity / wanted
    programme = _Programme(kept, stocks, [scale] * len(kept))
    programme.solve()
    return programme.worths()


class _Programme:
    """The master programme; rows: shapes, GPUs and CPU of each stock."""

    def __init__(self, pods: Sequence[Typical], stocks: Sequence[Stock], scale: Sequence[float]) -> None:
        self._shapes = tuple(pod.shape for pod in pods)
        self._stocks = tuple(stocks)
        self._demand = [pod.number * by for pod, by in zip(pods, scale, strict=True)]
        self._gpus = [float(stock.gpus * stock.machines) for stock in stocks]
        self._highs = highspy.Highs()  # type: ignore[no-untyped-call] # HiGHS types everything but this
        for name, value in _OPTIONS.items():
            self._highs.setOptionValue(name, value)
        infinity, none = highspy.kHighsInf, (0, np.zeros(0, np.int32), np.zeros(0))
        for demand in self._demand:
            self._highs.addRow(demand, infinity, *none)
        for gpus in self._gpus:
            self._highs.addRow(-infinity, gpus, *none)
        for stock in stocks:
            self._highs.addRow(-infinity, stock.cpu_millis * stock.machines / _CORES, *none)
        self._open = [
            [not shape.kinds or stock.kind in shape.kinds for shape in self._shapes] for stock in stocks
        ]
        self._dual: Floats = np.zeros(len(pods) + 2 * len(stocks))
        self._first_columns()

    def _add(self, cost: float, served: dict[int, int], stock: int, gpus: int) -> None:
        cpu = sum(self._shapes[s].cpu_millis * count for s, count in served.items())
        rows, values = list(served), [float(count) for count in served.values()]
        if stock >= 0:
            rows += [len(self._shapes) + stock, len(self._shapes) + len(self._stocks) + stock]
            values += [float(gpus), cpu / _CORES]
        self._highs.addCol(
            cost, 0.0, highspy.kHighsInf, len(rows), np.array(rows, np.int32), np.array(values)
        )

    def _first_columns(self) -> None:
        cores = sum(stock.cpu_millis * stock.machines for stock in self._stocks)
        per_cpu = sum(self._gpus) / cores if cores else 0.0
        for s, shape in enumerate(self._shapes):
            self._add(PENALTY * (shape.gpus or shape.cpu_millis * per_cpu), {s: 1}, -1, 0)
            for h, stock in enumerate(self._stocks):
                if not shape.gpus:
                    self._add(0.0, {s: 1}, h, 0)
                elif self._open[h][s] and shape.gpus <= stock.gpus:
                    together = WHOLE // shape.milli
                    self._add(float(shape.gpus), {s: together}, h, shape.gpus)

    def solve(self, near: float = NEAR) -> float:
        """Adds patterns until none pays (by the share `near`); returns the GPUs used and penalties."""
        value = math.inf
        for _ in range(ROUNDS):
            self._highs.run()
            if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
                raise DualError(
                    f"pricing pods ended as {self._highs.getModelStatus()}; are the amounts finite?"
                )
            value = self._highs.getInfo().objective_function_value
            self._dual = np.array(self._highs.getSolution().row_dual)
            gained = self._price()
            if gained <= near * value:
                break
        return float(value)

    def _price(self) -> float:
        """Adds the best pattern of each stock that pays; returns by how much the programme could still fall."""
        shapes, stocks = len(self._shapes), len(self._stocks)
        worth = self._dual[:shapes]
        gained, seen = 0.0, {}
        for h in range(stocks):
            gpu, cpu = -self._dual[shapes + h], -self._dual[shapes + stocks + h] / _CORES
            key = (tuple(self._open[h]), round(cpu, 12))
            if key not in seen:
                seen[key] = self._pattern(worth, cpu, self._open[h])
            value, served = seen[key]
            if value > 1.0 + gpu + _TIGHT:
                self._add(1.0, served, h, 1)
                gained += (value - 1.0 - gpu) * min(self._gpus[h], sum(self._demand))
        return gained

    def _pattern(self, worth: Floats, cpu: float, opened: Sequence[bool]) -> tuple[float, dict[int, int]]:
        """The set of pods on one GPU that is worth most at this price of a millicore."""
        items: dict[int, tuple[float, int]] = {}
        for s, shape in enumerate(self._shapes):
            net = float(worth[s]) - cpu * shape.cpu_millis
            if shape.gpus == 1 and opened[s] and net > items.get(shape.milli, (1e-9, 0))[0]:
                items[shape.milli] = (net, s)
        return fill_one(items)

    def worths(self) -> Worths:
        """The duals, in thousandths of a GPU."""
        shapes, stocks = len(self._shapes), len(self._stocks)
        values = np.array(self._highs.getSolution().col_value)
        dual = WHOLE * self._dual
        wanted = sum(s.gpus * d for s, d in zip(self._shapes, self._demand, strict=True))
        columns, out = 0, 0.0
        for shape in self._shapes:
            out += shape.gpus * float(values[columns])
            columns += 1 + sum(
                1
                for h, stock in enumerate(self._stocks)
                if not shape.gpus or (self._fits(shape, h) and shape.gpus <= stock.gpus)
            )
        return Worths(
            shapes=self._shapes,
            pods=np.maximum(0.0, dual[:shapes]),
            gpus=np.maximum(0.0, -dual[shapes : shapes + stocks]),
            cores=np.maximum(0.0, -dual[shapes + stocks :]) * WHOLE / _CORES,
            left_out=out / wanted if wanted else 0.0,
        )

    def _fits(self, shape: Shape, stock: int) -> bool:
        return not shape.kinds or self._stocks[stock].kind in shape.kinds


def fill_one(items: dict[int, tuple[float, int]]) -> tuple[float, dict[int, int]]:
    """The multiset of items {milli: (worth, label)} worth most on one GPU, as its worth and {label: count}."""
    if not items:
        return 0.0, {}
    step = math.gcd(WHOLE, *items)
    sizes = np.array(sorted(items), np.int64) // step
    gains = np.array([items[int(size) * step][0] for size in sizes])
    cells = WHOLE // step
    value, choice = np.zeros(cells + 1), np.full(cells + 1, -1)
    for room in range(1, cells + 1):
        value[room] = value[room - 1]
        fitting = int(np.searchsorted(sizes, room, side="right"))
        if fitting:
            with_each = value[room - sizes[:fitting]] + gains[:fitting]
            best = int(np.argmax(with_each))
            if with_each[best] > value[room] + 1e-12:
                value[room], choice[room] = with_each[best], best
    served: dict[int, int] = {}
    room = cells
    while room > 0:
        best = int(choice[room])
        if best < 0:
            room -= 1
            continue
        label = items[int(sizes[best]) * step][1]
        served[label] = served.get(label, 0) + 1
        room -= int(sizes[best])
    return float(value[cells]), served
