"""What attempts do on a store that offers PodGroups, beside their usual plays; and a store that drops the field."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from controller.actor.podgroups import GROUP, PLURAL, resource_of
from controller.resources.core import POD
from controller.store.embedded import open_store
from controller.store.embedded.store import EmbeddedStore
from controller.store.interface import JsonObject, Resource, Store
from controller.store.interposed import InterposedStore
from runtime.clock import VirtualClock
from tests.scenarios.further import further_kinds

POD_GROUP = resource_of("v1beta1")


class Offering(InterposedStore):
    """Keeps what was asked about PodGroups, and drops `spec.schedulingGroup` of pods where the gate is off."""

    def __init__(self, inner: EmbeddedStore, *, keeps: bool) -> None:
        super().__init__(inner)
        self._keeps = keeps
        self.told: list[str] = []
        self.named: dict[str, str] = {}
        """The PodGroup that each pod was created with."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)  # what plays the controllers

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, dry_run: bool = False
    ) -> JsonObject:
        name = obj["metadata"]["name"]
        if resource == POD and "schedulingGroup" in obj["spec"]:
            if not self._keeps:
                obj = {**obj, "spec": {k: v for k, v in obj["spec"].items() if k != "schedulingGroup"}}
            elif not dry_run:
                self.named[name] = obj["spec"]["schedulingGroup"]["podGroupName"]
        if dry_run or resource == POD_GROUP:
            self.told.append(f"{'try' if dry_run else 'create'} {name}")
        return await self.inner.create(resource, obj, field_manager=field_manager, dry_run=dry_run)

    async def served(self, group: str, plural: str) -> tuple[str, ...]:
        assert (group, plural) == (GROUP, PLURAL)
        self.told.append("discover")
        return await self.inner.served(group, plural)


class _Session:
    tier = "embedded"

    def __init__(self, tier: OfferingTier) -> None:
        self._tier = tier

    def open(self, clock: VirtualClock, seed: int) -> Store:
        kinds = further_kinds() | ({POD_GROUP: None} if self._tier.offered else {})
        self._tier.store = Offering(open_store(clock, seed=seed, more=kinds), keeps=self._tier.keeps)
        return self._tier.store

    async def admitted(self, namespaces: Iterable[str]) -> None:
        del namespaces


class OfferingTier:
    """The embedded store with PodGroups; `store` is the last play's."""

    name = "embedded"
    wall_seconds = 60.0

    def __init__(self, *, offered: bool = True, keeps: bool = True) -> None:
        self.offered, self.keeps = offered, keeps
        self.store: Offering

    @asynccontextmanager
    async def session(self) -> AsyncIterator[_Session]:
        yield _Session(self)
