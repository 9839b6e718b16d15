"""Devices that are given out in shares: what is left of those that were begun, node by node, as shares are taken.

A begun device counts as taken to whoever wants a whole one, whoever is on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.hardware import Slot
from cluster.snapshot import Snapshot

Ints = NDArray[np.int64]
WHOLE = 1_000

Begun = dict[int, list[int]]
"""Thousandths left on each begun device, rising, by row."""


class Room(NamedTuple):
    """Room for shares of one size: how many, and the thousandths that are left on begun devices or are its own."""

    units: int
    begun_milli: int


class Taken(NamedTuple):
    """A share's row, and whether it is the first on its device."""

    row: int
    begins: bool


def is_part(slot: Slot) -> bool:
    """Whether a slot is a share of a device whose number is known; of an unknown one it counts as whole."""
    return slot.shares and min(slot.devices, default=-1) >= 0


class Parts:
    """Begun devices by row. `row_of` numbers the open nodes."""

    def __init__(self, view: Snapshot, row_of: Mapping[str, int]) -> None:
        self._divisible = {row for name, row in row_of.items() if view.nodes[name].divisible}
        used: dict[tuple[int, int], int] = {}
        for claim in view.claims.values():
            row = row_of.get(claim.slot.node)
            if row is not None and is_part(claim.slot):
                for device in claim.slot.devices:
                    used[row, device] = used.get((row, device), 0) + claim.slot.milli_per_device
        self._begun: Begun = {}
        for (row, _), milli in sorted(used.items()):
            self._begun.setdefault(row, []).append(max(0, WHOLE - milli))
        for found in self._begun.values():
            found.sort()

    def devices(self, width: int) -> Ints:
        """How many devices are begun, on each of `width` rows."""
        found = np.zeros(width, dtype=np.int64)
        for row, left in self._begun.items():
            found[row] = len(left)
        return found

    def begun(self) -> Begun:
        """What is left now, to be put back by `restore`."""
        return {row: list(left) for row, left in self._begun.items()}

    def restore(self, begun: Begun) -> None:
        """Put back what was left then."""
        self._begun = {row: list(left) for row, left in begun.items()}

    def room(self, rows: Ints, milli: int, vacant: Ints, reach: Ints | None, own: int) -> Room:
        """Room on these rows: on begun devices, on `vacant` ones, and for the `own` shares that are there already."""
        units = begun = 0
        for row in rows.tolist():
            if row not in self._divisible:
                continue
            left = self._begun.get(row, [])
            here = sum(each // milli for each in left) + int(vacant[row]) * (WHOLE // milli)
            units += here if reach is None else min(here, int(reach[row]))
            begun += sum(left)
        return Room(units + own, begun + own * milli)

    def take(self, rows: Ints, milli: int, vacant: Ints, inside: NDArray[np.bool_] | None) -> Taken | None:
        """Take one share: of the begun device it leaves least of, else of a vacant device of the node with the fewest."""
        open_rows = [r for r in rows.tolist() if r in self._divisible and (inside is None or inside[r])]
        fits = [
            (each - milli, rank, row)
            for rank, row in enumerate(open_rows)
            for each in self._begun.get(row, ())
            if each >= milli
        ]
        if fits:
            over, _, row = min(fits)
            left = self._begun[row]
            left.remove(over + milli)
            left.append(over)
            left.sort()
            return Taken(row, begins=False)
        whole = [(int(vacant[row]), rank, row) for rank, row in enumerate(open_rows) if vacant[row] > 0]
        if not whole:
            return None
        row = min(whole)[2]
        self._begun.setdefault(row, []).append(WHOLE - milli)
        self._begun[row].sort()
        return Taken(row, begins=True)
