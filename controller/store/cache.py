"""A cache of one kind that follows the store by list and watch, and says how far it can be trusted.

Level-triggered: whatever was lost, delayed, doubled or cut, the cache ends equal to the store. Everything
is pumped by its owner; nothing here waits or reads a clock of its own (specification: research/ecosystem
§2.4).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from controller.store.backoff import Backoff
from controller.store.errors import BadRequest, Gone, Invalid, StoreError, Unavailable
from controller.store.indexes import Indexes
from controller.store.interface import EventType, JsonObject, Resource, Store, Watch, WatchEvent
from controller.store.listing import (
    Listing,
    Quiet,
    Stalled,
    T,
    close_late,
    identity,
    projector,
    read_pages,
    read_stream,
)
from controller.store.own_writes import OwnWrites, object_key, version_number
from runtime.clock import Clock

A = TypeVar("A")

log = logging.getLogger(__name__)

PAGE = 500
SILENCE_SECONDS = 70.0
"""A healthy watch brings a bookmark each minute: one silent for longer is half open."""

REMIND_SECONDS = 60.0
"""A store that does not answer is told once when it begins, and then at most this often."""

SHORTEST_SECONDS = 1.0
"""A watch that ends sooner counts as failed, so that a server that ends each at once is not hammered."""

REMEMBERED = 1_024
"""So many events of a stream are remembered by their versions, to tell one that comes twice from one that comes late."""

LISTS_APART_SECONDS = 1.0
"""Never more than one list of a kind in this time, whatever the store answers."""

PATIENCE_SECONDS = 1.0
"""How long one `pump` waits for a store far away; its answer is taken by a later one."""

STALE_LISTS = 3
"""After so many lists older than the cache the store is believed to have gone back (restored from a copy)."""


class Delta(msgspec.Struct, Generic[T], frozen=True):
    """What became of one object: `old` None when it is new to the cache, `new` None when it is gone."""

    key: str
    old: T | None
    new: T | None


class Defects(msgspec.Struct, frozen=True):
    """Planted defects. Only tests switch them on, to show that they would be noticed."""

    drop_delete: bool = False
    lose_bookmark: bool = False
    stale_relist: bool = False


SOUND = Defects()


class Reflector(Generic[T]):
    """The objects of one kind as projections of type `T`, by `namespace/name`.

    `indexes` name functions from an object to the values it is to be found under. `pump` is called
    often and never raises `StoreError`. A store far away (`Capabilities.remote`) is asked in the background: `pump`
    then waits `PATIENCE_SECONDS` for it at most, and takes its answer whenever it is there.
    """

    def __init__(  # noqa: PLR0913 - all but the first four have defaults
        self,
        store: Store,
        resource: Resource,
        shape: type[T],
        clock: Clock,
        *,
        seed: int = 0,
        namespace: str = "",
        label_selector: str = "",
        field_selector: str = "",
        indexes: Mapping[str, Callable[[T], Iterable[str]]] | None = None,
        page: int = PAGE,
        defects: Defects = SOUND,
    ) -> None:
        self.resource = resource
        self.objects: dict[str, T] = {}
        self.has_synced = False
        self.lists = 0
        self.faults = 0
        self.undecodable: dict[str, str] = {}
        self._store = store
        self._clock = clock
        self._bounds = (namespace, label_selector, field_selector)
        self._page = page
        self._defects = defects
        self._decode = projector(shape)
        self._backoff = Backoff(clock, random.Random(f"{seed}/{resource.qualified}"))
        self._indexes: Indexes[T] = Indexes(indexes or {})
        self._watch: Watch | None = None
        self._position = ""
        self._listed = False
        self._list_at = float("-inf")
        self._streams = True
        self._asking: asyncio.Task[Any] | None = None
        self._heard_at = self._opened_at = clock.monotonic()
        self._stale_lists = 0
        self._failing_since: float | None = None
        self._remind_at = float("-inf")
        self._own = OwnWrites()
        self._begun_from = 0
        self._seen: dict[int, None] = {}

    # ---------------------------------------------------------------------------------------------- read

    def get(self, key: str) -> T | None:
        """The object of that `namespace/name` (or name), or None."""
        return self.objects.get(key)

    def by(self, index: str, value: str) -> list[T]:
        """The objects found under a value of an index, by key. Raises `KeyError` for an unknown index."""
        return self._indexes.by(index, value)

    @property
    def follows(self) -> bool:
        """Whether a watch is open."""
        return self._watch is not None

    @property
    def position(self) -> str:
        """The version up to which the cache has seen everything; "" before the first list."""
        return self._position

    @property
    def last_event_age_seconds(self) -> float:
        """Time since the store was last heard of (event, bookmark or list)."""
        return self._clock.monotonic() - self._heard_at

    # ------------------------------------------------------------------------------------- own writes

    def wrote(self, obj: JsonObject) -> None:
        """Note the answer to a write of ours: until the cache has seen it, the object is not `fresh`."""
        meta = obj["metadata"]
        key = object_key(meta.get("namespace", ""), meta["name"])
        self._own.wait(key, version=version_number(meta.get("resourceVersion", "")))

    def deleted(self, key: str, uid: str) -> None:
        """Note a deletion of ours: the object is not `fresh` until it is gone or marked as going."""
        self._own.wait(key, gone_uid=uid)

    def fresh(self, key: str) -> bool:
        """False while a write of ours to this object is not in the cache yet: do not decide on it."""
        return self._own.fresh(key, self.objects.get(key), version_number(self._position))

    # ---------------------------------------------------------------------------------------------- pump

    async def pump(self) -> list[Delta[T]]:
        """Catch up with the store as far as it answers now; what changed, in order."""
        deltas: list[Delta[T]] = []
        if self._watch is None and self._asking is None and not self._due:
            return deltas
        try:
            if not self._listed:
                found = await self._answer(self._list)
                if found is None:
                    return deltas
                deltas = self._take_over(*found)
            if self._watch is None:
                watch = await self._answer(self._resume)
                if watch is None:
                    return deltas
                self._follow(watch)
            self._drain(deltas)
            self._recovered()
        except StoreError as error:
            self._disturbed(error)
        if deltas:
            for key in self._own.awaited:
                self.fresh(key)
        return deltas

    def close(self) -> None:
        """Give the stream up; the objects stay."""
        if self._asking is not None:
            self._asking.add_done_callback(close_late)
            self._asking.cancel()
            self._asking = None
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    @property
    def _due(self) -> bool:
        """Whether the store may be asked now."""
        apart = self._clock.monotonic() - self._list_at
        return self._backoff.ready and (self._listed or apart >= LISTS_APART_SECONDS)

    async def _answer(self, ask: Callable[[], Coroutine[Any, Any, A]]) -> A | None:
        """The store's answer, or None while there is none yet."""
        if not self._store.capabilities.remote:
            return await ask()
        if self._asking is None:
            self._asking = asyncio.create_task(ask(), name=f"follow {self.resource.qualified}")
        asking = self._asking
        done, _ = await asyncio.wait({asking}, timeout=PATIENCE_SECONDS)
        if not done:
            return None
        self._asking = None
        answer: A = await asking
        return answer

    async def _list(self) -> tuple[Listing[T], Watch | None]:
        """Everything, as it is now, and the watch that goes on from there if the list was a stream."""
        self._list_at = self._clock.monotonic()
        self.lists += 1
        listing = Listing(self._decode, self.objects)
        with Quiet() as quiet:
            watch = await self._streamed(listing)
            if watch is None:
                await read_pages(self._store, self.resource, self._bounds, self._page, listing)
            quiet.harvest = 0 if self.has_synced else len(listing.objects)
        return listing, watch

    async def _streamed(self, listing: Listing[T]) -> Watch | None:
        """A streaming list, where the server offers it; it is asked for only until it refuses."""
        if not (self._streams and self._store.capabilities.streams_lists):
            return None
        try:
            return await read_stream(self._store, self.resource, self._bounds, listing)
        except (Invalid, BadRequest, Stalled) as error:
            self._streams = False
            log.info("lists of %s come in pages: %s", self.resource.qualified, error.message)
            return None

    async def _resume(self) -> Watch:
        namespace, labels, by_field = self._bounds
        return await self._store.watch(
            self.resource,
            namespace,
            resource_version=self._position,
            label_selector=labels,
            field_selector=by_field,
        )

    def _follow(self, watch: Watch) -> None:
        self._watch = watch
        self._heard_at = self._opened_at = self._clock.monotonic()
        self._begun_from = version_number(self._position)
        self._seen.clear()

    def _drain(self, deltas: list[Delta[T]]) -> None:
        watch = self._watch
        if watch is None:
            return
        events = watch.drain()
        for event in events:
            if delta := self._fold(event):
                deltas.append(delta)  # noqa: PERF401 - what came before a fault is told all the same
        if events:
            self._heard_at = self._clock.monotonic()
        if watch.ended:
            self._watch = None
            if self._clock.monotonic() - self._opened_at < SHORTEST_SECONDS:
                self._backoff.failed()
        elif self.last_event_age_seconds > SILENCE_SECONDS:
            log.warning(
                "watch of %s has been silent for %.0f s: it is half open and is opened again",
                self.resource.qualified,
                self.last_event_age_seconds,
            )
            self.faults += 1
            self.close()

    def _disturbed(self, error: StoreError) -> None:
        """Keep what is known, and try again later: from the last version, or from a list after 410."""
        self.faults += 1
        self.close()
        if isinstance(error, Gone):
            self._listed = False
        wait = self._backoff.failed(error.retry_after_seconds)
        now = self._clock.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        level = logging.WARNING if now >= self._remind_at else logging.DEBUG
        if level == logging.WARNING:
            self._remind_at = now + REMIND_SECONDS
        log.log(
            level,
            "%s of %s failed (%s %s): again in %.1f s, and what is known stays in force",
            "watch" if self._listed else "list",
            self.resource.qualified,
            error.code,
            error.message,
            wait,
        )

    def _recovered(self) -> None:
        """The store answers again."""
        since, self._failing_since = self._failing_since, None
        if since is not None:
            self._remind_at = float("-inf")
            log.info(
                "%s are followed again after %.1f s", self.resource.qualified, self._clock.monotonic() - since
            )

    # ---------------------------------------------------------------------------------------------- fold

    def _fold(self, event: WatchEvent) -> Delta[T] | None:
        version = version_number(event.resource_version)
        if version <= version_number(self._position):
            self._refuse_late(version, event.type)
            return None
        if event.type is EventType.BOOKMARK:
            if not self._defects.lose_bookmark:
                self._position = event.resource_version
            return None
        self._position = event.resource_version
        self._seen[version] = None
        if len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        if event.type is EventType.DELETED:
            if self._defects.drop_delete:
                return None
            key = identity(event.raw).key
            self.undecodable.pop(key, None)
            return self._put(key, None)
        return self._take(event.raw)

    def _refuse_late(self, version: int, kind: EventType) -> None:
        """What comes twice is nothing new; what comes after something newer, or after a bookmark, was not seen.

        Raises `Gone`: which object it would undo cannot be told, so everything is listed again.
        """
        if kind is not EventType.BOOKMARK and version > self._begun_from and version not in self._seen:
            raise Gone(
                f"the watch of {self.resource.qualified} brought version {version} after {self._position}: "
                "its events are out of order"
            )

    def _take(self, raw: bytes) -> Delta[T] | None:
        try:
            obj = self._decode(raw)
        except msgspec.ValidationError as error:
            return self._unreadable(identity(raw).key, str(error))
        key = obj.metadata.key
        self.undecodable.pop(key, None)
        return self._put(key, obj)

    def _unreadable(self, key: str, why: str) -> Delta[T] | None:
        """An object that does not fit its type must not hide the others; it is treated as absent."""
        self.undecodable[key] = why
        log.error(
            "%s %s cannot be read and is left out: %s; correct the object or its definition",
            self.resource.kind,
            key,
            why,
        )
        return self._put(key, None)

    def _put(self, key: str, new: T | None) -> Delta[T] | None:
        old = self.objects.get(key)
        if old is None and new is None:
            return None
        if new is None:
            del self.objects[key]
        else:
            self.objects[key] = new
        self._indexes.put(key, old, new)
        return Delta(key, old, new)

    # ---------------------------------------------------------------------------------------------- list

    def _take_over(self, listing: Listing[T], watch: Watch | None) -> list[Delta[T]]:
        """Make what was listed the state of things, once it is complete."""
        try:
            self._refuse_stale(listing.version)
        except StoreError:
            if watch is not None:
                watch.close()
            raise
        deltas: list[Delta[T]] = []
        for key in self.undecodable.keys() - listing.unreadable.keys():
            del self.undecodable[key]
        for key, obj in listing.objects.items():
            if self.objects.get(key) is not obj and (delta := self._put(key, obj)):
                deltas.append(delta)
        for key, why in listing.unreadable.items():
            if self.undecodable.get(key) != why and (delta := self._unreadable(key, why)):
                deltas.append(delta)
        gone = () if self._defects.stale_relist else sorted(self.objects.keys() - listing.objects.keys())
        deltas.extend(delta for key in gone if (delta := self._put(key, None)))
        self._position = listing.version
        self._listed = self.has_synced = True
        self._heard_at = self._clock.monotonic()
        if watch is not None:
            self._follow(watch)
        return deltas

    def _refuse_stale(self, version: str) -> None:
        """A lagging server may list an older state than was seen; taking it would undo known changes."""
        if version_number(version) >= version_number(self._position):
            self._stale_lists = 0
            return
        self._stale_lists += 1
        if self._stale_lists <= STALE_LISTS:
            raise Unavailable(
                f"the list of {self.resource.qualified} is of version {version}, older than {self._position} "
                "which was seen already: asking again"
            )
