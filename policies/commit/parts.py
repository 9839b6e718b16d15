"""Devices that are given out in shares: who has how much of each that was begun, as shares are taken and give way.

A begun device counts as taken to whoever wants a whole one, unless all that is on it gives way: all of its shares or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.hardware import Offer, Slot
from cluster.snapshot import Snapshot
from policies.cheapest_set import Offer as Ending
from policies.cheapest_set import cheapest_set

Ints = NDArray[np.int64]
WHOLE = 1_000


class Holder(NamedTuple):
    """Who has a share: its key (empty: taken just now), its service (empty: not ours), thousandths, and its priority (None:
    it gives way to nobody).
    """

    key: str
    service: str
    milli: int
    priority: int | None = None

    def stays(self, priority: int, service: str) -> bool:
        """Whether it stays where an owner of `priority` wants its place; a service's own shares do not stand in its way."""
        if service and self.service == service:
            return False
        return self.priority is None or self.priority >= priority


Device = tuple[Holder, ...]


class Begun(NamedTuple):
    """Begun devices by row, and the keys of shares that gave way to others in this run."""

    devices: dict[int, list[Device]]
    ended: frozenset[str]


class Room(NamedTuple):
    """Room for shares of one size: how many, and the thousandths of begun devices that are in reach beside whole ones."""

    units: int
    begun_milli: int


class Free(NamedTuple):
    """Devices by row that nobody has, and those that an owner of some priority may have."""

    vacant: Ints
    available: Ints


class Seeker(NamedTuple):
    """A service that wants shares of `milli`, and its priority."""

    service: str
    priority: int
    milli: int


def is_part(slot: Slot) -> bool:
    """Whether a slot is a share of a device whose number is known; of an unknown one it counts as whole."""
    return slot.shares and min(slot.devices, default=-1) >= 0


def divides(view: Snapshot, pool: str) -> bool:
    """Whether nodes of a pool that are yet to come may be counted on for shares: its product is given out in shares, and
    no node that was bought of it stands there with devices that are not.
    """
    accelerator = view.accelerators.get(view.pools[pool].accelerator) if pool in view.pools else None
    if accelerator is None or accelerator.sharing != "dra" or not accelerator.share_capacities:
        return False
    bought = (n for n in view.nodes.values() if n.pool == pool and n.bought and n.offer is Offer.OPEN)
    return all(node.divisible for node in bought)


class Parts:
    """Begun devices by row. `row_of` numbers the open nodes, `ahead` are the rows of nodes yet to come that will divide their
    devices, `ours` says who has a claim of ours, by its key (None: it is on its way out).
    """

    def __init__(
        self,
        view: Snapshot,
        row_of: Mapping[str, int],
        ours: Mapping[str, Holder | None] | None = None,
        ahead: Iterable[int] = (),
    ) -> None:
        self._divisible = {row for name, row in row_of.items() if view.nodes[name].divisible} | set(ahead)
        self._ended: set[str] = set()
        known = ours or {}
        held: dict[tuple[int, int], list[Holder]] = {}
        for key in sorted(view.claims):
            claim = view.claims[key]
            row = row_of.get(claim.slot.node)
            if row is None or not is_part(claim.slot):
                continue
            found: Holder | None = Holder(claim.key, "", claim.slot.milli_per_device)
            for name in (claim.key, claim.key.rpartition("/")[0]):
                found = known.get(name, found)
            if found is not None:
                share = found._replace(milli=claim.slot.milli_per_device)
                for device in claim.slot.devices:
                    held.setdefault((row, device), []).append(share)
        self._begun: dict[int, list[Device]] = {}
        for (row, _), holders in sorted(held.items(), key=lambda item: item[0]):
            self._begun.setdefault(row, []).append(tuple(holders))

    # ------------------------------------------------------------------------------------------------- counting

    def devices(self, width: int) -> Ints:
        """How many devices are begun, on each of `width` rows."""
        found = np.zeros(width, dtype=np.int64)
        for row, devices in self._begun.items():
            found[row] = len(devices)
        return found

    def count(self, row: int) -> int:
        """The same, on one row."""
        return len(self._begun.get(row, ()))

    def firm(self, width: int, priority: int | None, service: str = "") -> Ints:
        """The same, of those on which somebody stays for an owner of `priority` (None: of those of others than services)."""
        found = np.zeros(width, dtype=np.int64)
        for row, devices in self._begun.items():
            found[row] = sum(1 for device in devices if _firm(device, priority, service))
        return found

    def has(self, key: str) -> bool:
        """Whether a share did not give way in this run."""
        return key not in self._ended

    def begun(self) -> Begun:
        """What stands now, to be put back by `restore`."""
        return Begun({row: list(found) for row, found in self._begun.items()}, frozenset(self._ended))

    def restore(self, begun: Begun) -> None:
        """Put back what stood then."""
        self._begun = {row: list(found) for row, found in begun.devices.items()}
        self._ended = set(begun.ended)

    def room(
        self, rows: Ints, who: Seeker, available: Ints, reach: Ints | None, own: Mapping[int, int]
    ) -> Room:
        """Room on these rows: on begun devices beside those that stay, and on `available` ones; for what it has by row
        (`own`) there is room whatever `reach` says.
        """
        units = begun = 0
        for row in rows.tolist():
            here = mine = 0
            if row in self._divisible:
                left = list(self._left(row, who))
                mine = sum(left)
                here = sum(each // who.milli for each in left) + int(available[row]) * (WHOLE // who.milli)
            here = here if reach is None else min(here, int(reach[row]))
            units += max(here, own.get(row, 0))
            begun += max(mine, own.get(row, 0) * who.milli if row not in self._divisible else 0)
        return Room(units, begun)

    def _left(self, row: int, who: Seeker) -> Iterator[int]:
        """Thousandths in reach of each begun device of a row that somebody stays on."""
        for device in self._begun.get(row, ()):
            if _firm(device, who.priority, who.service):
                staying = sum(h.milli for h in device if h.stays(who.priority, who.service))
                yield max(0, WHOLE - staying)

    # --------------------------------------------------------------------------------------------------- taking

    def drop(self, key: str) -> None:
        """A share goes by its service's own choice."""
        for row, devices in list(self._begun.items()):
            if any(holder.key == key for device in devices for holder in device):
                left = [tuple(h for h in device if h.key != key) for device in devices]
                self._put(row, [device for device in left if device])

    def take(self, rows: Iterable[int], who: Seeker, free: Free) -> int | None:
        """Take one share, and say on which row: on the begun device it leaves least of, else on a vacant device of the node
        with the fewest, else where the cheapest give way.
        """
        open_rows = [row for row in rows if row in self._divisible]
        fits = [
            (left - who.milli, rank, index)
            for rank, row in enumerate(open_rows)
            for index, device in enumerate(self._begun.get(row, ()))
            if (left := WHOLE - sum(holder.milli for holder in device)) >= who.milli
        ]
        if fits:
            _, rank, index = min(fits)
            return self._join(open_rows[rank], index, (), who)
        whole = [(int(free.vacant[row]), rank) for rank, row in enumerate(open_rows) if free.vacant[row] > 0]
        if whole:
            return self._begin(open_rows[min(whole)[1]], who)
        return self._displace(open_rows, who, free)

    def _displace(self, open_rows: list[int], who: Seeker, free: Free) -> int | None:
        """Take the place of shares of lower priorities, or of a whole device's owner of one."""
        best: tuple[int, int, int, tuple[int, ...]] | None = None
        for rank, row in enumerate(open_rows):
            firm = 0
            for index, device in enumerate(self._begun.get(row, ())):
                firm += _firm(device, who.priority)
                gone = _giving_way(device, who)
                cost = sum(device[i].milli for i in gone or ())
                if gone and (best is None or (cost, rank, index) < best[:3]):
                    best = (cost, rank, index, gone)
            others = int(free.available[row]) - (len(self._begun.get(row, ())) - firm)
            if others > 0 and (best is None or (WHOLE, rank) < best[:2]):
                best = (WHOLE, rank, -1, ())
        if best is None:
            return None
        _, rank, index, gone = best
        row = open_rows[rank]
        return self._begin(row, who) if index < 0 else self._join(row, index, gone, who)

    def seize(self, row: int, devices: int, priority: int, wholes: Mapping[int, int]) -> None:
        """An owner of `priority` takes so many devices of a row that are not vacant: of begun ones, and of those that `wholes`
        counts by the priority of their owners, the cheapest give way.
        """
        begun = self._begun.get(row, [])
        soft = [index for index, device in enumerate(begun) if not _firm(device, priority)]
        offers = [
            Ending(1, sum(h.milli for h in begun[i]), max(h.priority or 0 for h in begun[i])) for i in soft
        ]
        offers += [Ending(1, WHOLE, p) for p, count in sorted(wholes.items()) for _ in range(count)]
        chosen = cheapest_set(offers, devices) if devices > 0 else ()
        gone = {soft[i] for i in (chosen if chosen is not None else range(len(soft))) if i < len(soft)}
        self._ended.update(holder.key for index in gone for holder in begun[index])
        self._put(row, [device for index, device in enumerate(begun) if index not in gone])

    def _join(self, row: int, index: int, gone: tuple[int, ...], who: Seeker) -> int:
        device = self._begun[row][index]
        self._ended.update(device[i].key for i in gone)
        stay = tuple(holder for i, holder in enumerate(device) if i not in gone)
        self._begun[row][index] = (*stay, Holder("", who.service, who.milli, who.priority))
        return row

    def _begin(self, row: int, who: Seeker) -> int:
        self._begun.setdefault(row, []).append((Holder("", who.service, who.milli, who.priority),))
        return row

    def _put(self, row: int, devices: list[Device]) -> None:
        if devices:
            self._begun[row] = devices
        else:
            self._begun.pop(row, None)


def _firm(device: Device, priority: int | None, service: str = "") -> bool:
    if priority is None:
        return any(holder.priority is None for holder in device)
    return any(holder.stays(priority, service) for holder in device)


def _giving_way(device: Device, who: Seeker) -> tuple[int, ...] | None:
    """Indices of the cheapest shares of lower priorities whose end makes room for one more; None where none do."""
    lacking = who.milli - (WHOLE - sum(holder.milli for holder in device))
    lower = [i for i, h in enumerate(device) if h.priority is not None and h.priority < who.priority]
    offers = [Ending(device[i].milli, device[i].milli, device[i].priority or 0) for i in lower]
    found = cheapest_set(offers, lacking)
    return None if found is None else tuple(lower[i] for i in found)
