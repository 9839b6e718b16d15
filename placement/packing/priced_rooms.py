"""The operator's choice of nodes by prices: `Rooms` that score the open nodes of a pool with FGD and dual prices.

The workload is what the services want of the pool now, each pod with its CPU; memory decides only whether it fits.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from cluster.admission import Fence, slot_for
from cluster.hardware import Node, Offer, Slot
from cluster.space import Space
from placement.packing.best_fit import Choice, Rooms, pick_devices
from placement.packing.duals import Stock, worths_of
from placement.packing.fleet import WHOLE, Fleet, Machine, Request
from placement.packing.fragmentation import Fragmentation, Typical
from placement.packing.packer import Packer
from placement.packing.rules.priced_fgd import PricedFgd, PricedFgdConfig
from placement.packing.worth import Worth

RULES_KEPT = 256
"""Rules kept in the memo; above that all are made anew."""


class PricedRooms(Rooms):
    """Rooms whose `choose` follows `PricedFgd`; everything that is told about them stays as it is.

    `demand` is the workload by pool. `memo` keeps the rules of equal pools and workloads: it saves time, and changes
    nothing.
    """

    __slots__ = ("_config", "_demand", "_memo", "_packers", "_pools")

    def __init__(
        self,
        nodes: Mapping[str, Node],
        space: Space,
        demand: Mapping[str, Sequence[Typical]],
        config: PricedFgdConfig,
        memo: dict[Any, Any],
    ) -> None:
        super().__init__(nodes, space)
        self._demand, self._config, self._memo = demand, config, memo
        self._packers: dict[str, Packer] = {}
        self._pools: dict[str, list[Node]] = {}
        for node in nodes.values():
            if node.offer is Offer.OPEN:
                self._pools.setdefault(node.pool, []).append(node)

    def refresh(self, node: str) -> None:
        """Look at a node's free devices, CPU and memory again."""
        super().refresh(node)
        packer = self._packers.get(self._nodes[node].pool) if node in self._nodes else None
        row = packer.fleet.row_of.get(node) if packer is not None else None
        if packer is not None and row is not None:
            packer.fleet.reset(row, *self._left(self._nodes[node]))

    def choose(
        self, pool: str, gpus: int, avoid: Collection[str] = (), fence: Fence | None = None
    ) -> Choice | None:
        """The open node of `pool`, inside the fence, whose room is worth least without these devices, or None."""
        packer = self._packer(pool)
        if packer is None:
            return None
        cpu, memory = (fence.who.cpu_millis, fence.who.memory_bytes) if fence is not None else (0, 0)
        names = packer.fleet.names
        outside = (
            [] if fence is None else [r for r, n in enumerate(names) if not fence.admits(n, self._space)]
        )
        rows = packer.fleet.row_of
        closed = [*outside, *(rows[name] for name in avoid if name in rows)]
        found = packer.choose(Request(cpu, memory, gpus, WHOLE), np.array(closed, np.int64))
        if found is None:
            return None
        name = names[found.placed.row]
        free = self._space.free_devices(name)
        slot = Slot(node=name, devices=pick_devices(self._nodes[name], free, gpus))
        slot = slot if fence is None else slot_for(slot, fence.who)
        roomy = packer.fleet.free_gpus() >= gpus
        roomy[outside] = False
        return Choice(slot, len(free), len(free) - gpus, int(np.count_nonzero(roomy)))

    def _left(self, node: Node) -> tuple[int, int, tuple[int, ...]]:
        """CPU, memory and devices that are free; a device in part use or reserved by others counts as taken."""
        free = set(self._space.free_devices(node.name))
        devices = tuple(WHOLE if device.index in free else 0 for device in node.devices)
        cpu, memory = self._space.free_cpu_millis(node.name), self._space.free_memory_bytes(node.name)
        return max(0, cpu), max(0, memory), devices

    def _packer(self, pool: str) -> Packer | None:
        nodes = self._pools.get(pool)
        if nodes is None:
            return None
        if pool not in self._packers:
            machines = []
            for node in nodes:
                cpu, memory, free = self._left(node)
                machines.append(
                    Machine(
                        name=node.name,
                        kind=pool,
                        cpu_millis=cpu,
                        memory_bytes=memory,
                        free_millis=free,
                        order=node.order,
                    )
                )
            fleet = Fleet(machines)
            self._packers[pool] = Packer(fleet, self._rule(pool, nodes, fleet))
        return self._packers[pool]

    def _rule(self, pool: str, nodes: Sequence[Node], fleet: Fleet) -> PricedFgd:
        """Prices from whole machines, as if nothing were on them: the workload is all pods, placed or not."""
        counted: dict[tuple[int, int], int] = {}
        for node in nodes:
            key = (len(node.devices), node.cpu_millis)
            counted[key] = counted.get(key, 0) + 1
        stocks = tuple(Stock(pool, *key, number) for key, number in sorted(counted.items()) if key[0])
        workload = tuple(self._demand.get(pool, ()))
        memo_key = (workload, stocks, self._config)
        if memo_key not in self._memo:
            if len(self._memo) >= RULES_KEPT:
                self._memo.clear()
            worth = Worth(worths_of(workload, stocks), fleet.kinds, fleet.free.shape[1])
            self._memo[memo_key] = PricedFgd(Fragmentation(workload, fleet.kinds), worth, self._config)
        rule: PricedFgd = self._memo[memo_key]
        return rule
