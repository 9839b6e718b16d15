"""Finalizers of ours, which no version of this operator sets: taken off what is going once nothing needs it any more.

An older version, or one under development, may have left one when it was killed; its object would stay for ever.
Other people's finalizers are theirs: they are named in a condition, never touched.
"""

from __future__ import annotations

import logging

from controller.actor.pods import split_key
from controller.observe import labels
from controller.observe.world import World
from controller.resources.base import ObjectMeta
from controller.resources.core import POD
from controller.resources.kinds import MODEL_SERVICE, TRAINING_JOB
from controller.store.errors import Conflict, HeldBack, NotFound, StoreError
from controller.store.interface import Resource, Store

log = logging.getLogger("plimsoll.release")

RETRY_SECONDS = 10.0
"""How long an object whose finalizer could not be taken off is left alone."""


class Release:
    """Takes finalizers of the prefix `plimsoll.dev/` off, each object at most once in ten seconds."""

    def __init__(self, store: Store) -> None:
        """Bind to a store."""
        self._store = store
        self._not_before: dict[tuple[str, str], float] = {}

    async def release(self, world: World, now_seconds: float) -> int:
        """Free what can go; how many objects were freed."""
        self._not_before = {key: at for key, at in self._not_before.items() if at > now_seconds}
        freed = 0
        for resource, meta in _held(world):
            key = (resource.kind, meta.key)
            if key not in self._not_before:
                self._not_before[key] = now_seconds + RETRY_SECONDS
                freed += await self._free(resource, meta)
        return freed

    async def _free(self, resource: Resource, meta: ObjectMeta) -> int:
        namespace, name = split_key(meta.key)
        left = [each for each in meta.finalizers if not each.startswith(labels.PREFIX)]
        try:
            await self._store.patch(
                resource,
                name,
                {"metadata": {"finalizers": left}},
                namespace,
                field_manager=labels.MANAGER,
                uid=meta.uid,
                resource_version=meta.resource_version,
            )
        except (NotFound, Conflict, HeldBack):
            return 0  # gone, or changed meanwhile: looked at again
        except StoreError as error:
            log.warning("finalizer of %s %s not taken off: %s", resource.kind, meta.key, error)
            return 0
        log.info(
            "took %s off %s %s", sorted(set(meta.finalizers) - set(left)), resource.qualified_kind, meta.key
        )
        return 1


def _held(world: World) -> list[tuple[Resource, ObjectMeta]]:
    """What only a finalizer of ours keeps: our objects without pods, and pods that have ended."""
    found: list[tuple[Resource, ObjectMeta]] = []
    for key in sorted(world.workloads.finalized):
        pod = world.objects["Pod"].get(key)
        if pod is not None and (pod.finished or not pod.spec.node_name):
            found.append((POD, pod.metadata))
    for resource in (MODEL_SERVICE, TRAINING_JOB):
        for _, obj in sorted(world.objects[resource.kind].items()):
            meta: ObjectMeta = obj.metadata
            if _is_held(meta) and not _has_pods(world, meta.uid):
                found.append((resource, meta))
    return found


def _is_held(meta: ObjectMeta) -> bool:
    return meta.deletion_timestamp is not None and any(f.startswith(labels.PREFIX) for f in meta.finalizers)


def _has_pods(world: World, uid: str) -> bool:
    return any(
        owner.uid == uid for pod in world.objects["Pod"].values() for owner in pod.metadata.owner_references
    )
