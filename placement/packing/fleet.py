"""Machines with whole and fractional GPUs, as columns: what is free on each, and a log of what changed.

Rows stand in the order of `Machine.order` (ties by name), so that "the first of the best" is the fixed tie-break
that every rule here needs: random ties cost more than the choice of the rule (research: training-placement §1.4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

WHOLE = 1_000
"""Thousandths of a GPU."""


class PackingError(ValueError):
    """A machine, request or placement that cannot be; the sentence says which and why."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A node as packing sees it: what is free now, per device in thousandths (0: taken, unhealthy or not ours)."""

    name: str
    kind: str
    cpu_millis: int
    memory_bytes: int
    free_millis: tuple[int, ...]
    order: int = 0


class Request(msgspec.Struct, frozen=True):
    """What one pod needs: millicores, bytes, GPUs, thousandths of each, GPU products it accepts (none means any).

    Raises: PackingError for negative amounts, a share outside 1..1000, or several GPUs of less than 1000 each.
    """

    cpu_millis: int
    memory_bytes: int
    gpus: int
    milli: int
    kinds: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.cpu_millis < 0 or self.memory_bytes < 0 or self.gpus < 0:
            raise PackingError(f"{self}: no amount may be negative")
        if self.gpus and not 1 <= self.milli <= WHOLE:
            raise PackingError(f"{self}: milli must lie between 1 and {WHOLE}")
        if self.gpus > 1 and self.milli != WHOLE:
            raise PackingError(f"{self}: only a single GPU can be shared")

    @property
    def shared(self) -> bool:
        """Whether it takes a fraction of one GPU."""
        return self.gpus == 1 and self.milli < WHOLE

    @property
    def gpu_millis(self) -> int:
        """Thousandths of GPUs in all."""
        return self.gpus * self.milli


class Shape(NamedTuple):
    """What of a request a score depends on; memory only decides whether it fits."""

    cpu_millis: int
    gpus: int
    milli: int
    kinds: tuple[str, ...]


def shape_of(request: Request) -> Shape:
    """The request without its memory, and without products where it wants no GPU."""
    if not request.gpus:
        return Shape(request.cpu_millis, 0, 0, ())
    return Shape(request.cpu_millis, request.gpus, request.milli, tuple(sorted(request.kinds)))


class Placed(NamedTuple):
    """Where a request is: the fleet's row and its devices."""

    row: int
    devices: tuple[int, ...]


class Fleet:
    """Columns over machines; `take` and `give` are the only changes and are logged by row."""

    __slots__ = ("cpu", "free", "kind", "kinds", "log", "memory", "names", "row_of", "size")

    def __init__(self, machines: Sequence[Machine]) -> None:
        rows = sorted(machines, key=lambda machine: (machine.order, machine.name))
        width = max((len(machine.free_millis) for machine in rows), default=0)
        self.names = tuple(machine.name for machine in rows)
        self.row_of = {name: row for row, name in enumerate(self.names)}
        if len(self.row_of) != len(rows):
            raise PackingError("two machines have one name")
        self.kinds = tuple(sorted({machine.kind for machine in rows}))
        number = {kind: k for k, kind in enumerate(self.kinds)}
        self.kind = np.array([number[machine.kind] for machine in rows], np.int64)
        self.cpu = np.array([machine.cpu_millis for machine in rows], np.int64)
        self.memory = np.array([machine.memory_bytes for machine in rows], np.int64)
        self.size = np.array([len(machine.free_millis) for machine in rows], np.int64)
        self.free = np.zeros((len(rows), max(1, width)), np.int64)
        for row, machine in enumerate(rows):
            self.free[row, : len(machine.free_millis)] = machine.free_millis
        if self.free.size and not 0 <= self.free.min() <= self.free.max() <= WHOLE:
            raise PackingError(f"a machine's free_millis lie outside 0..{WHOLE}")
        self.log: list[int] = []

    def __len__(self) -> int:
        return len(self.names)

    def accepts(self, kinds: Sequence[str]) -> Flags:
        """Which products (in the order of `kinds`) a request accepts; none named means any."""
        return np.array([not kinds or kind in kinds for kind in self.kinds], np.bool_)

    def fits(self, shape: Shape, rows: Ints) -> Flags:
        """Whether a shape fits on each of the rows, memory apart."""
        fit = self.cpu[rows] >= shape.cpu_millis
        if shape.gpus:
            fit &= (self.free[rows] >= shape.milli).sum(axis=1) >= shape.gpus
            if shape.kinds:
                fit &= self.accepts(shape.kinds)[self.kind[rows]]
        return fit

    def devices(self, row: int, request: Request, device: int) -> tuple[int, ...]:
        """The devices a request takes on a row: the one chosen for a share, else the first that are free."""
        if request.shared:
            return (device,)
        free = np.nonzero(self.free[row] >= WHOLE)[0][: request.gpus]
        return tuple(int(index) for index in free)

    def take(self, request: Request, placed: Placed) -> None:
        """Charge a placement. Raises: PackingError, changing nothing, where it does not fit."""
        row, devices = placed
        lacking = len(devices) != request.gpus or any(self.free[row, d] < request.milli for d in devices)
        if lacking or self.cpu[row] < request.cpu_millis or self.memory[row] < request.memory_bytes:
            raise PackingError(f"{request} does not fit on {self.names[row]}, devices {devices}")
        self._add(request, placed, -1)

    def give(self, request: Request, placed: Placed) -> None:
        """Give a placement back."""
        self._add(request, placed, 1)

    def reset(self, row: int, cpu_millis: int, memory_bytes: int, free_millis: Sequence[int]) -> None:
        """Look at a machine again: what is free there now is told anew."""
        self.cpu[row], self.memory[row] = cpu_millis, memory_bytes
        self.free[row, : len(free_millis)] = free_millis
        self.log.append(row)

    def _add(self, request: Request, placed: Placed, sign: int) -> None:
        row, devices = placed
        self.cpu[row] += sign * request.cpu_millis
        self.memory[row] += sign * request.memory_bytes
        for device in devices:
            self.free[row, device] += sign * request.milli
        self.log.append(row)

    def free_gpus(self) -> Ints:
        """Wholly free GPUs of each row."""
        return np.asarray((self.free == WHOLE).sum(axis=1), np.int64)
