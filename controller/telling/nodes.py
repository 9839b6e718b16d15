"""AcceleratorNode objects: what each node really has, as its agent found it. One writer, and few writes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypeVar, cast

from cluster.silence import SILENT_SECONDS
from cluster.snapshot import Snapshot
from controller.hub.messages import DeviceSeen, InventorySeen, NicSeen
from controller.observe import labels
from controller.observe.recognise import product_names
from controller.observe.told import AgentTold
from controller.observe.world import World
from controller.resources.acceleratornode import AcceleratorNodeStatus, CachedWeights, NodeGpu, NodeNic
from controller.resources.base import API_VERSION, Condition, render
from controller.resources.kinds import ACCELERATOR_NODE
from controller.store.errors import AlreadyExists, HeldBack, NotFound, StoreError
from controller.store.interface import Store
from controller.store.workqueue import WorkQueue
from controller.telling.clock_text import rfc3339
from controller.telling.conditions import condition, merge
from controller.telling.devices import agreement
from controller.telling.refreshing import Refreshes
from runtime.clock import Clock

log = logging.getLogger("plimsoll.status")

Link = Literal["infiniband", "roce", "ethernet"]
Tier = Literal["dram", "nvme"]

QUIET_SECONDS = 60.0
"""Readings that merely moved (watts, time of the last report) are written at most this often for one node."""
REFRESHES_PER_MINUTE = 10.0
"""And so many a minute for all nodes together: metrics have them every second."""
WRITES_PER_STEP = 50
MOST_PODS = 16
LONGEST_POD = 317
MOST_WEIGHTS = 256
MOST_PARTS = 64
MOST_INDEX = 1_023
"""Bounds of the type: what an agent tells beyond them is cut, so that one odd value does not cost the whole status."""

T = TypeVar("T")


def node_status(
    name: str,
    inventory: InventorySeen,
    world: World,
    snapshot: Snapshot,
    now: float,
    before: Sequence[Condition] = (),
) -> AcceleratorNodeStatus:
    """Status of one node; `before` are its conditions as they were last told."""
    node = snapshot.nodes.get(name)
    heard = world.last_report.get(name, 0.0)
    # A node of a product that no AcceleratorClass names is not in the model, and speaks all the same.
    silent = node.offer == "lost" if node is not None else now - heard > SILENT_SECONDS
    faulty = any(not device.healthy for device in inventory.devices)
    product = inventory.devices[0].product if inventory.devices else ""
    watts, cap = _readings(name, snapshot)
    phase: Literal["Online", "Silent", "Faulty"] = "Silent" if silent else "Faulty" if faulty else "Online"
    told = world.told.get(name, AgentTold())
    return AcceleratorNodeStatus(
        phase=phase,
        accelerator=node.accelerator if node else product_names(world.classes).get(product, ""),
        gpus=_first(
            (_gpu(device, place, told) for place, device in enumerate(inventory.devices)),
            lambda gpu: gpu.index,
        ),
        gpu_count=sum(1 for device in inventory.devices if device.healthy),
        nics=_first(
            (_nic(nic) for nic in inventory.nics if nic.link in {"infiniband", "roce", "ethernet"}),
            lambda nic: nic.name,
        ),
        fabric=node.island if node else "",
        watts=watts,
        cap_watts=cap,
        weights=[
            CachedWeights(model=w.model[:128], tier=cast(Tier, w.tier), bytes=w.bytes)
            for w in told.weights[:MOST_WEIGHTS]
            if w.tier in {"dram", "nvme"}
        ],
        agent_version=told.version[:64],
        boot_id=told.boot_id[:64],
        last_report=rfc3339(heard),
        conditions=merge(before, _conditions(name, phase, heard, told, world), now),
    )


def _readings(name: str, snapshot: Snapshot) -> tuple[float, int]:
    """Watts drawn and allowed, 0 where nobody measured them."""
    table = snapshot.node_table
    row = table.index().get(name)
    if row is None:
        return 0.0, 0
    watts, cap = float(table.watts[row]), float(table.lease_watts[row])
    return 0.0 if math.isnan(watts) else round(watts, 1), 0 if math.isnan(cap) else int(cap)


def _first(found: Iterable[T], key: Callable[[T], object]) -> list[T]:
    """At most `MOST_PARTS`, the first of each key: the API server takes no more, and no two alike."""
    by_key: dict[object, T] = {}
    for each in found:
        by_key.setdefault(key(each), each)
    return list(by_key.values())[:MOST_PARTS]


def _gpu(device: DeviceSeen, place: int, told: AgentTold) -> NodeGpu:
    return NodeGpu(
        index=min(device.index, MOST_INDEX),
        uuid=device.uuid[:128],
        product=device.product[:128],
        memory_bytes=min(device.memory_bytes, 10**14),
        numa=min(max(0, device.numa), MOST_INDEX),
        clique=min(device.clique, MOST_INDEX),
        healthy=device.healthy,
        offered=told.offers(place),
        pods=[pod for pod in told.pods_of(place) if len(pod) <= LONGEST_POD][:MOST_PODS],
    )


def _nic(nic: NicSeen) -> NodeNic:
    return NodeNic(
        name=nic.name[:64],
        link=cast(Link, nic.link),
        rate_bits_per_second=min(nic.rate_bits_per_second, 10**15),
        gid_types=[kind[:32] for kind in nic.gid_types[:8]],
        subnet=nic.subnet[:64],
        numa=min(max(0, nic.numa), MOST_INDEX),
    )


def _conditions(name: str, phase: str, heard: float, told: AgentTold, world: World) -> list[Condition]:
    closed = world.closed.get(name)
    why = f"No new work: {closed.closed}." if closed is not None else "New work may be placed here."
    found = [
        condition("Ready", phase == "Online", phase, f"Last heard at {rfc3339(heard)}.", 0),
        condition("Schedulable", closed is None, "Closed" if closed is not None else "Open", why, 0),
    ]
    found.append(agreement(name, world))
    held = told.holders
    if held is not None:
        strays = sorted({f"{row.device_id} of {row.pod}" for row in told.strays()})
        reason = "Unanswered" if not held.known else "UnknownDevices" if strays else "Known"
        says = held.fault or "The kubelet says which pod has which GPU."
        if strays:
            says = f"{len(strays)} devices that the driver does not know, such as {strays[0]}. {held.fault}".rstrip()
        found.append(condition("HoldersKnown", held.known and not strays, reason, says, 0))
    return found


class NodeWriter:
    """Creates, updates and deletes AcceleratorNodes; remembers what it wrote. `at_once` are on their way together."""

    def __init__(self, store: Store, clock: Clock, at_once: int = 1) -> None:
        """Bind to a store."""
        self._store = store
        self._queue: WorkQueue[str] = WorkQueue(clock)
        self._at_once = at_once
        self._written: dict[str, tuple[Any, float]] = {}
        self._conditions: dict[str, list[Condition]] = {}
        self._refreshes = Refreshes(clock, per_minute=REFRESHES_PER_MINUTE, burst=10)

    async def write(self, world: World, snapshot: Snapshot, now_seconds: float) -> int:
        """Bring a bounded number of nodes up to date; how many were written."""
        present = sorted(set(world.inventories) & set(world.objects["Node"]))
        wanted: dict[str, AcceleratorNodeStatus] = {}
        moved: dict[str, float] = {}
        for name in present:
            known = self._written.get(name)
            before = self._conditions.get(name, ())
            wanted[name] = node_status(name, world.inventories[name], world, snapshot, now_seconds, before)
            if known is None or known[0] != _says(wanted[name]):
                self._queue.add(name)
            elif now_seconds - known[1] >= QUIET_SECONDS:
                moved[name] = known[1]
        for name in self._refreshes.of((at, name) for name, at in moved.items()):
            self._queue.add(name)
        for gone in sorted(set(self._written) - set(present)):
            self._queue.forget(gone)
            await self._delete(gone)
            del self._written[gone]
            self._conditions.pop(gone, None)
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
            pause = self._queue.failed(name, error.retry_after_seconds)
            if not isinstance(error, HeldBack):
                log.warning("AcceleratorNode %s not written: %s; again in %.1f s", name, error, pause)
            return 0
        self._queue.done(name)
        self._written[name] = (_says(status), now_seconds)
        self._conditions[name] = status.conditions
        return 1

    async def _put(self, name: str, status: AcceleratorNodeStatus) -> None:
        """Write it; one that nobody wrote before is made. A predecessor's is there, as a rule."""
        try:
            await self._apply(name, status)
        except NotFound:
            if name in self._written:
                raise
            obj = {"apiVersion": API_VERSION, "kind": "AcceleratorNode", "metadata": {"name": name}}
            with contextlib.suppress(AlreadyExists):
                await self._store.create(ACCELERATOR_NODE, obj, field_manager=labels.MANAGER)
            await self._apply(name, status)

    async def _apply(self, name: str, status: AcceleratorNodeStatus) -> None:
        obj = {"apiVersion": API_VERSION, "kind": "AcceleratorNode", "metadata": {"name": name}}
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
        tuple(status.weights),
        (status.agent_version, status.boot_id),
        tuple((c.type, c.message) for c in status.conditions if c.type != "Ready"),
    )
