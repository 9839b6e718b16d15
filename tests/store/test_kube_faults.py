"""The API-server store against a server on loopback that misbehaves as networks and servers do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web

from controller.resources.core import POD
from controller.resources.kinds import MODEL_SERVICE
from controller.store.errors import Conflict, Gone, StoreError, TooManyRequests, Unavailable
from controller.store.interface import EventType
from controller.store.kube.budget import Budget
from controller.store.kube.watching import KubeWatch
from runtime.clock import WallClock
from tests.store.loopback import loopback, scene, status


def event(kind: str, name: str, version: int, size: int = 0) -> bytes:
    obj = {
        "metadata": {"name": name, "namespace": "default", "resourceVersion": str(version), "x": "y" * size}
    }
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


async def hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def silent(request: web.Request) -> web.StreamResponse:
    """Take the request and say nothing."""
    await asyncio.sleep(20)
    return web.Response()


def streaming(*chunks: bytes, hold: bool = False, then: str = "") -> Any:
    """A watch of these chunks; then it ends, is held open, or is `cut`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
            await asyncio.sleep(0)
        if hold:
            await asyncio.sleep(20)
        if then == "cut":
            assert request.transport is not None
            request.transport.abort()
        return response

    return answer


async def all_of(watch: KubeWatch) -> tuple[list[str], StoreError | None]:
    """Versions until the end, and the error it ended with."""
    seen: list[str] = []
    while not watch.ended:
        await watch.wait()
        try:
            seen += [each.resource_version for each in watch.drain()]
        except StoreError as error:
            assert watch.ended
            return seen, error
    return seen, None


class TestCalls:
    def test_a_read_whose_connection_breaks_is_sent_again(self) -> None:
        async def play() -> None:
            async def second_time_lucky(request: web.Request) -> web.StreamResponse:
                if len(server.seen) < 4:
                    return await hang_up(request)
                return web.json_response({"metadata": {"name": "a"}})

            async with loopback(second_time_lucky) as server:
                store = server.store()
                assert (await store.get(POD, "a", "default"))["metadata"]["name"] == "a"
                await store.close()

        scene(play)

    @pytest.mark.parametrize("verb", ["create", "replace", "patch", "apply", "delete", "put_scale"])
    def test_a_write_whose_answer_is_lost_is_told_as_unknown(self, verb: str) -> None:
        """Sent once; PUT and DELETE, which may be repeated, once more by the HTTP library."""
        obj = {"metadata": {"name": "a", "namespace": "default"}}
        arguments: dict[str, tuple[Any, ...]] = {
            "patch": ("a", {}, "default"), "delete": ("a", "default"), "put_scale": ("a", "default"),
        }  # fmt: skip
        options: dict[str, Any] = {"field_manager": "t"} if verb != "delete" else {}
        options |= {"replicas": 1} if verb == "put_scale" else {}

        async def play() -> None:
            async with loopback(hang_up) as server:
                store = server.store()
                with pytest.raises(Unavailable, match="gave no answer"):
                    await getattr(store, verb)(MODEL_SERVICE, *arguments.get(verb, (obj,)), **options)
                await store.close()
                assert len(server.seen) == (2 if verb in {"replace", "delete"} else 1)

        scene(play)

    def test_a_list_is_not_sent_again_by_itself(self) -> None:
        """Who lists has a back-off of its own: two of them would multiply."""

        async def play() -> None:
            async with loopback(hang_up) as server:
                store = server.store()
                with pytest.raises(Unavailable):
                    await store.list(POD, limit=500)
                await store.close()
                assert len(server.seen) <= 2

        scene(play)

    def test_each_call_has_a_deadline(self) -> None:
        async def play() -> None:
            async with loopback(silent) as server:
                store = server.store(deadline_seconds=0.1)
                for call in (
                    store.get(POD, "a", "default"),
                    store.delete(POD, "a", "default"),
                    store.watch(POD, resource_version="1"),
                ):
                    with pytest.raises(Unavailable, match="no answer in time"):
                        await call
                await store.close()
                assert len(server.seen) == 3

        scene(play)

    def test_a_server_that_is_not_there_is_unavailable_for_writes_too(self) -> None:
        async def play() -> None:
            async with loopback(hang_up) as server:
                store = server.store()
            with pytest.raises(Unavailable, match="gave no answer"):
                await store.create(POD, {"metadata": {"name": "a", "namespace": "b"}}, field_manager="t")
            assert 1 < store.transport.sent <= 3
            await store.close()

        scene(play)

    def test_retry_after_reaches_the_caller_and_nothing_is_sent_meanwhile(self) -> None:
        async def play() -> None:
            async def busy(_: web.Request) -> web.StreamResponse:
                answer = status(429, "TooManyRequests", "please try again later")
                answer.headers["Retry-After"] = "17"
                return answer

            async with loopback(busy) as server:
                store = server.store()
                with pytest.raises(TooManyRequests) as caught:
                    await store.get(POD, "a", "default")
                assert caught.value.retry_after_seconds == 17.0
                assert len(server.seen) == 1
                await store.close()

        scene(play)

    def test_the_budget_holds_back_calls_but_not_watches(self) -> None:
        async def play() -> None:
            async def answer(request: web.Request) -> web.StreamResponse:
                if "watch" in request.query:
                    made: web.StreamResponse = await streaming()(request)
                    return made
                return web.json_response({"metadata": {"name": "a"}})

            async with loopback(answer) as server:
                clock = WallClock()
                budget = Budget(clock, per_second=0.001, burst=2)
                store = server.store(clock=clock, budget=budget)
                await store.get(POD, "a", "default")
                await store.get(POD, "a", "default")
                with pytest.raises(TooManyRequests, match="has spent"):
                    await store.get(POD, "a", "default")
                (await store.watch(POD, resource_version="1")).close()
                assert len(server.seen) == 3
                await store.close()

        scene(play)

    def test_says_who_it_is_and_asks_for_plain_json(self) -> None:
        async def play() -> None:
            async def answer(_: web.Request) -> web.StreamResponse:
                return web.json_response({"metadata": {"name": "a"}})

            async with loopback(answer) as server:
                store = server.store()
                await store.apply(
                    MODEL_SERVICE,
                    {"metadata": {"name": "a", "namespace": "b"}},
                    field_manager="m",
                    force=True,
                )
                await store.close()
                assert server.headers[0]["User-Agent"] == "plimsoll/test"
                assert server.headers[0]["Content-Type"] == "application/apply-patch+yaml"
                assert server.seen[0][1].endswith(
                    "/namespaces/b/modelservices/a?fieldManager=m&fieldValidation=Strict&force=true"
                )
                assert json.loads(server.bodies[0])["kind"] == "ModelService"

        scene(play)

    def test_status_of_an_object_made_anew_is_not_written(self) -> None:
        """The endpoint of a custom resource's status drops a uid: it is compared before."""

        async def play() -> None:
            async def answer(request: web.Request) -> web.StreamResponse:
                assert request.method == "GET", "nothing may be written"
                return web.json_response({"metadata": {"name": "a", "uid": "new", "resourceVersion": "5"}})

            async with loopback(answer) as server:
                store = server.store()
                with pytest.raises(Conflict, match="UID in precondition: old"):
                    await store.patch(
                        MODEL_SERVICE,
                        "a",
                        {"status": {}},
                        "b",
                        field_manager="m",
                        uid="old",
                        subresource="status",
                    )
                await store.close()

        scene(play)

    def test_a_409_storm_on_a_status_ends_after_a_few_tries(self) -> None:
        async def play() -> None:
            async def answer(request: web.Request) -> web.StreamResponse:
                if request.method == "GET":
                    return web.json_response({"metadata": {"name": "a", "uid": "u", "resourceVersion": "5"}})
                return status(409, "Conflict", "the object has been modified")

            async with loopback(answer) as server:
                store = server.store()
                with pytest.raises(Conflict, match="has been modified"):
                    await store.patch(
                        MODEL_SERVICE,
                        "a",
                        {"status": {}},
                        "b",
                        field_manager="m",
                        uid="u",
                        subresource="status",
                    )
                await store.close()
                assert len(server.seen) == 6

        scene(play)


class TestPages:
    def test_everything_is_fetched_page_by_page(self) -> None:
        async def play() -> None:
            async def answer(request: web.Request) -> web.StreamResponse:
                at = int(request.query.get("continue", "0"))
                more = {"continue": str(at + 1)} if at < 2 else {}
                items = [{"metadata": {"name": f"p{at}"}}]
                return web.json_response({"metadata": {"resourceVersion": "7", **more}, "items": items})

            async with loopback(answer) as server:
                store = server.store()
                found = await store.list(POD, label_selector="a=b")
                assert [each["metadata"]["name"] for each in found.items] == ["p0", "p1", "p2"]
                assert found.resource_version == "7"
                assert all("limit=500" in path and "labelSelector=a%3Db" in path for _, path in server.seen)
                await store.close()

        scene(play)

    def test_a_token_too_old_begins_the_list_again_a_few_times(self) -> None:
        async def play() -> None:
            async def answer(request: web.Request) -> web.StreamResponse:
                if "continue" in request.query:
                    return status(410, "Expired", "The provided continue parameter is too old")
                return web.json_response({"metadata": {"resourceVersion": "7", "continue": "x"}, "items": []})

            async with loopback(answer) as server:
                store = server.store()
                with pytest.raises(Gone, match="continue parameter is too old"):
                    await store.list(POD)
                assert len(server.seen) == 6
                with pytest.raises(Gone):
                    await store.list(POD, limit=1, continue_token="x")
                await store.close()

        scene(play)


class TestWatch:
    @pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
    def test_events_are_whole_however_the_network_cuts_them(self, size: int) -> None:
        body = b"".join(event("ADDED", f"p{n}", n, size=n * 50) for n in range(1, 30))

        async def play() -> None:
            step = max(size, len(body) // 2000)
            chunks = [body[at : at + step] for at in range(0, len(body), step)]
            async with loopback(streaming(*chunks)) as server:
                store = server.store()
                watch = await store.watch(POD, resource_version="0")
                assert await all_of(watch) == ([str(n) for n in range(1, 30)], None)
                await store.close()

        scene(play)

    def test_asks_for_bookmarks_and_an_end_that_differs(self) -> None:
        async def play() -> None:
            async with loopback(streaming()) as server:
                store = server.store()
                for _ in range(2):
                    watch = await store.watch(POD, "shop", resource_version="5", field_selector="a=b")
                    await watch.wait()
                await store.close()
                first, second = (path for _, path in server.seen)
                assert first.startswith(
                    "/api/v1/namespaces/shop/pods?watch=true&allowWatchBookmarks=true&resourceVersion=5"
                )
                assert first != second

        scene(play)

    @pytest.mark.parametrize(("line", "kind"), [
        pytest.param({"code": 410, "reason": "Expired", "message": "too old"}, Gone, id="too old"),
        pytest.param({"code": 410, "reason": "Gone", "message": "too old"}, Gone, id="too old, by the older name"),
        pytest.param({"code": 504, "reason": "Timeout", "message": "Too large"}, Unavailable, id="a lagging server"),
        pytest.param({"code": 500, "reason": "InternalError", "message": "x"}, Unavailable, id="a defect"),
        pytest.param({}, Unavailable, id="without a word"),
    ])  # fmt: skip
    def test_an_error_comes_after_the_events_before_it_and_once(
        self, line: Any, kind: type[StoreError]
    ) -> None:
        error = json.dumps({"type": "ERROR", "object": {"kind": "Status", **line}}).encode() + b"\n"

        async def play() -> None:
            async with loopback(streaming(event("ADDED", "a", 1) + error, hold=True)) as server:
                store = server.store()
                watch = await store.watch(POD, resource_version="0")
                seen, told = await all_of(watch)
                assert seen == ["1"]
                assert type(told) is kind
                assert watch.ended
                assert list(watch.drain()) == []
                await store.close()

        scene(play)

    @pytest.mark.parametrize(("chunks", "then"), [
        pytest.param((event("ADDED", "a", 1), b'{"type":"MODIFIED","obj'), "cut", id="cut inside an event"),
        pytest.param((event("ADDED", "a", 1), b"not json\n"), "", id="what is no event"),
        pytest.param((event("ADDED", "a", 1), b'{"type":"ADDED","object":{}}\n'), "", id="an object without metadata"),
        pytest.param((event("ADDED", "a", 1), b'{"type":"ADDED"}\n'), "", id="an event without an object"),
    ])  # fmt: skip
    def test_a_broken_stream_is_unavailable(self, chunks: tuple[bytes, ...], then: str) -> None:
        async def play() -> None:
            async with loopback(streaming(*chunks, then=then)) as server:
                store = server.store()
                seen, told = await all_of(await store.watch(POD, resource_version="0"))
                assert seen == ["1"]
                assert type(told) is Unavailable
                await store.close()

        scene(play)

    def test_a_silent_stream_is_given_up(self) -> None:
        async def play() -> None:
            async with loopback(streaming(event("ADDED", "a", 1), hold=True)) as server:
                store = server.store(silence_seconds=0.2)
                seen, told = await all_of(await store.watch(POD, resource_version="0"))
                assert seen == ["1"]
                assert type(told) is Unavailable
                await store.close()

        scene(play)

    def test_a_type_nobody_knows_is_left_out(self) -> None:
        async def play() -> None:
            body = event("RENAMED", "a", 1) + event("BOOKMARK", "", 2) + event("DELETED", "a", 3)
            async with loopback(streaming(body)) as server:
                store = server.store()
                watch = await store.watch(POD, resource_version="0")
                await watch.wait()
                assert [each.type for each in watch.drain()] == [EventType.BOOKMARK, EventType.DELETED]
                await store.close()

        scene(play)

    def test_a_reader_too_slow_loses_the_stream_and_can_resume(self) -> None:
        body = b"".join(event("ADDED", f"p{n}", n) for n in range(1, 100))

        async def play() -> None:
            async with loopback(streaming(body, hold=True)) as server:
                store = server.store()
                response = await store.transport.stream("/api/v1/pods", {"watch": True}, "watch pods")
                watch = KubeWatch(response, server.url, "watch pods", most_events=10)
                await asyncio.gather(watch._reading)
                assert [each.resource_version for each in watch.drain()] == [str(n) for n in range(1, 11)]
                assert watch.ended
                await watch.closed()
                await store.close()

        scene(play)

    @pytest.mark.parametrize("at", ["before it reads", "while it reads", "twice"])
    def test_closing_leaves_nothing_behind(self, at: str) -> None:
        async def play() -> None:
            async with loopback(streaming(event("ADDED", "a", 1), hold=True)) as server:
                store = server.store()
                watch = await store.watch(POD, resource_version="0")
                if at != "before it reads":
                    await watch.wait()
                watch.close()
                if at == "twice":
                    watch.close()
                assert watch.ended
                assert list(watch.drain()) == []
                await watch.closed()
                await store.close()
                await store.close()
                with pytest.raises(Unavailable, match="was closed"):
                    await store.get(POD, "a", "default")

        scene(play)

    def test_closing_the_store_ends_its_watches(self) -> None:
        async def play() -> None:
            async with loopback(streaming(hold=True)) as server:
                store = server.store()
                watches = [await store.watch(POD, resource_version="0") for _ in range(5)]
                await store.close()
                assert all(watch.ended for watch in watches)

        scene(play)
