"""Best fit: the next replica goes where it leaves the fewest GPUs over, or the least of one; ties by the nodes' fixed order.

A fixed random order of nodes packs measurably better than random ties, for every packing rule (research:
training-placement §1.4). An index by free GPUs makes a choice independent of the size of the pool.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from cluster.admission import Fence, slot_for
from cluster.hardware import Node, Offer, Slot
from cluster.space import Space
from placement.packing.fleet import WHOLE


class Choice(NamedTuple):
    """Where a replica goes: its slot, free GPUs before and after (of the node; of its one device for a share), and how
    many nodes were fit.

    `cost_milli` is what decided, in thousandths of a GPU, lower being better: GPUs left over for best fit, worth of the
    room that is lost for prices. `second` is the runner-up (empty: none) and `second_milli` its cost.
    """

    slot: Slot
    free: float
    left: float
    fit_nodes: int
    cost_milli: int = 0
    second: str = ""
    second_milli: int = 0


class Rooms:
    """Open nodes of every pool, by how many whole devices are free on them. Shares are looked for on each node.

    Follows one `Space`: call `refresh` for a node whenever something was taken from or given back to it.
    """

    __slots__ = ("_by_free", "_free", "_nodes", "_space")

    def __init__(self, nodes: Mapping[str, Node], space: Space) -> None:
        self._nodes = nodes
        self._space = space
        self._free: dict[str, int] = {}
        self._by_free: dict[str, dict[int, list[tuple[int, str]]]] = {}
        for name in sorted(nodes):
            node = nodes[name]
            if node.offer is Offer.OPEN:
                free = self._free[name] = len(space.free_devices(name))
                self._by_free.setdefault(node.pool, {}).setdefault(free, []).append((node.order, name))
        for counts in self._by_free.values():
            for found in counts.values():
                found.sort()

    def free(self, node: str) -> int:
        """Whole free devices of an open node; 0 for any other."""
        return self._free.get(node, 0)

    def most_free(self, pool: str, fence: Fence | None = None) -> int:
        """Free devices of the emptiest open node of a pool that the fence admits."""
        counts = self._by_free.get(pool, {})
        return max((free for free in counts if self._inside(counts[free], fence)), default=0)

    def open_nodes(self, pool: str, fence: Fence | None = None) -> int:
        """How many nodes of a pool are open, inside the fence."""
        return sum(self._inside(found, fence) for found in self._by_free.get(pool, {}).values())

    def free_devices(self, pool: str, fence: Fence | None = None) -> int:
        """Free devices of all open nodes of a pool, inside the fence."""
        counts = self._by_free.get(pool, {})
        return sum(free * self._inside(found, fence) for free, found in counts.items())

    def most_left(self, pool: str, fence: Fence | None = None) -> float:
        """What is free of the emptiest device of a pool that may be shared, in GPUs."""
        levels = (left for name in self._dividing(pool, fence) for _, left in self._space.free_levels(name))
        return max(levels, default=0) / WHOLE

    def _dividing(self, pool: str, fence: Fence | None) -> list[str]:
        """Open nodes of a pool whose devices may be shared, inside the fence, by order."""
        nodes = self._nodes
        found = [n for n in self._free if nodes[n].pool == pool and nodes[n].divisible]
        inside = (n for n in found if fence is None or fence.admits(n, self._space))
        return sorted(inside, key=lambda name: (nodes[name].order, name))

    def _inside(self, found: list[tuple[int, str]], fence: Fence | None) -> int:
        if fence is None:
            return len(found)
        return sum(fence.admits(name, self._space) for _, name in found)

    def refresh(self, node: str) -> None:
        """Look at a node's free devices again."""
        old = self._free.get(node)
        if old is None:
            return
        new = len(self._space.free_devices(node))
        if new == old:
            return
        counts = self._by_free[self._nodes[node].pool]
        entry = (self._nodes[node].order, node)
        found = counts[old]
        del found[bisect_left(found, entry)]
        insort(counts.setdefault(new, []), entry)
        self._free[node] = new

    def choose(
        self, pool: str, gpus: int, avoid: Collection[str] = (), fence: Fence | None = None
    ) -> Choice | None:
        """The open node of `pool`, inside the fence, that `gpus` devices fit on with the least left over, or None."""
        counts = self._by_free.get(pool, {})
        fitting = [free for free in sorted(counts) if free >= gpus and counts[free]]
        found = list(islice(self._best_first(counts, fitting, avoid, fence), 2))
        if not found:
            return None
        (free, name), others = found[0], found[1:]
        devices = pick_devices(self._nodes[name], self._space.free_devices(name), gpus)
        fit_nodes = sum(self._inside(counts[each], fence) for each in fitting)
        slot = Slot(node=name, devices=devices)
        slot = slot if fence is None else slot_for(slot, fence.who)
        choice = Choice(slot, free, free - gpus, fit_nodes, WHOLE * (free - gpus))
        for more, other in others:
            choice = choice._replace(second=other, second_milli=WHOLE * (more - gpus))
        return choice

    def choose_share(
        self, pool: str, milli: int, avoid: Collection[str] = (), fence: Fence | None = None
    ) -> Choice | None:
        """The device of `pool`, inside the fence, that a share of `milli` leaves least of, or None.

        What is in use already comes first; of whole devices one of the node with the fewest.
        """
        fit, best = 0, list[tuple[int, int, int, str, int]]()
        for name in self._dividing(pool, fence):
            levels = [(left - milli, index) for index, left in self._space.free_levels(name) if left >= milli]
            fit += bool(levels)
            if levels and name not in avoid:
                left, index = min(levels)
                whole = self._free[name] if left + milli == WHOLE else 0
                best.append((left, whole, self._nodes[name].order, name, index))
        if not best:
            return None
        best.sort()
        left, _, _, name, index = best[0]
        slot = Slot(node=name, devices=(index,), milli_per_device=milli)
        slot = slot if fence is None else slot_for(slot, fence.who)
        choice = Choice(slot, (left + milli) / WHOLE, left / WHOLE, fit, left)
        return choice._replace(second=best[1][3], second_milli=best[1][0]) if len(best) > 1 else choice

    def _best_first(
        self,
        counts: Mapping[int, list[tuple[int, str]]],
        fitting: Iterable[int],
        avoid: Collection[str],
        fence: Fence | None,
    ) -> Iterator[tuple[int, str]]:
        """(free devices, node) that the fence admits and nobody avoids, fewest free first, then by order."""
        for free in fitting:
            for _, name in counts[free]:
                if name not in avoid and (fence is None or fence.admits(name, self._space)):
                    yield free, name


def pick_devices(node: Node, free: Iterable[int], gpus: int) -> tuple[int, ...]:
    """`gpus` of the free devices: inside the smallest NVLink clique that holds them, lowest numbers first."""
    usable = sorted(free)
    clique_of = {device.index: device.clique for device in node.devices}
    cliques: dict[int, list[int]] = {}
    for index in usable:
        cliques.setdefault(clique_of.get(index, 0), []).append(index)
    whole = [found for found in cliques.values() if len(found) >= gpus]
    best = min(whole, key=lambda found: (len(found), found[0])) if whole else usable
    return tuple(best[:gpus])
