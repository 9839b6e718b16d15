"""A cache of all objects of one kind, kept by one list and one watch, pumped by its owner."""

from __future__ import annotations

import logging
from typing import Generic, NamedTuple, Protocol, TypeVar

import msgspec

from controller.store.errors import Gone, StoreError
from controller.store.interface import EventType, Resource, Store, Watch, WatchEvent
from runtime.clock import Clock
from simulator.fleet.objects import Meta

logger = logging.getLogger(__name__)

QUIET_SECONDS = 180.0
"""A stream without even a bookmark for so long is half open: it is opened anew (a bookmark comes each minute)."""


class _Object(Protocol):
    @property
    def metadata(self) -> Meta: ...


T = TypeVar("T", bound=_Object)


class Change(NamedTuple, Generic[T]):
    """One object before and after; None where it did not or does not exist."""

    key: str
    old: T | None
    new: T | None


class Feed(Generic[T]):
    """Objects of `resource` as `kind`, by key. A fault of the store leaves them as they were, and is tried again."""

    def __init__(
        self, store: Store, clock: Clock, resource: Resource, kind: type[T], namespace: str = ""
    ) -> None:
        self.objects: dict[str, T] = {}
        self.synced = False
        """Whether the last pump reached the store; False before the first and during an outage."""
        self.relists = 0
        self._store = store
        self._clock = clock
        self._resource = resource
        self._namespace = namespace
        self._decode = msgspec.json.Decoder(kind).decode
        self._version = ""
        self._watch: Watch | None = None
        self._heard = clock.monotonic()

    async def pump(self) -> list[Change[T]]:
        """Everything that changed since the last call, in the store's order; one entry per object."""
        changed: dict[str, T | None] = {}
        try:
            if self._watch is None or self._watch.ended or self._stale():
                await self._open(changed)
            self._drain(changed)
            self.synced = True
        except Gone:
            self._version = ""
            self._drop()
        except StoreError as error:
            if self.synced:
                logger.warning("%s not followed: %s", self._resource.plural, error)
            elif self._watch is None:
                self._version = (
                    ""  # no stream from here, twice: a store restored to its past answers so for ever
                )
            self.synced = False
            self._drop()
        return [Change(key, old, self.objects.get(key)) for key, old in changed.items()]

    def forget(self) -> None:
        """The store is another one than before: list again, whatever versions say."""
        self._version = ""
        self._drop()

    def close(self) -> None:
        """Gives the stream up."""
        self._drop()

    def _stale(self) -> bool:
        return self._clock.monotonic() - self._heard > QUIET_SECONDS

    def _drop(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    async def _open(self, changed: dict[str, T | None]) -> None:
        self._drop()
        if not self._version:
            await self._list(changed)
        self._watch = await self._store.watch(self._resource, self._namespace, resource_version=self._version)
        self._heard = self._clock.monotonic()

    async def _list(self, changed: dict[str, T | None]) -> None:
        found = await self._store.list(self._resource, self._namespace)
        self.relists += 1
        seen = set()
        for raw in found.raw_items:
            obj = self._read(raw)
            if obj is not None:
                seen.add(obj.metadata.key)
                self._take(obj, changed)
        for key in [key for key in self.objects if key not in seen]:
            changed.setdefault(key, self.objects.pop(key))
        self._version = found.resource_version

    def _drain(self, changed: dict[str, T | None]) -> None:
        events = self._watch.drain() if self._watch is not None else ()
        if events:
            self._heard = self._clock.monotonic()
        for event in events:
            # Versions grow along a stream: what is not newer comes a second time and would lead back.
            if int(event.resource_version) <= int(self._version):
                continue
            self._version = event.resource_version
            if event.type is not EventType.BOOKMARK:
                self._apply(event, changed)

    def _apply(self, event: WatchEvent, changed: dict[str, T | None]) -> None:
        obj = self._read(event.raw)
        if obj is None:
            return
        if event.type is not EventType.DELETED:
            self._take(obj, changed)
        elif (held := self.objects.pop(obj.metadata.key, None)) is not None:
            changed.setdefault(obj.metadata.key, held)

    def _take(self, obj: T, changed: dict[str, T | None]) -> None:
        key = obj.metadata.key
        held = self.objects.get(key)
        if held is None or _identity(held) != _identity(obj):
            changed.setdefault(key, held)
            self.objects[key] = obj

    def _read(self, raw: bytes) -> T | None:
        """An object that cannot be read is somebody's mistake and costs nobody else anything."""
        try:
            return self._decode(raw)
        except msgspec.DecodeError as error:
            logger.warning("a %s cannot be read and is left alone: %s", self._resource.kind, error)
            return None


def _identity(obj: _Object) -> tuple[str, str]:
    return obj.metadata.uid, obj.metadata.resource_version
