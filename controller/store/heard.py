"""A store whose writes return when every stream opened through it has heard of them.

In accelerated time everybody looks once a second, one after another. On the embedded store whoever looks sees all that
was written before; an API server tells its watches a few milliseconds later, and a second of ours may take less than
that. Behind this store both are alike: nothing that we wrote ourselves is news to anybody. What the server's own
controllers write is another matter (`simulator.fleet.settling`).

Quiet streams get their bookmarks by the clock of whoever reads them: a server's come each minute of its own time, in
which many minutes of ours pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any, TypeVar

import msgspec

from controller.store.embedded.selectors import Match, label_matcher
from controller.store.errors import NotFound, StoreError
from controller.store.interface import EventType, JsonObject, Resource, Store, Watch, WatchEvent
from controller.store.interposed import InterposedStore, Request
from runtime.clock import Clock, WallClock

T = TypeVar("T")
logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
"""Wall seconds for which a stream may lag behind a write before it is no longer waited for."""
POLL_SECONDS = 0.0005
BOOKMARK_SECONDS = 60.0
"""So often, by the reader's clock, a stream says where it is: the API server's own interval."""
DELETED_KEPT = 10_000
ALL_IS_THERE = b"k8s.io/initial-events-end"
"""Annotation of the bookmark that ends what a streaming list begins with."""
RECENT = 64
"""So many of a stream's last events are looked through for what a more selective stream shows."""


class _Meta(msgspec.Struct, frozen=True):
    name: str = ""
    namespace: str = ""


class _Named(msgspec.Struct, frozen=True):
    metadata: _Meta


_NAMED = msgspec.json.Decoder(_Named)


class HeardStore(InterposedStore):
    """Passes everything on to `inner`. `clock` is the readers', `wall` measures how long a stream may lag.

    `lagged` counts waits that some stream did not end in time.
    """

    def __init__(self, inner: Store, clock: Clock, *, wall: Clock | None = None) -> None:
        super().__init__(inner)
        self.writes = 0
        self.lagged = 0
        self._clock = clock
        self._wall = wall or WallClock()
        self._streams: list[HeardWatch] = []

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Watch:
        """See `Store.watch`. It returns when the stream has caught up with the others of its kind."""
        inner = await self.inner.watch(
            resource,
            namespace,
            resource_version=resource_version,
            label_selector=label_selector,
            field_selector=field_selector,
        )
        stream = HeardWatch(
            inner, self._clock, resource, namespace, resource_version, label_matcher(label_selector)
        )
        if not field_selector:  # what such a stream shows cannot be told from outside
            self._streams = [each for each in self._streams if not each.over]
            others = [each for each in self._streams if each.kind == stream.kind]
            self._streams.append(stream)
            await self._wait(partial(_begun, stream), "all that is there")
            await self._wait(partial(_abreast, stream, others), "what other streams have")
        return stream

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        """Carry out one request; a write returns when it is heard of."""
        if not request.mutating:
            return await answer()
        streams = [s for s in self._streams if s.shows(request.resource, request.namespace)]
        if request.verb == "delete" and any(stream.match for stream in streams):
            streams = await self._showing(streams, request)
        before = [stream.pull() for stream in streams]
        result = await answer()
        self.writes += 1
        if streams:
            await self._until_heard(request, streams, before, result)
        return result

    async def level(self) -> None:
        """Return when no stream is behind another one of its kind: what one reader has heard, all have."""
        for _, group in groupby(sorted(self._streams, key=_kind), key=_kind):
            streams = [stream for stream in group if not stream.over]
            for stream in streams:
                stream.pull()
            for stream in streams:
                await self._wait(partial(_abreast, stream, streams), "what another stream has")

    async def _showing(self, streams: Sequence[HeardWatch], request: Request) -> list[HeardWatch]:
        """Those that show an object which is about to be deleted."""
        try:
            found = await self.inner.get(request.resource, request.name, request.namespace)
        except NotFound:
            return [stream for stream in streams if stream.match is None]
        return [stream for stream in streams if stream.match is None or stream.match(found)]

    async def _until_heard(
        self, request: Request, streams: Sequence[HeardWatch], before: Sequence[int], result: Any
    ) -> None:
        version = _version_of(result)
        if version is None:
            version = await self._left_at(request)
        key = f"{request.namespace}/{request.name}" if request.namespace else request.name
        for stream, position in zip(streams, before, strict=True):
            if stream.match is None or not isinstance(result, dict) or stream.match(result):
                await self._wait(partial(stream.heard, version, key, position), str(request))

    async def _wait(self, holds: Callable[[], bool], what: str) -> None:
        if holds():
            return
        deadline = self._wall.monotonic() + PATIENCE_SECONDS
        while not holds():
            if self._wall.monotonic() > deadline:
                self.lagged += 1
                logger.warning("a stream has not heard of %s in %.0f s", what, PATIENCE_SECONDS)
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _left_at(self, request: Request) -> int | None:
        """The version at which a deletion left an object; None when it is gone."""
        try:
            return _version_of(await self.inner.get(request.resource, request.name, request.namespace))
        except NotFound:
            return None


def _kind(stream: HeardWatch) -> str:
    return stream.kind


def _begun(stream: HeardWatch) -> bool:
    stream.pull()
    return stream.over or stream.begun


def _abreast(stream: HeardWatch, others: Sequence[HeardWatch]) -> bool:
    """Whether a stream has heard of all it shows that any other has heard of."""
    heard = stream.pull()
    return stream.over or all(heard >= other.newest(stream) for other in others)


def _version_of(result: object) -> int | None:
    """The version of an object that was answered, None for an answer that is none."""
    if isinstance(result, dict):
        meta: JsonObject = result.get("metadata") or {}
        return int(meta["resourceVersion"]) if meta.get("resourceVersion") else None
    version = getattr(result, "resource_version", "")
    return int(version) if version else None


class HeardWatch:
    """The inner stream, with what arrived taken off it before its reader asks, so that its position is known.

    `match` says what of its kind it shows; None: everything.
    """

    def __init__(
        self,
        inner: Watch,
        clock: Clock,
        resource: Resource,
        namespace: str,
        resource_version: str,
        match: Match | None = None,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._resource = resource
        self._namespace = namespace
        self.match = match
        self._position = int(resource_version) if resource_version.isdigit() else 0
        self.begun = resource_version != ""
        """Whether everything that was there when it was opened has come (a streaming list sends that first)."""
        self._queue: deque[WatchEvent] = deque()
        self._error: StoreError | None = None
        self._deleted: dict[str, int] = {}
        self._recent: deque[WatchEvent] = deque(maxlen=RECENT)
        self._told = clock.monotonic()
        self._closed = False

    @property
    def kind(self) -> str:
        """Of what it tells: kind and namespace."""
        return f"{self._resource.qualified}/{self._namespace}"

    @property
    def over(self) -> bool:
        """Whether nothing more will arrive."""
        return self._closed or self._error is not None or self._inner.ended

    @property
    def ended(self) -> bool:
        """True once the stream is over and drained."""
        return self._inner.ended and not self._queue and self._error is None

    def shows(self, resource: Resource, namespace: str) -> bool:
        """Whether it would hear of a write to an object of that kind and namespace."""
        return (
            not self.over
            and resource.qualified == self._resource.qualified
            and self._namespace in {"", namespace}
        )

    def pull(self) -> int:
        """Take what has arrived; the version up to which everything has."""
        while self._error is None:
            try:
                events = self._inner.drain()
            except StoreError as error:
                self._error = error
                break
            if not events:
                break
            for event in events:
                self._note(event)
        return self._position

    def heard(self, version: int | None, key: str, since: int) -> bool:
        """Whether it has heard of a write: by its version, or (None) of the object's end after version `since`.

        A stream that is over need not: its reader begins again from what it has seen.
        """
        self.pull()
        if self.over:
            return True
        if version is not None:
            return self._position >= version
        return self._deleted.get(key, -1) > since

    def newest(self, other: HeardWatch) -> int:
        """The version of the last change it has heard of that another stream of its kind shows."""
        match = other.match
        shown = (e for e in reversed(self._recent) if match is None or match(e.object))
        return next((int(event.resource_version) for event in shown), 0)

    def drain(self) -> Sequence[WatchEvent]:
        """See `Watch.drain`."""
        self.pull()
        if not self._queue and self._error is not None:
            error, self._error = self._error, None
            self._closed = True
            raise error
        events = list(self._queue)
        self._queue.clear()
        return events + self._bookmark()

    async def wait(self) -> None:
        """See `Watch.wait`."""
        if not self._queue and self._error is None:
            await self._inner.wait()

    def close(self) -> None:
        """See `Watch.close`."""
        self._closed = True
        self._queue.clear()
        self._error = None
        self._inner.close()

    def _note(self, event: WatchEvent) -> None:
        version = int(event.resource_version)
        if event.type is EventType.DELETED:
            meta = _NAMED.decode(event.raw).metadata
            self._deleted[f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name] = version
            while len(self._deleted) > DELETED_KEPT:
                del self._deleted[next(iter(self._deleted))]
        self._position = max(self._position, version)
        if event.type is not EventType.BOOKMARK:
            self._queue.append(event)
            self._recent.append(event)
        elif not self.begun and ALL_IS_THERE in event.raw:
            self.begun = True
            self._queue.append(event)
        # Other bookmarks come by the server's clock; the reader gets ours.

    def _bookmark(self) -> list[WatchEvent]:
        if self.over or self._clock.monotonic() - self._told < BOOKMARK_SECONDS:
            return []
        self._told = self._clock.monotonic()
        meta = {"resourceVersion": str(self._position)}
        body = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": meta}
        return [WatchEvent(EventType.BOOKMARK, str(self._position), msgspec.json.encode(body))]
