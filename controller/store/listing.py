"""Reading everything of a kind: page by page, or as a stream where the server offers one; projections only.

A listing keeps no body: each object is decoded into its projection as it comes, and one that the cache holds at the
same version already is taken from there.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import msgspec

from controller.resources.base import ObjectMeta
from controller.resources.trimming import TRIMS
from controller.store.errors import Unavailable
from controller.store.interface import EventType, Resource, Store, Watch, WatchEvent

IDLE_SECONDS = 0.05
"""Pause where a stream has something, and does not give it out yet."""

STREAM_SECONDS = 30.0
"""A streaming list that brings nothing for so long is given up, and pages are asked for instead."""

MANY = 5_000
"""From so many objects on, they are taken out of the garbage collector's sight once they are there."""

ALL_THERE = "k8s.io/initial-events-end"
"""Annotation of the bookmark that ends the first part of a streaming list (KEP-3157)."""

Bounds = tuple[str, str, str]
"""Namespace, label selector, field selector."""


class HasMetadata(Protocol):
    """Any projection that keeps an object's metadata."""

    @property
    def metadata(self) -> ObjectMeta:
        """Identity, version and labels."""


T = TypeVar("T", bound=HasMetadata)


class Stalled(Unavailable):
    """A streaming list stands still before everything came: the server may not know what it was asked for."""


class Identity(msgspec.Struct, frozen=True):
    """What an object is called: all that is needed of one that cannot be read, or is gone."""

    metadata: ObjectMeta


class _Annotations(msgspec.Struct, frozen=True):
    annotations: dict[str, str] | None = None


class _Bookmark(msgspec.Struct, frozen=True):
    metadata: _Annotations


_IDENTITIES = msgspec.json.Decoder(Identity)
_BOOKMARKS = msgspec.json.Decoder(_Bookmark)


def projector(shape: type[T]) -> Callable[[bytes], T]:
    """From an object's bytes to what is kept of it. The function raises `msgspec.ValidationError`."""
    decode = msgspec.json.Decoder(shape).decode
    trim = TRIMS.get(shape)
    if trim is None:
        return decode
    return lambda raw: trim(decode(raw))


def identity(raw: bytes) -> ObjectMeta:
    """metadata of any object."""
    return _IDENTITIES.decode(raw).metadata


class Listing(Generic[T]):
    """What was found so far. `version` is that of the whole collection, "" until it is complete."""

    def __init__(self, decode: Callable[[bytes], T], known: Mapping[str, T]) -> None:
        self.objects: dict[str, T] = {}
        self.unreadable: dict[str, str] = {}
        self.version = ""
        self._decode = decode
        self._known = known

    def add(self, raw: bytes) -> None:
        """One object. It must not hide the others when it does not fit its type."""
        try:
            obj = self._decode(raw)
        except msgspec.ValidationError as error:
            self.unreadable[identity(raw).key] = str(error)
            return
        key = obj.metadata.key
        held = self._known.get(key)
        same = held is not None and held.metadata.resource_version == obj.metadata.resource_version
        self.objects[key] = held if same and held is not None else obj

    def fold(self, event: WatchEvent) -> None:
        """One event of a streaming list; complete with the bookmark that says so, and what came behind it counts too."""
        if event.type is EventType.BOOKMARK:
            marks = _BOOKMARKS.decode(event.raw).metadata.annotations or {}
            if marks.get(ALL_THERE) != "true" and not self.version:
                return
        elif event.type is EventType.DELETED:
            key = identity(event.raw).key
            self.objects.pop(key, None)
            self.unreadable.pop(key, None)
        else:
            self.add(event.raw)
        if event.type is EventType.BOOKMARK or self.version:
            self.version = event.resource_version


async def read_pages(store: Store, resource: Resource, bounds: Bounds, page: int, into: Listing[T]) -> None:
    """Fill a listing page by page, all of one version. Raises what the store raises; the listing is then void."""
    namespace, labels, by_field = bounds
    token = ""
    while True:
        answer = await store.list(
            resource,
            namespace,
            label_selector=labels,
            field_selector=by_field,
            limit=page,
            continue_token=token,
        )
        for raw in answer.raw_items:
            into.add(raw)
        token = answer.continue_token
        if not token:
            into.version = answer.resource_version
            return


async def read_stream(store: Store, resource: Resource, bounds: Bounds, into: Listing[T]) -> Watch:
    """Fill a listing from a watch that begins with everything there is; the same watch then goes on.

    Raises: `Invalid` or `BadRequest` from a server without streaming lists, `Stalled`, else as `read_pages`.
    """
    namespace, labels, by_field = bounds
    watch = await store.watch(
        resource, namespace, resource_version="", label_selector=labels, field_selector=by_field
    )
    try:
        while not into.version:
            try:
                async with asyncio.timeout(STREAM_SECONDS):
                    events = await _some(watch, resource)
            except TimeoutError as error:
                raise Stalled(f"list {resource.qualified}: the stream brought nothing for long") from error
            for event in events:
                into.fold(event)
    except BaseException:
        watch.close()
        into.objects.clear()
        into.unreadable.clear()
        raise
    return watch


async def _some(watch: Watch, resource: Resource) -> Sequence[WatchEvent]:
    """The next events, waiting for them. Raises `Unavailable` when the stream ends before everything came."""
    while True:
        await watch.wait()
        if events := watch.drain():
            return events
        if watch.ended:
            raise Unavailable(f"list {resource.qualified}: the stream ended before everything came")
        await asyncio.sleep(IDLE_SECONDS)


class Quiet:
    """Garbage collection stands still while many objects are built that all stay: it would walk them again and again.

    Nests; afterwards the collector works as before, and a large harvest is taken out of its sight.
    """

    _holders: ClassVar[int] = 0

    def __init__(self) -> None:
        self.harvest = 0

    def __enter__(self) -> Self:
        """Stop collecting."""
        if Quiet._holders == 0 and gc.isenabled():
            gc.disable()
        Quiet._holders += 1
        return self

    def __exit__(self, *_: object) -> None:
        """Collect again."""
        Quiet._holders -= 1
        if Quiet._holders == 0:
            if self.harvest >= MANY:
                gc.freeze()
            gc.enable()


def close_late(asking: asyncio.Task[Any]) -> None:
    """Nobody waits for this answer any more: if there is a watch in it, it is given up."""
    if asking.cancelled() or asking.exception() is not None:
        return
    answer = asking.result()
    watch = answer[1] if isinstance(answer, tuple) else answer
    if watch is not None:
        watch.close()
