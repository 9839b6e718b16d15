"""A cache over a server on loopback: streaming lists and pages, refusals, slow answers, and counted requests."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from controller.resources.core import POD, Pod
from controller.store import cache as caching
from controller.store import listing
from controller.store.cache import Reflector
from controller.store.kube import KubeStore
from controller.store.listing import MANY, Quiet
from runtime.clock import WallClock
from tests.store.loopback import Loopback, loopback, scene, status


def obj(name: str, version: int, **more: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default", "uid": f"u-{name}", "resourceVersion": str(version), **more}
    return {"kind": "Pod", "apiVersion": "v1", "metadata": meta}


def line(kind: str, body: Any) -> bytes:
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def all_there(version: int) -> bytes:
    marks = {"k8s.io/initial-events-end": "true"}
    return line("BOOKMARK", {"metadata": {"resourceVersion": str(version), "annotations": marks}})


def bookmark(version: int) -> bytes:
    return line("BOOKMARK", {"metadata": {"resourceVersion": str(version)}})


class Server:
    """Lists `pages` and streams `first` (a streaming list) and `later` (a watch from a version)."""

    def __init__(self, *, first: list[bytes] | None = None, later: list[bytes] | None = None) -> None:
        self.first = first
        self.later = later or []
        self.pages: list[list[Any]] = [[obj("a", 1)], [obj("b", 2)]]
        self.ends = False

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            at = int(request.query.get("continue", "0"))
            more = {"continue": str(at + 1)} if at + 1 < len(self.pages) else {}
            return web.json_response({"metadata": {"resourceVersion": "9", **more}, "items": self.pages[at]})
        initial = "sendInitialEvents" in request.query
        if initial and self.first is None:
            return status(
                422,
                "Invalid",
                "sendInitialEvents is forbidden for watch unless the WatchList feature gate is on",
            )
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in (self.first or []) if initial else self.later:
            await response.write(chunk)
        if not self.ends:
            await asyncio.sleep(20)
        return response


def followed(store: KubeStore) -> Reflector[Pod]:
    return Reflector(store, POD, Pod, WallClock())


async def until(cache: Reflector[Pod], holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await cache.pump()
            await asyncio.sleep(0.01)


def lists(server: Loopback) -> list[str]:
    return [path for _, path in server.seen if "watch=" not in path]


def playing(server: Server, play: Callable[[Loopback, Reflector[Pod]], Any], **options: Any) -> None:
    async def act() -> None:
        async with loopback(server.answer) as far:
            store = far.store(**options)
            cache = followed(store)
            try:
                await play(far, cache)
            finally:
                cache.close()
                await store.close()

    scene(act)


class TestStreams:
    def test_everything_comes_as_a_stream_which_then_goes_on(self) -> None:
        first = [line("ADDED", obj("a", 1)) + line("ADDED", obj("b", 2)), bookmark(2), all_there(5)]

        async def play(far: Loopback, cache: Reflector[Pod]) -> None:
            await until(cache, lambda: cache.has_synced)
            assert sorted(cache.objects) == ["default/a", "default/b"]
            assert cache.position == "5"
            assert len(far.seen) == 1
            assert "resourceVersionMatch=NotOlderThan" in far.seen[0][1]

        playing(Server(first=first), play)

    def test_what_changes_while_it_comes_counts(self) -> None:
        first = [
            line("ADDED", obj("a", 1)) + line("ADDED", obj("b", 2)) + line("MODIFIED", obj("a", 6)),
            line("DELETED", obj("b", 7)) + all_there(7) + line("ADDED", obj("c", 8)),
        ]

        async def play(_: Loopback, cache: Reflector[Pod]) -> None:
            await until(cache, lambda: "default/c" in cache.objects)
            assert {key: p.metadata.resource_version for key, p in cache.objects.items()} == {
                "default/a": "6",
                "default/c": "8",
            }
            assert cache.position == "8"

        playing(Server(first=first), play)

    def test_a_server_without_them_is_asked_once_and_lists_in_pages(self) -> None:
        async def play(far: Loopback, cache: Reflector[Pod]) -> None:
            await until(cache, lambda: cache._watch is not None)
            assert sorted(cache.objects) == ["default/a", "default/b"]
            assert len(lists(far)) == 2
            cache._listed = False
            cache.close()
            await until(cache, lambda: cache.lists == 2 and cache._watch is not None)
            assert sum("sendInitialEvents" in path for _, path in far.seen) == 1

        playing(Server(), play)

    def test_a_server_that_never_says_that_all_is_there_is_asked_for_pages(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As one does that does not know the parameter."""
        monkeypatch.setattr(listing, "STREAM_SECONDS", 0.2)

        async def play(far: Loopback, cache: Reflector[Pod]) -> None:
            await until(cache, lambda: cache.has_synced)
            assert sorted(cache.objects) == ["default/a", "default/b"]
            assert len(lists(far)) == 2

        playing(Server(first=[line("ADDED", obj("old", 1))]), play)

    def test_one_that_ends_half_way_leaves_the_cache_as_it_was_and_is_begun_again(self) -> None:
        server = Server(first=[line("ADDED", obj("a", 1))])
        server.ends = True

        async def play(_: Loopback, cache: Reflector[Pod]) -> None:
            await until(cache, lambda: cache.faults == 1)
            assert cache.objects == {}
            assert not cache.has_synced
            server.first = [line("ADDED", obj("a", 1)), all_there(3)]
            server.ends = False
            await until(cache, lambda: cache.has_synced)
            assert sorted(cache.objects) == ["default/a"]

        playing(server, play)

    def test_an_object_that_cannot_be_read_hides_no_other(self) -> None:
        odd = obj("odd", 2) | {"spec": {"nodeName": 7}}
        server = Server(first=[line("ADDED", odd), line("ADDED", obj("a", 1)), all_there(3)])

        async def play(_: Loopback, cache: Reflector[Pod]) -> None:
            await until(cache, lambda: cache.has_synced)
            assert sorted(cache.objects) == ["default/a"]
            assert "nodeName" in cache.undecodable["default/odd"]

        playing(server, play)


class TestBounds:
    @pytest.mark.parametrize(
        "fault", ["410 from lists", "500 from lists", "410 from watches", "empty watches"]
    )
    def test_a_broken_server_is_asked_for_one_list_a_second_at_most(self, fault: str) -> None:
        server = Server(later=[line("ERROR", {"code": 410, "reason": "Expired", "message": "too old"})])
        server.ends = True
        if fault == "empty watches":
            server.later = []

        async def answer(request: web.Request) -> web.StreamResponse:
            if "watch" not in request.query and fault.endswith("from lists"):
                return status(int(fault[:3]), "Expired" if fault[0] == "4" else "InternalError", fault)
            return await server.answer(request)

        async def play() -> None:
            async with loopback(answer) as far:
                store = far.store()
                cache = followed(store)
                cache._streams = False
                clock = WallClock()
                began = clock.monotonic()
                while clock.monotonic() - began < 2.5:
                    await cache.pump()
                    await asyncio.sleep(0.005)
                cache.close()
                await store.close()
                begun = [path for path in lists(far) if "continue" not in path]
                assert 1 <= len(begun) <= 3
                assert len(far.seen) <= 12

        scene(play)

    def test_retry_after_of_a_503_is_honoured(self) -> None:
        async def answer(_: web.Request) -> web.StreamResponse:
            made = status(503, "ServiceUnavailable", "apiserver is shutting down")
            made.headers["Retry-After"] = "60"
            return made

        async def play() -> None:
            async with loopback(answer) as far:
                store = far.store()
                cache = followed(store)
                for _ in range(200):
                    await cache.pump()
                    await asyncio.sleep(0.005)
                assert cache._backoff.wait_seconds > 50
                assert len(far.seen) == 1
                await store.close()

        scene(play)

    def test_a_server_that_takes_long_holds_nobody_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(caching, "PATIENCE_SECONDS", 0.01)
        gate = asyncio.Event()
        server = Server(first=[line("ADDED", obj("a", 1)), all_there(3)])

        async def answer(request: web.Request) -> web.StreamResponse:
            await gate.wait()
            return await server.answer(request)

        async def play() -> None:
            async with loopback(answer) as far:
                store = far.store()
                cache = followed(store)
                for _ in range(20):
                    assert await cache.pump() == []
                assert len(far.seen) == 1
                gate.set()
                await until(cache, lambda: cache.has_synced)
                assert len(far.seen) == 1
                cache.close()
                await store.close()

        scene(play)

    def test_closing_while_it_is_asked_leaves_nothing_behind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(caching, "PATIENCE_SECONDS", 0.01)

        async def play() -> None:
            async def never(_: web.Request) -> web.StreamResponse:
                await asyncio.sleep(20)
                return web.Response()

            async with loopback(never) as far:
                store = far.store()
                cache = followed(store)
                assert await cache.pump() == []
                asking = cache._asking
                assert asking is not None
                cache.close()
                await asyncio.wait({asking})
                assert asking.cancelled()
                await store.close()

        scene(play)


class TestQuiet:
    def test_nests_and_gives_the_collector_back(self) -> None:
        assert gc.isenabled()
        with Quiet(), Quiet():
            assert not gc.isenabled()
        assert gc.isenabled()

    def test_a_fault_gives_it_back_too(self) -> None:
        with pytest.raises(RuntimeError), Quiet():
            raise RuntimeError
        assert gc.isenabled()

    @pytest.mark.parametrize(("harvest", "frozen"), [(MANY, True), (MANY - 1, False)])
    def test_only_a_large_harvest_is_taken_out_of_its_sight(self, harvest: int, frozen: bool) -> None:
        before = gc.get_freeze_count()
        with Quiet() as quiet:
            quiet.harvest = harvest
        grown = gc.get_freeze_count() > before
        gc.unfreeze()
        assert grown == frozen
