"""What the free room of a node is worth: the most that pods still to come could be worth in it.

Filling a node is a knapsack of GPUs and CPU. Pricing CPU at lambda takes the CPU out and leaves one knapsack per GPU,
plus one over whole GPUs for pods of several; the least over a ladder of lambda is an upper bound that is close and needs
nothing but table look-ups. Placing a pod where the bound falls least costs the future least: a node short of CPU has
GPUs worth little, so pods that need little CPU go there.

Amounts are whole millionths of a GPU: exact, so that an incremental score equals a recomputed one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from placement.packing.duals import Worths
from placement.packing.fleet import WHOLE, Fleet, Ints, Shape
from placement.packing.trials import Trials

LADDER = (0, 7, 17, 33, 67, 125, 250)
"""Prices of CPU: GPU-thousandths per core."""

FLOOR = 0.4
"""A pod is worth at least this share of the GPU it takes.

At full demand the programme prices small pods at nothing, since there are more gaps than pods for them; then any gap
looks as good as another. The floor keeps small pods in small gaps.
"""


class Worth:
    """Worth of nodes in millionths of a GPU, by product."""

    def __init__(self, worths: Worths, kinds: Sequence[str], widest: int, floor: float = FLOOR) -> None:
        self._ladder = np.array(LADDER, np.int64)
        items = [
            (shape, WHOLE * round(max(float(worth), floor * shape.gpus * shape.milli)))
            for shape, worth in zip(worths.shapes, worths.pods, strict=True)
            if shape.gpus
        ]
        parts, wholes, known = [], [], {}
        for kind in kinds:
            opened = tuple(item for item in items if not item[0].kinds or kind in item[0].kinds)
            if opened not in known:
                known[opened] = self._tables(opened, widest)
            part, whole = known[opened]
            parts.append(part)
            wholes.append(whole)
        self._part: Ints = np.array(parts, np.int64).reshape(len(kinds), WHOLE + 1, len(LADDER))
        self._whole: Ints = np.array(wholes, np.int64).reshape(len(kinds), widest + 1, len(LADDER))

    def _tables(self, items: Sequence[tuple[Shape, int]], widest: int) -> tuple[Ints, Ints]:
        """Worth of a partly used GPU [level, price] (0 at 1000) and of so many free GPUs [count, price]."""
        single: dict[int, Ints] = {}
        several: dict[int, Ints] = {}
        for shape, worth in items:
            net = np.maximum(0, worth - self._ladder * shape.cpu_millis)
            table, key = (single, shape.milli) if shape.gpus == 1 else (several, shape.gpus)
            table[key] = np.maximum(table.get(key, 0), net)
        part = np.zeros((WHOLE + 1, len(self._ladder)), np.int64)
        sizes = np.array(sorted(single), np.int64)
        gains = np.array([single[int(size)] for size in sizes], np.int64).reshape(-1, len(self._ladder))
        for level in range(1, WHOLE + 1):
            fitting = int(np.searchsorted(sizes, level, side="right"))
            part[level] = part[level - 1]
            if fitting:
                filled = part[level - sizes[:fitting]] + gains[:fitting]
                np.maximum(part[level], filled.max(axis=0), out=part[level])
        whole = np.zeros((widest + 1, len(self._ladder)), np.int64)
        for count in range(1, widest + 1):
            whole[count] = whole[count - 1] + part[WHOLE]
            for gpus, gain in several.items():
                if gpus <= count:
                    np.maximum(whole[count], whole[count - gpus] + gain, out=whole[count])
        part[WHOLE] = 0
        return part, whole

    def of(self, fleet: Fleet, rows: Ints) -> Ints:
        """Worth of each row as it is."""
        free, kind = fleet.free[rows], fleet.kind[rows]
        partly = self._part[kind[:, None], free].sum(axis=1)
        return self._least(partly, (free == WHOLE).sum(axis=1), fleet.cpu[rows], kind)

    def loss(self, fleet: Fleet, rows: Ints, trials: Trials) -> Ints:
        """Worth before less worth after each trial."""
        free, kind = fleet.free[rows], fleet.kind[rows]
        partly, count = self._part[kind[:, None], free].sum(axis=1), (free == WHOLE).sum(axis=1)
        before = self._least(partly, count, fleet.cpu[rows], kind)
        at, kinds = trials.position, kind[trials.position]
        changed = self._part[kinds, trials.new] - self._part[kinds, trials.old]
        broken = trials.times * (trials.old == WHOLE)
        after = self._least(partly[at] + trials.times * changed, count[at] - broken, trials.cpu, kinds)
        return np.asarray(before[at] - after)

    def _least(self, partly: Ints, count: Ints, cpu: Ints, kind: Ints) -> Ints:
        return np.asarray((self._ladder * cpu[:, None] + partly + self._whole[kind, count]).min(axis=1))
