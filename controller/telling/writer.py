"""Writes statuses of our kinds, only when they say something new."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from cluster.snapshot import Snapshot
from controller.actor.pods import split_key
from controller.observe import labels
from controller.observe.world import World
from controller.resources.base import render
from controller.resources.kinds import BY_KIND
from controller.store.errors import Conflict, NotFound, StoreError
from controller.store.interface import Store
from controller.telling.memory import Sayings
from controller.telling.statuses import class_status, domain_status, job_status, service_status

log = logging.getLogger("plimsoll.status")

QUIET_SECONDS = 10.0
"""A status that only moved in its numbers is written at most this often; what it *says* is written at once."""

SIZES = (
    "phase", "why", "ready", "replicas", "attempt", "checkpoint_step", "gpu_count", "observed_generation"
)  # fmt: skip

ACTORS = frozenset({"attempt", "restarts"})
"""Fields of a status that only the actor writes, by compare-and-swap."""

Status = Callable[[Any, Snapshot, Sayings, tuple[str, ...], float], msgspec.Struct]

_STATUS: dict[str, Status] = {
    "ModelService": service_status,
    "TrainingJob": job_status,
    "PowerDomain": domain_status,
    "AcceleratorClass": class_status,
}


class StatusWriter:
    """One writer a kind. A status that did not change is not written; one that cannot be is tried again later."""

    def __init__(self, store: Store) -> None:
        """Bind to a store."""
        self._store = store
        self._written: dict[tuple[str, str], Any] = {}
        self._at: dict[tuple[str, str], float] = {}

    async def write(self, world: World, snapshot: Snapshot, sayings: Sayings, now_seconds: float) -> int:
        """Bring every object's status up to date; how many were written."""
        written = 0
        for kind, compute in _STATUS.items():
            for key, obj in sorted(world.objects[kind].items()):
                faults = world.faults.get((kind, key), ())
                status = compute(obj, snapshot, sayings, faults, now_seconds)
                if status != obj.status and self._due(kind, key, obj, status, now_seconds):
                    written += await self._patch(kind, key, obj, status)
                    self._at[kind, key] = now_seconds
        return written

    def _due(self, kind: str, key: str, obj: Any, status: Any, now_seconds: float) -> bool:
        if self._written.get((kind, key)) == (obj.metadata.uid, status):
            return False
        news = _says(status) != _says(obj.status)
        return news or now_seconds - self._at.get((kind, key), float("-inf")) >= QUIET_SECONDS

    async def _patch(self, kind: str, key: str, obj: Any, status: msgspec.Struct) -> int:
        namespace, name = split_key(key)
        try:
            await self._store.patch(
                BY_KIND[kind].resource,
                name,
                {"status": {k: v for k, v in render(status).items() if k not in ACTORS}},
                namespace,
                field_manager=labels.MANAGER,
                uid=obj.metadata.uid,
                subresource="status",
            )
        except (NotFound, Conflict):
            return 0
        except StoreError as error:
            log.warning("status of %s %s not written: %s", kind, key, error)
            return 0
        self._written[kind, key] = (obj.metadata.uid, status)
        return 1


def _says(status: Any) -> tuple[Any, ...]:
    """What a status says apart from its numbers: phase, code, sizes, and every condition's status and code.

    The last checkpoint is among them: the next leader restarts from what is written there.
    """
    sizes = tuple(getattr(status, name, None) for name in SIZES)
    return (*sizes, tuple((c.type, c.status, c.reason) for c in status.conditions))
