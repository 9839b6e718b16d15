"""What is kept as it should be beside the plans: readiness gates, Services, finalizers that were left behind."""

from __future__ import annotations

from cluster.reasons import Reason
from controller.actor.gates import Gates
from controller.actor.release import Release
from controller.actor.revisions import Revisions
from controller.actor.services import Services
from controller.observe.caches import Caches
from controller.observe.world import World
from controller.store.interface import JsonObject, Resource, Store
from controller.telling.restraint import disrupted_reasons


class Upkeep:
    """Level-triggered: looks at what the caches have, and writes what differs."""

    def __init__(self, store: Store, caches: Caches, world: World, *, confirmed: bool) -> None:
        """`confirmed`: agents must confirm that an engine is up (there is a hub)."""
        self.gates = Gates(store, confirmed=confirmed)
        self.revisions = Revisions(store)
        self.services = Services(store)
        self.release = Release(store)
        self._caches = caches
        self._world = world

    async def open_gates(self, now: float) -> bool:
        """Let replicas become ready whose engines are up; whether the model learnt something new by it."""
        return await self._learn(await self.gates.open(self._world, now), now)

    async def keep_revisions(self, now: float) -> bool:
        """Keep what services are to be started from, before it is; whether the model learnt something new by it."""
        if not self._caches.synced:
            return False
        return await self._learn(await self.revisions.keep(self._world, now), now)

    async def _learn(self, written: list[tuple[Resource, JsonObject]], now: float) -> bool:
        for resource, obj in written:
            self._caches.wrote(resource, obj)
        if not written:
            return False
        await self._caches.pump()
        self._world.apply(self._caches.changes())
        return self._world.settle(now)

    async def tend(self, now: float) -> list[Reason]:
        """Services as they should be, and nothing held by a finalizer of ours; what there is to say of them."""
        if self._caches.synced:
            for resource, obj in await self.services.keep(self._world, now):
                self._caches.wrote(resource, obj)
            await self.release.release(self._world, now)
        return [*self.services.reasons(self._world), *disrupted_reasons(self._world)]
