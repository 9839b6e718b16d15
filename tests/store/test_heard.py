"""Writes that return when every stream has heard of them, over streams that are late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import pytest

from controller.resources.core import NODE, POD
from controller.store import heard
from controller.store.embedded import open_store
from controller.store.errors import Gone, Unavailable
from controller.store.heard import HeardStore
from controller.store.interface import EventType, JsonObject, Store, Watch, WatchEvent
from controller.store.interposed import InterposedStore, Request
from runtime.clock import VirtualClock

LATE_LOOKS = 5
"""So often a stream says nothing before it says what has happened."""


class LateWatch:
    """A stream on which everything comes some looks late, or never."""

    def __init__(self, inner: Watch, looks: float) -> None:
        self.inner = inner
        self._looks = looks
        self._held: list[tuple[float, WatchEvent]] = []
        self.error: Exception | None = None

    @property
    def ended(self) -> bool:
        return self.inner.ended and not self._held

    def drain(self) -> Sequence[WatchEvent]:
        if self.error is not None:
            error, self.error = self.error, None
            self.inner.close()
            raise error
        self._held = [(left - 1, event) for left, event in self._held]
        self._held += [(self._looks, event) for event in self.inner.drain()]
        due = [event for left, event in self._held if left <= 0]
        self._held = [(left, event) for left, event in self._held if left > 0]
        return due

    async def wait(self) -> None:
        await self.inner.wait()

    def close(self) -> None:
        self.inner.close()


class LateStore(InterposedStore):
    def __init__(self, inner: Store, looks: float = LATE_LOOKS) -> None:
        super().__init__(inner)
        self.looks = looks
        self.streams: list[LateWatch] = []

    def watching(self, request: Request, watch: Watch) -> Watch:
        self.streams.append(LateWatch(watch, self.looks))
        return self.streams[-1]


def pod(name: str, **spec: object) -> JsonObject:
    made = {"containers": [{"name": "main", "image": "busybox:1"}], **spec}
    meta = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": made}


class Bench:
    """A late store, and what is read from one stream of pods."""

    def __init__(self, *, heard_of: bool = True, looks: float = LATE_LOOKS) -> None:
        self.clock = VirtualClock(1_700_000_000.0)
        self.late = LateStore(open_store(self.clock), looks)
        self.store: Store = HeardStore(self.late, self.clock) if heard_of else self.late

    async def begin(self) -> None:
        await self.store.create(POD, pod("idle"), field_manager="test")
        await self.store.create(POD, pod("bound", nodeName="n"), field_manager="test")
        listed = await self.store.list(POD)
        self.watch = await self.store.watch(POD, resource_version=listed.resource_version)

    def news(self) -> list[tuple[str, str]]:
        return [(e.type.value, e.object["metadata"]["name"]) for e in self.watch.drain()]


async def _create(store: Store) -> None:
    await store.create(POD, pod("new"), field_manager="test")


async def _patch(store: Store) -> None:
    patch = {"metadata": {"labels": {"a": "b"}}}
    await store.patch(POD, "idle", patch, "default", field_manager="test")


async def _status(store: Store) -> None:
    patch = {"status": {"reason": "x"}}
    await store.patch(POD, "idle", patch, "default", field_manager="test", subresource="status")


async def _replace(store: Store) -> None:
    found = await store.get(POD, "idle", "default")
    found["metadata"]["annotations"] = {"a": "b"}
    await store.replace(POD, found, field_manager="test")


async def _apply(store: Store) -> None:
    await store.apply(POD, pod("applied"), field_manager="test")


async def _delete(store: Store) -> None:
    await store.delete(POD, "idle", "default")


async def _delete_later(store: Store) -> None:
    await store.delete(POD, "bound", "default", grace_seconds=30)


WRITES = [
    pytest.param(_create, ("ADDED", "new"), id="created"),
    pytest.param(_patch, ("MODIFIED", "idle"), id="patched"),
    pytest.param(_status, ("MODIFIED", "idle"), id="status patched"),
    pytest.param(_replace, ("MODIFIED", "idle"), id="replaced"),
    pytest.param(_apply, ("ADDED", "applied"), id="applied"),
    pytest.param(_delete, ("DELETED", "idle"), id="deleted at once"),
    pytest.param(_delete_later, ("MODIFIED", "bound"), id="deleted with grace"),
]
Write = Callable[[Store], Awaitable[None]]


@pytest.mark.parametrize(("write", "told"), WRITES)
def test_a_write_returns_when_a_late_stream_has_heard_of_it(write: Write, told: tuple[str, str]) -> None:
    async def story() -> None:
        for heard_of, expected in ((True, [told]), (False, [])):
            bench = Bench(heard_of=heard_of)
            await bench.begin()
            await write(bench.store)
            assert bench.news() == expected

    asyncio.run(story())


async def _nothing_new(store: Store) -> None:
    await store.patch(POD, "idle", {"metadata": {"name": "idle"}}, "default", field_manager="test")


async def _another_kind(store: Store) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
    await store.create(NODE, node, field_manager="test")


@pytest.mark.parametrize("write", [_nothing_new, _another_kind])
def test_a_write_that_is_no_news_is_not_waited_for(write: Write) -> None:
    async def story() -> None:
        bench = Bench(looks=float("inf"))
        await bench.begin()
        async with asyncio.timeout(5.0):
            await write(bench.store)
        assert bench.news() == []

    asyncio.run(story())


def test_a_stream_that_never_hears_is_waited_for_so_long_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        monkeypatch.setattr(heard, "PATIENCE_SECONDS", 0.05)
        bench = Bench(looks=float("inf"))
        await bench.begin()
        await _create(bench.store)
        assert isinstance(bench.store, HeardStore)
        assert bench.store.lagged == 1

    asyncio.run(story())


@pytest.mark.parametrize("error", [Gone("too old"), Unavailable("reset")])
def test_a_broken_stream_tells_its_reader_and_holds_nobody_up(error: Exception) -> None:
    async def story() -> None:
        bench = Bench(looks=float("inf"))
        await bench.begin()
        bench.late.streams[0].error = error
        async with asyncio.timeout(5.0):
            await _create(bench.store)
        with pytest.raises(type(error)):
            bench.watch.drain()
        assert bench.watch.ended

    asyncio.run(story())


def test_a_quiet_stream_says_where_it_is_by_its_readers_clock() -> None:
    async def story() -> None:
        bench = Bench(looks=0.0)
        await bench.begin()
        await _create(bench.store)
        [event] = bench.watch.drain()
        bench.clock.advance_to(bench.clock.now() + 30.0)
        assert not bench.watch.drain()
        bench.clock.advance_to(bench.clock.now() + 31.0)
        [mark] = bench.watch.drain()
        assert (mark.type, mark.resource_version) == (EventType.BOOKMARK, event.resource_version)
        assert mark.object["metadata"] == {"resourceVersion": event.resource_version}
        assert not bench.watch.drain()

    asyncio.run(story())


class Streaming:
    """A streaming list: one object, and only some looks later the bookmark that ends the beginning."""

    ended = False

    def __init__(self) -> None:
        self._looks = 0

    def drain(self) -> Sequence[WatchEvent]:
        self._looks += 1
        meta = {"name": "idle", "namespace": "default", "resourceVersion": "7"}
        end = {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}
        due = {1: (EventType.ADDED, meta), LATE_LOOKS: (EventType.BOOKMARK, end)}.get(self._looks)
        if due is None:
            return []
        return [WatchEvent(due[0], due[1]["resourceVersion"], msgspec.json.encode({"metadata": due[1]}))]

    async def wait(self) -> None:
        """Nobody waits here."""

    def close(self) -> None:
        """Nothing to give up."""


def test_a_stream_that_begins_with_everything_is_opened_when_all_is_there() -> None:
    class Begins(LateStore):
        async def watch(self, *_: object, **__: object) -> Watch:
            return Streaming()

    async def story() -> None:
        clock = VirtualClock(0.0)
        store = HeardStore(Begins(open_store(clock)), clock)
        watch = await store.watch(POD, resource_version="")
        assert [event.type for event in watch.drain()] == [EventType.ADDED, EventType.BOOKMARK]

    asyncio.run(story())
