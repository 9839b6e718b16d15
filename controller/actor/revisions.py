"""Keeps what a service was started from in ControllerRevisions, and what became of each: before anything follows from it.

One is created when a revision is first wanted, gets the next number when an older one is wanted again, and is deleted
when it is neither in use nor among the newest `LIMIT`. The user's object is never written to.
"""

from __future__ import annotations

import logging
from typing import Any

from cluster.actions import SettleRevision
from cluster.restraint import Hold
from controller.actor.pods import owner_reference, split_key
from controller.observe import labels
from controller.observe.revisions import COMPLETE, FAILED, Kept, Standing, template_of
from controller.observe.standings import KEPT_LIMIT, Standings
from controller.observe.world import World
from controller.resources.core import CONTROLLER_REVISION
from controller.resources.modelservice import ModelService
from controller.store.errors import AlreadyExists, Conflict, NotFound, StoreError
from controller.store.interface import JsonObject, Resource, Store

log = logging.getLogger("plimsoll.revisions")

LIMIT = KEPT_LIMIT
"""Former revisions that are kept, as many as of a StatefulSet."""
RETRY_SECONDS = 10.0
"""How long a revision that could not be kept is left alone."""
WRITES_PER_ROUND = 50


class Revisions:
    """Writes what is to be kept of each service's revision."""

    def __init__(self, store: Store) -> None:
        """Bind to a store."""
        self._store = store
        self._not_before: dict[str, float] = {}

    async def keep(self, world: World, now_seconds: float) -> list[tuple[Resource, JsonObject]]:
        """Keep what is wanted now and not kept yet, and drop what is too old; the objects as they were answered."""
        self._not_before = {key: at for key, at in self._not_before.items() if at > now_seconds}
        written: list[tuple[Resource, JsonObject]] = []
        for key in sorted(world.revisions.unkept - self._not_before.keys()):
            if len(written) >= WRITES_PER_ROUND:
                break
            standing = world.revisions.of(key)
            if standing is None or world.revisions.hold_of(key) is not Hold.NONE:
                continue
            try:
                answer = await self._keep(key, standing, world.revisions, now_seconds)
            except (AlreadyExists, NotFound, Conflict):
                answer = None  # the cache is late, or a predecessor's is still there
            except StoreError as error:
                log.warning("revision %s of %s not kept: %s", standing.wanted, key, error)
                answer = None
            if answer is None:
                self._not_before[key] = now_seconds + RETRY_SECONDS
            else:
                written.append((CONTROLLER_REVISION, answer))
        return written

    async def _keep(
        self, key: str, standing: Standing, standings: Standings, now: float
    ) -> JsonObject | None:
        kept = standings.kept(key)
        if not standing.recorded:
            number = max((each.number for each in kept), default=0) + 1
            before = next((each for each in kept if each.name == standing.wanted), None)
            if before is None:
                made = revision_object(standing.acting, standing.wanted, number, now)
                # By apply: `data` is then kept as the server itself writes it. What POST sent is kept as it was sent,
                # and every later patch is refused as a change of it, if only by its spaces (measured on 1.36.3).
                return await self._store.apply(CONTROLLER_REVISION, made, field_manager=labels.MANAGER)
            return await self._again(before, number, now)
        for old in superfluous(kept, standings.in_use(key)):
            meta = old.obj.metadata
            await self._store.delete(CONTROLLER_REVISION, meta.name, meta.namespace, uid=meta.uid)
        return None

    async def _again(self, kept: Kept, number: int, now: float) -> JsonObject:
        """An older revision is wanted again: it is the newest now, and nothing is known of how it fares this time."""
        notes = {labels.BEGAN: repr(now), labels.OUTCOME: "", labels.ENDED: "", labels.WHY: ""}
        meta = kept.obj.metadata
        return await self._store.patch(
            CONTROLLER_REVISION,
            meta.name,
            {"revision": number, "metadata": {"annotations": notes}},
            meta.namespace,
            field_manager=labels.MANAGER,
            uid=meta.uid,
        )


def superfluous(kept: list[Kept], in_use: set[str]) -> list[Kept]:
    """The oldest of those that nothing is of any more, beyond `LIMIT`."""
    idle = [each for each in kept if each.name not in in_use]
    return idle[: max(0, len(idle) - LIMIT)]


def revision_object(obj: ModelService, name: str, number: int, now_seconds: float) -> JsonObject:
    """The ControllerRevision of what the user asks for now."""
    meta = obj.metadata
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{meta.name}-{name}",
            "namespace": meta.namespace,
            "labels": {
                labels.MANAGED_BY: "plimsoll",
                labels.SERVICE: meta.name,
                labels.REVISION: name,
            },
            # All of them: a namesake's that was settled and is not collected yet is then no object of ours (409).
            "annotations": {
                labels.BEGAN: repr(now_seconds),
                labels.OUTCOME: "",
                labels.ENDED: "",
                labels.WHY: "",
            },
            "ownerReferences": [owner_reference("ModelService", meta.key, meta.uid)],
        },
        "revision": number,
        "data": {"spec": template_of(obj.spec)},
    }


async def settle(store: Store, action: SettleRevision, kept: Kept | None, now_seconds: float) -> JsonObject:
    """Write down what became of a revision. Raises the store's errors; NotFound for one that is not kept."""
    if kept is None:
        raise NotFound(
            f"revision {action.revision} of {action.service} is not kept: nothing can be noted of it"
        )
    notes: dict[str, Any] = {
        labels.OUTCOME: COMPLETE if action.complete else FAILED,
        labels.ENDED: repr(now_seconds),
        labels.WHY: action.code,
    }
    namespace, _ = split_key(action.service)
    return await store.patch(
        CONTROLLER_REVISION,
        kept.obj.metadata.name,
        {"metadata": {"annotations": notes}},
        namespace,
        field_manager=labels.MANAGER,
        uid=kept.obj.metadata.uid,
    )
