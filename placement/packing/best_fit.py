"""Best fit: the next replica goes where it leaves the fewest GPUs over, ties by the nodes' fixed order.

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
    """Where a replica goes: its slot, free GPUs of the node before and after, and how many nodes were fit.

    `cost_milli` is what decided, in thousandths of a GPU, lower being better: GPUs left over for best fit, worth of the
    room that is lost for prices. `second` is the runner-up (empty: none) and `second_milli` its cost.
    """

    slot: Slot
    free: int
    left: int
    fit_nodes: int
    cost_milli: int = 0
    second: str = ""
    second_milli: int = 0


class Rooms:
    """Open nodes of every pool, by how many whole devices are free on them.

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
