"""One live migration for a pod that found no room: move one pod of a node elsewhere, and take its place.

Bounded: the `NODES` nodes with the most free GPU of a product that the pod accepts, and at most `PODS` pods on each.
The smallest pod that helps is moved, so that the least state travels. Source of the goal: training-placement §5.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from placement.packing.fleet import Placed, Request, shape_of
from placement.packing.packer import Packer

NODES = 48
PODS = 24


class Move(NamedTuple):
    """The pod that moved (its key), from where to where, and where the pod it made room for is now."""

    key: int
    source: Placed
    target: Placed
    placed: Placed


def make_room(
    packer: Packer, request: Request, hosted: Mapping[int, Sequence[tuple[int, Request, Placed]]]
) -> Move | None:
    """Moves one pod so that `request` fits, charges both, and says so; None, with nothing changed, where none helps.

    `hosted` lists the pods of each row that may move, as (key, request, place).
    """
    elsewhere: dict[Request, Placed | None] = {}
    for row in _candidates(packer, request):
        pods = sorted(hosted.get(row, ()), key=lambda pod: (pod[1].gpu_millis, pod[1].cpu_millis, pod[0]))
        for key, pod, place in pods[:PODS]:
            if not _helps(packer, row, request, pod, place):
                continue
            if pod not in elsewhere:
                elsewhere[pod] = packer.best(pod)
            target = elsewhere[pod]
            if target is not None and target.row == row:
                other = packer.choose(pod, np.array([row]))
                target = other.placed if other is not None else None
            if target is None:
                continue
            return _carry_out(packer, request, key, pod, place, target)
    return None


def _candidates(packer: Packer, request: Request) -> list[int]:
    """Rows by free GPU, most first."""
    fleet, shape = packer.fleet, shape_of(request)
    rows = np.nonzero(fleet.accepts(shape.kinds)[fleet.kind] & (fleet.size >= request.gpus))[0]
    free = fleet.free[rows].sum(axis=1) if request.gpus else fleet.cpu[rows]
    return [int(row) for row in rows[np.argsort(-free, kind="stable")[:NODES]]]


def _helps(packer: Packer, row: int, request: Request, pod: Request, place: Placed) -> bool:
    """Whether the request fits on the row once the pod is gone."""
    fleet = packer.fleet
    if int(fleet.cpu[row]) + pod.cpu_millis < request.cpu_millis:
        return False
    if int(fleet.memory[row]) + pod.memory_bytes < request.memory_bytes:
        return False
    free = fleet.free[row].tolist()
    for device in place.devices:
        free[device] += pod.milli
    return not request.gpus or sum(1 for left in free if left >= request.milli) >= request.gpus


def _carry_out(
    packer: Packer, request: Request, key: int, pod: Request, place: Placed, target: Placed
) -> Move | None:
    packer.remove(pod, place)
    packer.put(pod, target)
    fleet, row = packer.fleet, place.row
    usable = np.nonzero(fleet.free[row] >= request.milli)[0]
    device = int(usable[np.argmin(fleet.free[row][usable])]) if request.shared else -1
    placed = Placed(row, fleet.devices(row, request, device))
    packer.put(request, placed)
    return Move(key, place, target, placed)
