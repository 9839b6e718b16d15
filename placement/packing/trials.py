"""What a node would look like with one more pod on it: one trial per distinct device level, so that rules compare
states without copying nodes.

A trial changes `times` devices of a node from the free level `old` to `new` and leaves `cpu` millicores.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.packing.fleet import WHOLE, Fleet, Floats, Ints, Shape


class Trials(NamedTuple):
    """Columns [m]: position in the rows asked for, device (-1 for whole GPUs), levels, devices changed, CPU left.

    Sorted by position, then device.
    """

    position: Ints
    device: Ints
    old: Ints
    new: Ints
    times: int
    cpu: Ints


def trials_of(fleet: Fleet, shape: Shape, rows: Ints) -> Trials:
    """Every way to place a shape on rows it fits on: the distinct free levels of a share, one way for whole GPUs."""
    cpu = fleet.cpu[rows] - shape.cpu_millis
    if shape.gpus != 1 or shape.milli == WHOLE:
        count = len(rows)
        level = np.full(count, WHOLE if shape.gpus else 0)
        return Trials(np.arange(count), np.full(count, -1), level, np.zeros(count, np.int64), shape.gpus, cpu)
    free = fleet.free[rows]
    usable = free >= shape.milli
    for later in range(1, free.shape[1]):
        usable[:, later] &= (free[:, :later] != free[:, later : later + 1]).all(axis=1)
    position, device = np.nonzero(usable)
    old = free[position, device]
    return Trials(position, device, old, old - shape.milli, 1, cpu[position])


def best_of(trials: Trials, scores: Floats, count: int) -> tuple[Floats, Ints]:
    """Best score of each of `count` rows and the lowest device that reaches it."""
    best = np.full(count, -np.inf)
    np.maximum.at(best, trials.position, scores)
    device = np.full(count, -1, np.int64)
    first = np.nonzero(scores == best[trials.position])[0][::-1]
    device[trials.position[first]] = trials.device[first]
    return best, device


def tightest(fleet: Fleet, shape: Shape, rows: Ints) -> Ints:
    """The device of a share with the least left over (lowest number first); -1 for whole GPUs."""
    if shape.gpus != 1 or shape.milli == WHOLE:
        return np.full(len(rows), -1, np.int64)
    free = fleet.free[rows]
    return np.asarray(np.argmin(np.where(free >= shape.milli, free, 2 * WHOLE), axis=1), np.int64)
