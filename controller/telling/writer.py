"""Writes statuses of our kinds by server-side apply, only when they say something new.

One manager writes them all but for the actor's own fields (`ACTORS`), so that a field left out is removed, and another
writer of the same field is noticed (`controller.telling.contests`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from cluster.snapshot import Snapshot
from controller.actor.pods import split_key
from controller.actor.refusals import Refusals
from controller.observe import labels
from controller.observe.world import World
from controller.resources.base import API_VERSION, render
from controller.resources.kinds import BY_KIND
from controller.store.errors import Conflict, HeldBack, NotFound, StoreError
from controller.store.interface import JsonObject, Store
from controller.store.workqueue import WorkQueue
from controller.telling.conditions import condition, merge
from controller.telling.contests import Contests, Key, is_contest
from controller.telling.memory import Sayings
from controller.telling.refreshing import Refreshes
from controller.telling.refused import admitted
from controller.telling.restraint import with_restraint
from controller.telling.rollouts import with_rollout
from controller.telling.statuses import class_status, domain_status, job_status, service_status
from runtime.clock import Clock

log = logging.getLogger("plimsoll.status")

QUIET_SECONDS = 10.0
"""A status that only moved in its numbers is written at most this often; what it *says* is written at once."""
REFRESHES_PER_MINUTE = 60
"""And so many a minute for all objects together."""

SIZES = (
    "phase", "why", "ready", "replicas", "attempt", "checkpoint_step", "gpu_count", "moves",
    "observed_generation",
)  # fmt: skip

ACTORS = frozenset({"attempt", "restarts", "failed_attempt"})
"""Fields of a status that only the actor writes, by compare-and-swap."""

Status = Callable[[Any, Snapshot, Sayings, tuple[str, ...], float], msgspec.Struct]

_STATUS: dict[str, Status] = {
    "ModelService": service_status,
    "TrainingJob": job_status,
    "PowerDomain": domain_status,
    "AcceleratorClass": class_status,
}


class _Written(msgspec.Struct, frozen=True):
    """What was written last: of which object, what, and the version that the server gave it."""

    uid: str
    status: Any
    version: int


class StatusWriter:
    """One writer a kind. A status that did not change is not written; one that cannot be comes back ever later.

    `at_once` bounds how many are on their way together.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        at_once: int = 1,
        gateway_url: str = "",
        refusals: Refusals | None = None,
    ) -> None:
        """Bind to a store. `gateway_url` is where clients reach the gateways; empty: no address is told. `refusals`
        is the book that the store consults.
        """
        self._refusals = refusals
        self._gateway_url = gateway_url.rstrip("/")
        self.contests = Contests()
        self._store = store
        self._queue: WorkQueue[Key] = WorkQueue(clock)
        self._at_once = at_once
        self._wanted: dict[Key, tuple[Any, Any]] = {}
        self._written: dict[Key, _Written] = {}
        self._at: dict[Key, float] = {}
        self._moved: dict[Key, tuple[Any, Any]] = {}
        self._refreshes = Refreshes(clock, per_minute=REFRESHES_PER_MINUTE, burst=REFRESHES_PER_MINUTE)

    async def write(self, world: World, snapshot: Snapshot, sayings: Sayings, now_seconds: float) -> int:
        """Bring every object's status up to date; how many were written."""
        there: set[Key] = set()
        refused = self._refusals.about() if self._refusals is not None else {}
        for kind, compute in _STATUS.items():
            for name, obj in sorted(world.objects[kind].items()):
                key = (kind, name)
                there.add(key)
                faults = world.faults.get(key, ())
                status = compute(obj, snapshot, sayings, faults, now_seconds)
                if kind == "ModelService" and self._gateway_url:
                    # The gateway holds and moves requests, so it is where they go, whatever becomes of replicas.
                    status = msgspec.structs.replace(status, url=f"{self._gateway_url}/{name}")
                status = with_rollout(kind, obj, status, world, snapshot, sayings, now_seconds)
                status = with_restraint(kind, obj, status, world, snapshot, sayings, now_seconds)
                status = _held(obj, status, now_seconds)
                if (told := admitted(refused.get(key, ()), obj.metadata.generation)) is not None:
                    found = merge(obj.status.conditions, [told], now_seconds)
                    status = msgspec.structs.replace(status, conditions=[*status.conditions, *found])
                status = self._contested(key, obj, status, now_seconds)
                if status != obj.status and self._due(key, obj, status, now_seconds):
                    self._wanted[key] = (obj, status)
                    self._queue.add(key)
                else:
                    self._wanted.pop(key, None)
        moved, self._moved = self._moved, {}
        for key in self._refreshes.of((self._at.get(key, float("-inf")), key) for key in moved):
            self._wanted[key] = moved[key]
            self._queue.add(key)
        self.contests.keep(there, now_seconds)
        for gone in (self._wanted.keys() | self._written.keys()) - there:
            self._forget(gone)
        written = 0
        while keys := self._queue.take(self._at_once):
            written += sum(await asyncio.gather(*(self._work(key, now_seconds) for key in keys)))
        return written

    def _forget(self, key: Key) -> None:
        self._queue.forget(key)
        for book in (self._wanted, self._written, self._at):
            book.pop(key, None)

    async def _work(self, key: Key, now_seconds: float) -> int:
        wanted = self._wanted.pop(key, None)
        if wanted is None:
            self._queue.done(key)
            return 0
        try:
            version = await self._put(key, *wanted, now_seconds)
        except (NotFound, Conflict):
            self._queue.done(key)  # gone or another object of that name: the cache will tell
            return 0
        except StoreError as error:
            pause = self._queue.failed(key, error.retry_after_seconds)
            if not isinstance(error, HeldBack):
                log.warning("status of %s %s not written: %s; again in %.1f s", *key, error, pause)
            return 0
        self._queue.done(key)
        obj, status = wanted
        self._written[key] = _Written(obj.metadata.uid, status, version)
        self._at[key] = now_seconds
        return 1

    def _contested(self, key: Key, obj: Any, status: Any, now_seconds: float) -> Any:
        told = self.contests.condition(key, obj.metadata.generation)
        if told is None:
            return status
        others = [c for c in status.conditions if c.type != told.type]  # told before, with other numbers
        return msgspec.structs.replace(
            status, conditions=[*others, *merge(obj.status.conditions, [told], now_seconds)]
        )

    def _due(self, key: Key, obj: Any, status: Any, now_seconds: float) -> bool:
        if self.contests.waiting(key, now_seconds):
            return False
        last = self._written.get(key)
        # Not seen yet, or seen as the server keeps it: only a change of somebody else's makes it due again.
        if (
            last is not None
            and (last.uid, last.status) == (obj.metadata.uid, status)
            and last.version >= _version(obj)
        ):
            return False
        if _says(status) != _says(obj.status):
            return True
        if now_seconds - self._at.get(key, float("-inf")) >= QUIET_SECONDS:
            self._moved[key] = (obj, status)
        return False

    async def _put(self, key: Key, obj: Any, status: Any, now_seconds: float) -> int:
        """Apply it, once more by force where another manager holds a field; the version it has then."""
        try:
            applied = await self._apply(key, obj, status)
        except Conflict as error:
            if not is_contest(error):
                raise
            contest = self.contests.lost(key, error, now_seconds)
            log.warning(
                "status of %s %s: %s; restored once, then after %.0f s", *key, error, contest.wait_seconds
            )
            applied = await self._apply(key, obj, self._contested(key, obj, status, now_seconds), force=True)
        return int(applied["metadata"].get("resourceVersion") or 0)

    async def _apply(self, key: Key, obj: Any, status: Any, *, force: bool = False) -> JsonObject:
        kind, name = key
        namespace, name = split_key(name)
        meta = {"name": name, "uid": obj.metadata.uid} | ({"namespace": namespace} if namespace else {})
        last = self._written.get(key)
        same = last is not None and last.uid == obj.metadata.uid
        version = max(_version(obj), last.version if same and last is not None else 0)
        told = {field: value for field, value in render(status).items() if field not in ACTORS}
        wanted = {"apiVersion": API_VERSION, "kind": kind, "metadata": meta, "status": told}

        async def send(metadata: JsonObject) -> JsonObject:
            return await self._store.apply(
                BY_KIND[kind].resource,
                {**wanted, "metadata": metadata},
                field_manager=labels.STATUS_MANAGER,
                force=force,
                subresource="status",
            )

        try:
            # With the version that the cache has, the store need not look whose the object is before it writes.
            return await send(meta | ({"resourceVersion": str(version)} if version else {}))
        except Conflict as error:
            if is_contest(error) or not version:
                raise
        return await send(meta)  # the object changed meanwhile; whether it is still this one is looked up


BY_THE_SERVER = frozenset({"foregroundDeletion", "orphan"})
"""Finalizers that the garbage collector takes off by itself."""


def _held(obj: Any, status: Any, now_seconds: float) -> Any:
    """The status of an object that is going, with what it waits for."""
    meta = obj.metadata
    others = [f for f in meta.finalizers if f not in BY_THE_SERVER and not f.startswith(labels.PREFIX)]
    if meta.deletion_timestamp is None or not others:
        return status
    shown = ", ".join(others[:4])
    told = condition(
        "Released",
        False,
        "FinalizerHolds",
        f"Deletion waits for {shown}, which whoever set it must take off ({len(others)} in all); nothing of ours does.",
        meta.generation,
    )
    return msgspec.structs.replace(
        status, conditions=[*status.conditions, *merge(obj.status.conditions, [told], now_seconds)]
    )


def _version(obj: Any) -> int:
    text = obj.metadata.resource_version
    return int(text) if text.isdecimal() else 0


def _says(status: Any) -> tuple[Any, ...]:
    """What a status says apart from its numbers: phase, code, sizes, and every condition's status and code.

    The last checkpoint is among them: the next leader restarts from what is written there.
    """
    sizes = tuple(getattr(status, name, None) for name in SIZES)
    return (*sizes, tuple((c.type, c.status, c.reason) for c in status.conditions))
