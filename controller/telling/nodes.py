"""AcceleratorNode objects: what each node really has, as its agent found it. One writer, and few writes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from typing import Any, Literal, cast

from cluster.snapshot import Snapshot
from controller.hub.messages import InventorySeen
from controller.observe import labels
from controller.observe.nodes import product_names
from controller.observe.world import World
from controller.resources.acceleratornode import AcceleratorNodeStatus, NodeGpu, NodeNic
from controller.resources.base import API_VERSION, render
from controller.resources.kinds import ACCELERATOR_NODE
from controller.store.errors import AlreadyExists, NotFound, StoreError
from controller.store.interface import Store
from controller.store.workqueue import WorkQueue
from controller.telling.clock_text import rfc3339
from controller.telling.conditions import condition, merge
from runtime.clock import Clock

log = logging.getLogger("plimsoll.status")

Link = Literal["infiniband", "roce", "ethernet"]

QUIET_SECONDS = 60.0
"""Readings that merely moved (watts, time of the last report) are written at most this often."""
WRITES_PER_STEP = 50


def node_status(
    name: str, inventory: InventorySeen, world: World, snapshot: Snapshot, now: float
) -> AcceleratorNodeStatus:
    """Status of one node."""
    node = snapshot.nodes.get(name)
    silent = node is None or node.offer == "lost"
    faulty = any(not device.healthy for device in inventory.devices)
    product = inventory.devices[0].product if inventory.devices else ""
    accelerator = node.accelerator if node else product_names(world.classes).get(product, "")
    rows = snapshot.node_table.index()
    row = rows.get(name)
    table = snapshot.node_table
    watts = float(table.watts[row]) if row is not None else 0.0
    cap = float(table.lease_watts[row]) if row is not None else 0.0
    phase: Literal["Online", "Silent", "Faulty"] = "Silent" if silent else "Faulty" if faulty else "Online"
    heard = world.last_report.get(name, 0.0)
    told = condition("Ready", phase == "Online", phase, f"Last heard at {rfc3339(heard)}.", 0)
    closed = world.closed.get(name)
    why = f"No new work: {closed.closed}." if closed is not None else "New work may be placed here."
    takes = condition("Schedulable", closed is None, "Closed" if closed is not None else "Open", why, 0)
    return AcceleratorNodeStatus(
        phase=phase,
        accelerator=accelerator,
        gpus=[
            NodeGpu(index=d.index, uuid=d.uuid, product=d.product, memory_bytes=d.memory_bytes, numa=max(0, d.numa), clique=d.clique, healthy=d.healthy)
            for d in inventory.devices
        ],
        gpu_count=sum(1 for device in inventory.devices if device.healthy),
        nics=[
            NodeNic(name=n.name, link=cast(Link, n.link), rate_bits_per_second=n.rate_bits_per_second, gid_types=list(n.gid_types), subnet=n.subnet, numa=max(0, n.numa))
            for n in inventory.nics
            if n.link in ("infiniband", "roce", "ethernet")
        ],
        fabric=node.island if node else "",
        watts=0.0 if math.isnan(watts) else round(watts, 1),
        cap_watts=0 if math.isnan(cap) else int(cap),
        last_report=rfc3339(heard),
        conditions=merge([], [told, takes], now),
    )  # fmt: skip


class NodeWriter:
    """Creates, updates and deletes AcceleratorNodes; remembers what it wrote. `at_once` are on their way together."""

    def __init__(self, store: Store, clock: Clock, at_once: int = 1) -> None:
        """Bind to a store."""
        self._store = store
        self._queue: WorkQueue[str] = WorkQueue(clock)
        self._at_once = at_once
        self._written: dict[str, tuple[Any, float]] = {}

    async def write(self, world: World, snapshot: Snapshot, now_seconds: float) -> int:
        """Bring a bounded number of nodes up to date; how many were written."""
        present = sorted(set(world.inventories) & set(world.objects["Node"]))
        wanted: dict[str, AcceleratorNodeStatus] = {}
        for name in present:
            status = node_status(name, world.inventories[name], world, snapshot, now_seconds)
            known = self._written.get(name)
            if known is None or known[0] != _says(status) or now_seconds - known[1] >= QUIET_SECONDS:
                wanted[name] = status
                self._queue.add(name)
        for gone in sorted(set(self._written) - set(present)):
            self._queue.forget(gone)
            await self._delete(gone)
            del self._written[gone]
        written, left = 0, WRITES_PER_STEP
        while left > 0 and (names := self._queue.take(min(left, self._at_once))):
            left -= len(names)
            written += sum(
                await asyncio.gather(*(self._work(name, wanted.get(name), now_seconds) for name in names))
            )
        return written

    async def _work(self, name: str, status: AcceleratorNodeStatus | None, now_seconds: float) -> int:
        if status is None:
            self._queue.done(name)
            return 0
        try:
            await self._put(name, status)
        except NotFound:
            self._written.pop(name, None)  # deleted by hand: made again next time
            self._queue.done(name)
            return 0
        except StoreError as error:
            pause = self._queue.failed(name)
            log.warning("AcceleratorNode %s not written: %s; again in %.1f s", name, error, pause)
            return 0
        self._queue.done(name)
        self._written[name] = (_says(status), now_seconds)
        return 1

    async def _put(self, name: str, status: AcceleratorNodeStatus) -> None:
        obj = {"apiVersion": API_VERSION, "kind": "AcceleratorNode", "metadata": {"name": name}}
        if name not in self._written:
            with contextlib.suppress(AlreadyExists):
                await self._store.create(ACCELERATOR_NODE, obj, field_manager=labels.MANAGER)
        await self._store.apply(
            ACCELERATOR_NODE,
            obj | {"status": render(status)},
            field_manager=labels.STATUS_MANAGER,
            force=True,  # an agent can write nothing, so whoever wrote it before was a person or a predecessor
            subresource="status",
        )

    async def _delete(self, name: str) -> None:
        try:
            await self._store.delete(ACCELERATOR_NODE, name)
        except NotFound:
            return
        except StoreError as error:
            log.warning("AcceleratorNode %s not deleted: %s", name, error)


def _says(status: AcceleratorNodeStatus) -> tuple[Any, ...]:
    """What a status says apart from its readings."""
    return (
        status.phase,
        status.accelerator,
        tuple(status.gpus),
        tuple((n.name, n.link, n.rate_bits_per_second) for n in status.nics),
        status.fabric,
        tuple((c.type, c.message) for c in status.conditions if c.type == "Schedulable"),
    )
