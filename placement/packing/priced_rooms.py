"""The operator's choice of nodes by prices: `Rooms` that score the open nodes of a pool with FGD and dual prices.

The workload is what the services want of the pool, each pod with its CPU; memory decides only whether it fits. Prices are
made from a `Basis` that stands for a while, so that nothing is solved in most rounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from cluster.admission import Fence, slot_for
from cluster.hardware import Node, Offer, Slot
from cluster.space import Space
from placement.packing.best_fit import Choice, Rooms, pick_devices
from placement.packing.duals import Stock, worths_of
from placement.packing.fleet import WHOLE, Fleet, Machine, Request, Shape
from placement.packing.fragmentation import Fragmentation, Typical
from placement.packing.packer import Choice as Scored
from placement.packing.packer import Packer
from placement.packing.rules.priced_fgd import PricedFgd, PricedFgdConfig
from placement.packing.worth import Worth

RULES_KEPT = 256
"""Rules kept in the memo; above that all are made anew."""

MOVED = 0.25
"""Share of a pool's wanted GPUs that may come or go before its prices are made anew at once."""


class Basis(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool's prices are made from, and since when (UTC seconds): `workload` as (millicores, GPUs, thousandths of
    each, pods), `stocks` as (GPUs, millicores, machines), both sorted.
    """

    since_seconds: float
    workload: tuple[tuple[int, int, int, int], ...] = ()
    stocks: tuple[tuple[int, int, int], ...] = ()

    def typical(self) -> tuple[Typical, ...]:
        """The workload as packing takes it."""
        return tuple(Typical(Shape(cpu, gpus, milli, ()), n) for cpu, gpus, milli, n in self.workload)

    @property
    def widest(self) -> int:
        """GPUs of the largest machine."""
        return max((gpus for gpus, _, _ in self.stocks), default=0)


def basis_of(
    nodes: Iterable[Node],
    workload: Mapping[Shape, int],
    now_seconds: float,
    standing: Basis | None,
    seconds: float,
) -> Basis:
    """The basis of a pool's prices now: the standing one for so many seconds, unless the workload moved far or has a
    shape that it does not know, or a wider machine came.
    """
    counted = Counter((len(node.devices), node.cpu_millis) for node in nodes if node.devices)
    fresh = Basis(
        since_seconds=now_seconds,
        workload=tuple((s.cpu_millis, s.gpus, s.milli, n) for s, n in sorted(workload.items()) if n),
        stocks=tuple((*key, number) for key, number in sorted(counted.items())),
    )
    if standing is None or fresh.widest > standing.widest or _moved(standing, fresh) > MOVED:
        return fresh
    return standing if now_seconds - standing.since_seconds < seconds else fresh


def _moved(before: Basis, after: Basis) -> float:
    """Share of the GPUs wanted before that came or went, by shape; more than 1 for a shape that is new."""
    old, new = ({row[:3]: row[3] for row in each.workload} for each in (before, after))
    if new.keys() - old.keys():
        return 2.0
    wanted = sum(gpus * milli * n for (_, gpus, milli), n in old.items())
    moved = sum(
        gpus * milli * abs(n - new.get((cpu, gpus, milli), 0)) for (cpu, gpus, milli), n in old.items()
    )
    return moved / wanted if wanted else 0.0


class PricedRooms(Rooms):
    """Rooms whose `choose` follows `PricedFgd`; everything that is told about them stays as it is.

    `bases` says what the prices of each pool are made from. `memo` keeps the rules of equal bases: it saves time, and
    changes nothing.
    """

    __slots__ = ("_bases", "_config", "_memo", "_packers", "_parts", "_pools")

    def __init__(
        self,
        nodes: Mapping[str, Node],
        space: Space,
        bases: Mapping[str, Basis],
        config: PricedFgdConfig,
        memo: dict[Any, Any],
    ) -> None:
        super().__init__(nodes, space)
        self._bases, self._config, self._memo = bases, config, memo
        self._packers: dict[str, Packer] = {}
        self._pools: dict[str, list[Node]] = {}
        self._parts: dict[str, list[str]] = {}
        for machine, name in sorted((each.host, name) for name, each in nodes.items() if each.host):
            self._parts.setdefault(machine, [machine] if machine in nodes else []).append(name)
        for node in nodes.values():
            if node.offer is Offer.OPEN:
                self._pools.setdefault(node.pool, []).append(node)

    def refresh(self, node: str) -> None:
        """Look at a node's free devices, CPU and memory again, and at the other parts of its machine."""
        super().refresh(node)
        for name in self._parts.get(self._nodes[node].machine, (node,)) if node in self._nodes else ():
            self._look(name)

    def _look(self, node: str) -> None:
        packer = self._packers.get(self._nodes[node].pool)
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
        outside = self._outside(packer, fence)
        found = self._best(packer, gpus, WHOLE, [*outside, *_rows(packer, avoid)], fence)
        if found is None:
            return None
        name = packer.fleet.names[found.placed.row]
        free = self._space.free_devices(name)
        slot = Slot(node=name, devices=pick_devices(self._nodes[name], free, gpus))
        slot = slot if fence is None else slot_for(slot, fence.who)
        roomy = packer.fleet.free_gpus() >= gpus
        roomy[outside] = False
        choice = Choice(slot, len(free), len(free) - gpus, int(np.count_nonzero(roomy)))
        return self._scored(choice, packer, found)

    def choose_share(
        self, pool: str, milli: int, avoid: Collection[str] = (), fence: Fence | None = None
    ) -> Choice | None:
        """The device of `pool`, inside the fence, on which a share of `milli` costs the room that is worth least, or None."""
        packer = self._packer(pool)
        if packer is None:
            return None
        whole = [r for r, name in enumerate(packer.fleet.names) if not self._nodes[name].divisible]
        outside = [*self._outside(packer, fence), *whole]
        found = self._best(packer, 1, milli, [*outside, *_rows(packer, avoid)], fence)
        if found is None:
            return None
        row, (place,) = found.placed
        name = packer.fleet.names[row]
        level = int(packer.fleet.free[row, place])
        index = self._nodes[name].devices[place].index
        slot = Slot(node=name, devices=(index,), milli_per_device=milli)
        slot = slot if fence is None else slot_for(slot, fence.who)
        roomy = packer.fleet.free.max(axis=1) >= milli
        roomy[outside] = False
        choice = Choice(slot, level / WHOLE, (level - milli) / WHOLE, int(np.count_nonzero(roomy)))
        return self._scored(choice, packer, found)

    def _outside(self, packer: Packer, fence: Fence | None) -> list[int]:
        """Rows that the fence keeps the pods off."""
        if fence is None:
            return []
        return [r for r, n in enumerate(packer.fleet.names) if not fence.admits(n, self._space)]

    @staticmethod
    def _best(packer: Packer, gpus: int, milli: int, closed: list[int], fence: Fence | None) -> Scored | None:
        cpu, memory = (fence.who.cpu_millis, fence.who.memory_bytes) if fence is not None else (0, 0)
        return packer.choose(Request(cpu, memory, gpus, milli), np.array(closed, np.int64))

    def _scored(self, choice: Choice, packer: Packer, found: Scored) -> Choice:
        """The choice with its cost, and the runner-up's."""
        choice = choice._replace(cost_milli=self._milli(found.score))
        if found.runner_up is None or found.runner_up_row is None:
            return choice
        second = packer.fleet.names[found.runner_up_row]
        return choice._replace(second=second, second_milli=self._milli(found.runner_up))

    def _milli(self, score: float) -> int:
        """A score as the thousandths of a GPU that it stands for: worth of the room that is lost."""
        return round(-score * self._config.bucket_milli)

    def _left(self, node: Node) -> tuple[int, int, tuple[int, ...]]:
        """CPU, memory and what is free of each device; one that is reserved by others counts as taken."""
        free = dict(self._space.free_levels(node.name))
        devices = tuple(free.get(device.index, 0) for device in node.devices)
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
            self._packers[pool] = Packer(fleet, self._rule(pool, fleet))
        return self._packers[pool]

    def _rule(self, pool: str, fleet: Fleet) -> PricedFgd:
        """Prices from whole machines, as if nothing were on them: the workload is all pods, placed or not."""
        basis = self._bases.get(pool) or Basis(since_seconds=0.0)
        widest = max(basis.widest, fleet.free.shape[1])
        memo_key = (pool, basis.workload, basis.stocks, widest, self._config)
        if memo_key not in self._memo:
            if len(self._memo) >= RULES_KEPT:
                self._memo.clear()
            workload = basis.typical()
            stocks = tuple(Stock(pool, *row) for row in basis.stocks)
            worth = Worth(worths_of(workload, stocks), fleet.kinds, widest)
            self._memo[memo_key] = PricedFgd(Fragmentation(workload, fleet.kinds), worth, self._config)
        rule: PricedFgd = self._memo[memo_key]
        return rule


def _rows(packer: Packer, names: Collection[str]) -> list[int]:
    rows = packer.fleet.row_of
    return [rows[name] for name in names if name in rows]
