"""Waits until a real API server's own controllers have done what follows from what was written.

They live on wall time, a fleet in accelerated time does not: so before anybody looks, the fleet looks until the
scheduler has bound what fits and said why of the rest, the garbage collector has followed deleted owners, and the node
life cycle controller has drawn its conclusions. Each of these can be read off the objects, so nothing is guessed and
nothing is waited for when nothing is due.

Silence is the one thing that must be staged. A node that has not renewed its lease for forty of our seconds is silent;
until then its lease is renewed by wall time for it (a real second may hold many of ours), and from then on no more,
and the controller is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping

import msgspec

from controller.store.interface import Resource, Store
from runtime.clock import Clock, WallClock
from simulator.fleet.feed import Feed
from simulator.fleet.index import PodIndex
from simulator.fleet.lifecycle import GRACE_SECONDS, OURS, chasing, taints_due, tolerated_seconds
from simulator.fleet.node import SimulatedNode
from simulator.fleet.objects import Node, Object, Pod
from simulator.fleet.scheduler import Fitting

PATIENCE_SECONDS = 60.0
"""Wall seconds for which a controller may be waited for."""
POLL_SECONDS = 0.002
SHOWN = 6


class NotSettled(Exception):
    """The cluster's controllers have not done in time what follows from what was written; the text says what."""


class Settling(msgspec.Struct, frozen=True):
    """What is waited for beside pods and nodes.

    `owners`: kinds with which their dependents go. `dependents`: kinds, beside pods, that have owners. `level` returns when
    whatever one stream of the store has heard of, all have.
    """

    owners: tuple[Resource, ...]
    dependents: tuple[Resource, ...]
    level: Callable[[], Awaitable[None]]


class Settler:
    """What is still due from the controllers of the store; `settle` waits for it.

    `spent_seconds` is wall time waited, `waits` how often there was something to wait for.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        index: PodIndex,
        nodes: Mapping[str, Node],
        machines: Mapping[str, SimulatedNode],
        settling: Settling,
        *,
        wall: Clock | None = None,
    ) -> None:
        self._index = index
        self._nodes = nodes
        self._machines = machines
        self._wall = wall or WallClock()
        self._fitting = Fitting(index, nodes)
        self._level = settling.level
        self._owners = {each.kind: Feed(store, clock, each, Object) for each in settling.owners}
        self._dependents = [Feed(store, clock, each, Object) for each in settling.dependents]
        self.waits = 0
        self.spent_seconds = 0.0

    async def settle(self, now: float, look: Callable[[], Awaitable[None]]) -> None:
        """Look again and again until nothing is due. Raises: NotSettled."""
        began = self._wall.monotonic()
        await look()
        due = await self._due(now)
        self.waits += bool(due)
        while due:
            if self._wall.monotonic() - began > PATIENCE_SECONDS:
                more = f" and {len(due) - SHOWN} more" if len(due) > SHOWN else ""
                raise NotSettled(
                    f"waited {PATIENCE_SECONDS:g} s of wall time for the cluster's controllers: "
                    f"{'; '.join(due[:SHOWN])}{more}"
                )
            await asyncio.sleep(POLL_SECONDS)
            await look()
            due = await self._due(now)
        await self._level()
        self.spent_seconds += self._wall.monotonic() - began

    def close(self) -> None:
        """Give the streams up."""
        for feed in (*self._owners.values(), *self._dependents):
            feed.close()

    async def _due(self, now: float) -> list[str]:
        for feed in (*self._owners.values(), *self._dependents):
            await feed.pump()
        silent = {name for name, machine in self._machines.items() if is_silent(machine, now)}
        found = (
            self._unbound(),
            self._orphans(),
            self._undecided(silent),
            self._unmarked(silent),
            self._chased(),
        )
        return [each for due in found for each in due]

    def _unbound(self) -> Iterable[str]:
        for pod in self._fitting.waiting():
            node = self._fitting.place(pod)
            if node:
                yield f"pod {pod.metadata.key} fits on {node} and is not bound"
            elif not pod.refused:
                yield f"pod {pod.metadata.key} fits nowhere, and the scheduler has not said so"

    def _orphans(self) -> Iterable[str]:
        seen = {kind: feed for kind, feed in self._owners.items() if feed.synced}
        alive = {obj.metadata.uid for feed in seen.values() for obj in feed.objects.values()}
        others = (obj for feed in self._dependents for obj in feed.objects.values())
        for meta in (*(pod.metadata for pod in self._pods()), *(obj.metadata for obj in others)):
            owners = [owner.uid for owner in meta.owner_references if owner.kind in seen]
            if owners and meta.deletion_timestamp is None and alive.isdisjoint(owners):
                yield f"{meta.key} has outlived its owner"

    def _undecided(self, silent: set[str]) -> Iterable[str]:
        everybody = len(silent) == len(self._machines)
        for name, machine in self._machines.items():
            node = self._nodes.get(name)
            if node is None or not (machine.alive or name in silent):
                continue
            if (name in silent) == (node.readiness == "True"):
                called = "silent and called ready" if name in silent else "alive and not called ready"
                yield f"node {name} is {called}"
                continue
            due = taints_due(node, silent=name in silent)
            has = {(taint.key, taint.effect) for taint in node.spec.taints if taint.key in OURS}
            if everybody:  # then nobody is evicted: the fault is rather the controller's
                due, has = ({(k, e) for k, e in each if e != "NoExecute"} for each in (due, has))
            if has != due:
                yield f"node {name} has the taints {sorted(has)} and should have {sorted(due)}"

    def _unmarked(self, silent: set[str]) -> Iterable[str]:
        for name in silent:
            for pod in self._index.pods_on(name).values():
                if pod.ready and not pod.finished:
                    yield f"pod {pod.metadata.key} is called ready on the silent node {name}"

    def _chased(self) -> Iterable[str]:
        for name, node in self._nodes.items():
            for taint in chasing(node):
                for pod in self._index.pods_on(name).values():
                    if not pod.deleted and not pod.finished and tolerated_seconds(pod, taint) <= 0.0:
                        yield f"pod {pod.metadata.key} does not stand {taint.key} of {name} and is not deleted"

    def _pods(self) -> Iterable[Pod]:
        for found in (self._index.waiting, *self._index.on.values()):
            yield from found.values()


def is_silent(machine: SimulatedNode, now: float) -> bool:
    """Whether a node has renewed no lease for so long that it counts as lost."""
    return now - machine.renewed_seconds > GRACE_SECONDS


class LeaseKeeper:
    """Renews the leases of all nodes that are not silent by wall time, beside everything else."""

    def __init__(
        self,
        machines: Mapping[str, SimulatedNode],
        clock: Clock,
        period_seconds: float,
        *,
        wall: Clock | None = None,
    ) -> None:
        self._machines = machines
        self._clock = clock
        self._wall = wall or WallClock()
        self._period = period_seconds
        self._task: asyncio.Task[None] | None = None
        self.renewals = 0

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="node leases")

    async def stop(self) -> None:
        """End."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def renew(self, machine: SimulatedNode) -> bool:
        """Renew one now. False when the store did not take it."""
        self.renewals += 1
        return await machine.registration.renew(self.now())

    def now(self) -> float:
        """The time by which leases are renewed, UTC seconds."""
        return self._wall.now()

    async def _run(self) -> None:
        while True:
            for machine in list(self._machines.values()):
                if not is_silent(machine, self._clock.now()):
                    await self.renew(machine)
            await asyncio.sleep(self._period)
