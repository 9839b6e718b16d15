"""The operator's caches: one reflector a kind, pumped together, read as one feed of changes."""

from __future__ import annotations

import asyncio
from typing import Any

from controller.observe import labels
from controller.observe.world import Change
from controller.resources import core
from controller.resources import corestorage as storage
from controller.resources.acceleratorclass import AcceleratorClass
from controller.resources.core import POD_DISRUPTION_BUDGET
from controller.resources.coredra import RESOURCE_CLAIM, RESOURCE_SLICE, ResourceClaim, ResourceSlice
from controller.resources.guards import PodDisruptionBudget
from controller.resources.kinds import ACCELERATOR_CLASS, MODEL_SERVICE, POWER_DOMAIN, TRAINING_JOB
from controller.resources.modelservice import ModelService
from controller.resources.powerdomain import PowerDomain
from controller.resources.trainingjob import TrainingJob
from controller.store.cache import Reflector
from controller.store.interface import JsonObject, Resource, Store
from controller.store.optional import OptionalReflector
from runtime.clock import Clock

_SHAPES: tuple[tuple[Resource, type[Any]], ...] = (
    (core.NAMESPACE, core.Namespace),
    (ACCELERATOR_CLASS, AcceleratorClass),
    (core.NODE, core.Node),
    (POWER_DOMAIN, PowerDomain),
    (core.CONTROLLER_REVISION, core.ControllerRevision),
    (MODEL_SERVICE, ModelService),
    (TRAINING_JOB, TrainingJob),
    (core.SERVICE, core.ServiceObject),
    (RESOURCE_SLICE, ResourceSlice),
    (RESOURCE_CLAIM, ResourceClaim),
    (POD_DISRUPTION_BUDGET, PodDisruptionBudget),
    (core.STORAGE_CLASS, storage.StorageClass),
    (core.VOLUME, storage.PersistentVolume),
    (core.CLAIM, storage.PersistentVolumeClaim),
    (core.POD, core.Pod),
)
_OPTIONAL = frozenset({RESOURCE_SLICE.kind, RESOURCE_CLAIM.kind})
"""Kinds that a cluster may not serve."""
_OURS_ONLY = dict.fromkeys(
    (core.SERVICE.kind, core.CONTROLLER_REVISION.kind), f"{labels.MANAGED_BY}=plimsoll"
)
"""Kinds of which only what the operator made is followed, by label selector."""

DOUBT_SECONDS = 10.0
"""How long an object whose creation was not answered may take to show."""
UNSEEN_SECONDS = 30.0
"""How long an own write may stay unseen before it is no longer waited for (the watch is surely new by then)."""


class Caches:
    """Every kind the operator decides on. Pods come last, so that what they refer to is there first."""

    def __init__(self, store: Store, clock: Clock, seed: int) -> None:
        """Open nothing yet; the first `pump` lists."""
        self._clock = clock
        self._remote = store.capabilities.remote
        self.reflectors: dict[str, Reflector[Any]] = {
            resource.kind: (OptionalReflector if resource.kind in _OPTIONAL else Reflector)(
                store, resource, shape, clock, seed=seed, label_selector=_OURS_ONLY.get(resource.kind, "")
            )
            for resource, shape in _SHAPES
        }
        self._pending: list[Change] = []
        self._awaited: dict[tuple[str, str], float] = {}
        self._doubts: dict[tuple[str, str], float] = {}

    @property
    def synced(self) -> bool:
        """Whether every kind has been listed once."""
        return all(r.has_synced for r in self.reflectors.values())

    async def pump(self) -> None:
        """Catch up with the store, as far as it answers: all kinds at once where that takes time."""
        followed = self.reflectors.values()
        if self._remote:
            found = await asyncio.gather(*(reflector.pump() for reflector in followed))
        else:
            found = [await reflector.pump() for reflector in followed]
        for kind, deltas in zip(self.reflectors, found, strict=True):
            self._pending += [Change(kind, delta.key, delta.new) for delta in deltas]

    def changes(self) -> list[Change]:
        """What changed since the last call, in order."""
        pending, self._pending = self._pending, []
        return pending

    def wrote(self, resource: Resource, obj: JsonObject) -> None:
        """An own write was answered with this object: nothing is decided on it until the cache has it."""
        meta = obj["metadata"]
        key = f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else meta["name"]
        self.reflectors[resource.kind].wrote(obj)
        self._awaited[resource.kind, key] = self._clock.monotonic() + UNSEEN_SECONDS

    def doubted(self, resource: Resource, key: str) -> None:
        """The answer to a creation was lost: nothing is decided until the object shows, or surely never will."""
        self._doubts[resource.kind, key] = self._clock.monotonic() + DOUBT_SECONDS

    @property
    def fresh(self) -> bool:
        """False while an own write has not come back yet: a plan made now would not see its own past."""
        now = self._clock.monotonic()
        self._doubts = {
            (kind, key): until
            for (kind, key), until in self._doubts.items()
            if until > now and key not in self.reflectors[kind].objects
        }
        self._awaited = {
            (kind, key): until
            for (kind, key), until in self._awaited.items()
            if until > now and not self.reflectors[kind].fresh(key)
        }
        return not self._awaited and not self._doubts

    async def close(self) -> None:
        """Give all streams up."""
        for reflector in self.reflectors.values():
            reflector.close()
