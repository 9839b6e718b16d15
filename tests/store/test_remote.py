"""The store's door: who may use it for what, what is too large, what happens when the way breaks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from controller.hub.server import HubServer
from controller.hub.service import Hub
from controller.resources.core import EVENT, LEASE, NODE, POD, Pod
from controller.resources.kinds import MODEL_SERVICE
from controller.store.cache import Reflector
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.embedded.lives import begin_life
from controller.store.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    StoreError,
    TooLarge,
    TooManyRequests,
    Unavailable,
)
from controller.store.remote import RemoteStore, StoreServicer, watching
from controller.store.remote.messages import error_of, fault_of, refusal
from runtime.authority import Authority, Identity, Role
from runtime.channels import dial
from runtime.clock import WallClock
from tests.hub.support import until
from tests.store.objects import node, pod, service
from tests.store.remote import ALL_KINDS, HUB
from wire import store_pb2 as pb
from wire import store_pb2_grpc

CLOCK = WallClock()
QUICK = WallClock(monotonic=lambda: time.monotonic() * 30)


@dataclass
class Served:
    """A store behind a door, which can be shut and opened again at the same port."""

    authority: Authority
    store: EmbeddedStore
    options: dict[str, Any]
    port: int = 0
    servicer: StoreServicer | None = None
    door: HubServer | None = None

    async def open(self) -> None:
        held = self.authority.issue(HUB)
        self.servicer = StoreServicer(self.store, ALL_KINDS, **({"plane": self.store} | self.options))
        hub = Hub(CLOCK, epoch=1)
        self.door = HubServer(hub, lambda: held, port=self.port, hosted=[self.servicer.hosted()])
        await self.door.start()
        self.port = self.door.port

    async def shut(self) -> None:
        if self.door is not None:
            await self.door.stop()
            self.door = None

    async def reach(self, role: Role = Role.ADMIN, **options: Any) -> RemoteStore:
        credentials = self.authority.issue(Identity(role, "tester"))
        return await RemoteStore.connect(f"127.0.0.1:{self.port}", credentials, **options)


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Served]:
    made = Served(Authority.create(CLOCK), open_store(CLOCK), {"pause_seconds": 0.02} | options)
    await made.open()
    try:
        yield made
    finally:
        await made.shut()


def scene(play: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await play()

    asyncio.run(limited())


@pytest.mark.parametrize("role", [Role.NODE, Role.GATEWAY, Role.CLIENT, Role.OPERATOR])
def test_who_is_no_hand_and_no_fleet_is_refused_at_the_door(role: Role) -> None:
    async def play() -> None:
        async with served() as made:
            with pytest.raises(Forbidden, match=rf"not open to the role {role}"):
                await made.reach(role)

    scene(play)


def test_a_fleet_has_the_kinds_of_kubernetes_and_not_the_users_wishes() -> None:
    async def play() -> None:
        async with served() as made:
            admin, fleet = await made.reach(), await made.reach(Role.FLEET)
            await admin.create(MODEL_SERVICE, service(), field_manager="a")
            await fleet.create(NODE, node("n1"), field_manager="kubelet")
            await fleet.create(POD, pod("p"), field_manager="f")
            bound = (await fleet.get(POD, "p", "default"))["metadata"]["uid"]
            await fleet.bind("p", "default", uid=bound, node="n1")
            assert (await admin.get(POD, "p", "default"))["spec"]["nodeName"] == "n1"
            assert await fleet.collect_garbage() == 0
            attempts: list[Callable[[], Awaitable[Any]]] = [
                lambda: fleet.get(MODEL_SERVICE, "chat", "default"),
                lambda: fleet.list(MODEL_SERVICE),
                lambda: fleet.watch(MODEL_SERVICE, resource_version=""),
                lambda: fleet.delete(MODEL_SERVICE, "chat", "default"),
                lambda: fleet.apply(MODEL_SERVICE, service(), field_manager="f", subresource="status"),
                lambda: fleet.put_scale(MODEL_SERVICE, "chat", "default", replicas=9, field_manager="f"),
            ]
            for attempt in attempts:
                with pytest.raises(Forbidden, match=r"modelservices.plimsoll.dev is forbidden: .*/fleet/"):
                    await attempt()
            assert made.servicer is not None
            assert made.servicer.refused == len(attempts)
            for each in (admin, fleet):
                await each.close()

    scene(play)


def test_where_the_cluster_has_its_own_controllers_nobody_plays_them() -> None:
    async def play() -> None:
        async with served(plane=None) as made:
            fleet = await made.reach(Role.FLEET)
            with pytest.raises(Forbidden, match="the cluster has its own"):
                await fleet.bind("p", "default", uid="", node="n")
            with pytest.raises(Forbidden, match="the cluster has its own"):
                await fleet.collect_garbage()
            await fleet.close()

    scene(play)


def test_the_far_store_says_what_the_near_one_does() -> None:
    async def play() -> None:
        async with served() as made:
            far = await made.reach()
            assert far.capabilities == made.store.capabilities
            assert ("plimsoll.dev", "v1alpha1", "ModelService") in far.kinds
            await far.close()

    scene(play)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(kind("a sentence"), id=kind.reason)
        for kind in (
            AlreadyExists,
            BadRequest,
            Conflict,
            Forbidden,
            Gone,
            Invalid,
            NotFound,
            TooLarge,
            Unavailable,
        )
    ]
    + [pytest.param(TooManyRequests("a sentence", 7.5), id="TooManyRequests")],
)
def test_every_answer_keeps_its_type_and_words(error: StoreError) -> None:
    told = error_of(pb.StoreFault.FromString(fault_of(error).SerializeToString()))
    assert type(told) is type(error)
    assert told.message == error.message
    assert getattr(told, "retry_after_seconds", 0) == getattr(error, "retry_after_seconds", 0)


@pytest.mark.parametrize(
    ("code", "why", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "connection refused", Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", Unavailable),
        (grpc.StatusCode.PERMISSION_DENIED, "not open to the role node", Forbidden),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Sent message larger than max (5 vs. 4)", TooLarge),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams", TooManyRequests),
    ],
)
def test_no_answer_has_a_type_too(code: grpc.StatusCode, why: str, kind: type[StoreError]) -> None:
    error = refusal(code, why, "127.0.0.1:1", "get pods")
    assert type(error) is kind
    assert "get pods" in error.message
    assert why in error.message


class TestSizes:
    def test_a_request_larger_than_a_message_is_too_large_and_the_connection_lives(self) -> None:
        async def play() -> None:
            async with served() as made:
                far = await made.reach()
                with pytest.raises(TooLarge, match="larger than max"):
                    await far.create(POD, pod(annotations={"a": "x" * 5_000_000}), field_manager="t")
                big = pod() | {
                    "spec": {"containers": [{"name": "a", "image": "b", "args": ["x" * 2_000_000]}]}
                }
                with pytest.raises(TooLarge, match="etcdserver: request is too large"):
                    await far.create(POD, big, field_manager="t")
                await far.create(POD, pod(), field_manager="t")
                await far.close()

        scene(play)

    def test_a_list_larger_than_a_message_comes_in_pages_of_one_version(self) -> None:
        async def play() -> None:
            async with served() as made:
                far = await made.reach()
                filling = {"spec": {"containers": [{"name": "a", "image": "b", "args": ["x" * 700_000]}]}}
                for index in range(12):
                    await made.store.create(POD, pod(f"p{index:02d}") | filling, field_manager="t")
                listed = await far.list(POD)
                assert [item["metadata"]["name"] for item in listed.items] == [f"p{i:02d}" for i in range(12)]
                assert (listed.continue_token, listed.resource_version) == (
                    "",
                    str(made.store.objects.version),
                )
                first = await far.list(POD, limit=10)
                assert 1 <= len(first.raw_items) < 10
                assert first.continue_token
                watch = await far.watch(POD, resource_version="")
                seen: list[str] = []
                while len(seen) < 13:
                    await watch.wait()
                    seen += [event.object["metadata"].get("name", "mark") for event in watch.drain()]
                assert seen == [*[f"p{i:02d}" for i in range(12)], "mark"]
                await far.close()

        scene(play)

    def test_a_list_whose_pages_grow_too_old_begins_again(self) -> None:
        async def play() -> None:
            async with served() as made:
                far = await made.reach()
                for index in range(600):
                    await made.store.create(EVENT, _event(f"e{index:03d}"), field_manager="t")
                pages, page = 0, made.servicer._list  # type: ignore[union-attr]

                async def compacting(*args: Any) -> Any:
                    nonlocal pages
                    pages += 1
                    found = await page(*args)
                    if pages == 1:
                        await made.store.create(EVENT, _event("late"), field_manager="t")
                        made.store.objects.table(EVENT).compact(made.store.objects.version)
                    return found

                made.servicer._list = compacting  # type: ignore[union-attr, method-assign]
                assert len((await far.list(EVENT)).raw_items) == 601
                assert pages == 4
                await far.close()

        scene(play)

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"{",
            b"[]",
            b'"text"',
            b"\xff",
            b"[" * 5_000,
            b'{"metadata": 7}',
            b'{"metadata": {"name": []}}',
        ],
        ids=[
            "nothing",
            "cut",
            "list",
            "text",
            "no UTF-8",
            "deep",
            "metadata of another type",
            "a name of another type",
        ],
    )
    def test_what_is_no_object_costs_one_request(self, raw: bytes) -> None:
        async def play() -> None:
            async with served() as made:
                admin = made.authority.issue(Identity(Role.ADMIN, "tester"))
                async with dial(f"127.0.0.1:{made.port}", admin, HUB) as channel:
                    stub: Any = store_pb2_grpc.StoreStub(channel)
                    kind = pb.Kind(version="v1", kind="Pod", plural="pods")
                    for method in (stub.Create, stub.Apply, stub.Replace):
                        reply = await method(
                            pb.WriteRequest(kind=kind, object=raw, field_manager="t"), timeout=5
                        )
                        assert reply.HasField("fault")
                        assert reply.fault.message
                    described = await stub.Describe(pb.DescribeRequest(), timeout=5)
                    assert described.kinds

        scene(play)

    @pytest.mark.parametrize(
        ("method", "request_", "why"),
        [
            (
                "Replace",
                pb.WriteRequest(object=b"{}", subresource="scale"),
                "no subresource is called 'scale'",
            ),
            (
                "Delete",
                pb.DeleteRequest(name="p", namespace="default", propagation="Sideways"),
                "no propagation",
            ),
        ],
    )
    def test_words_that_the_seam_has_not_are_refused(self, method: str, request_: Any, why: str) -> None:
        async def play() -> None:
            async with served() as made:
                admin = made.authority.issue(Identity(Role.ADMIN, "tester"))
                async with dial(f"127.0.0.1:{made.port}", admin, HUB) as channel:
                    request_.kind.CopyFrom(pb.Kind(version="v1", kind="Pod", plural="pods"))
                    reply = await getattr(store_pb2_grpc.StoreStub(channel), method)(request_, timeout=5)
                    assert reply.fault.reason == "BadRequest"
                    assert why in reply.fault.message

        scene(play)


class TestWatches:
    def test_more_watches_than_the_operator_serves_are_told_to_come_later(self) -> None:
        async def play() -> None:
            async with served(most_watches=2) as made:
                far = await made.reach()
                kept = [await far.watch(POD, resource_version="") for _ in range(2)]
                with pytest.raises(TooManyRequests, match="serves 2 watches at once"):
                    await far.watch(POD, resource_version="")
                kept[0].close()
                assert made.servicer is not None
                await until(lambda: made.servicer is not None and made.servicer.watches == 1)
                await far.watch(POD, resource_version="")
                await far.close()
                await until(lambda: made.servicer is not None and made.servicer.watches == 0)

        scene(play)

    def test_a_reader_that_does_not_drain_is_not_read_for_further(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the client keeps is bounded; what is left waits at the server, and nothing is lost."""
        monkeypatch.setattr(watching, "MOST_EVENTS", 20)

        async def play() -> None:
            async with served() as made:
                far = await made.reach()
                watch = await far.watch(POD, resource_version=str(made.store.objects.version))
                names = [f"p{index:03d}" for index in range(300)]
                for name in names:
                    await made.store.create(
                        POD, pod(name, annotations={"a": "x" * 20_000}), field_manager="t"
                    )
                    await asyncio.sleep(0)
                await asyncio.sleep(0.3)
                assert 20 <= len(watch._queue) < 300
                seen: list[str] = []
                while len(seen) < 300:
                    await watch.wait()
                    seen += [event.object["metadata"]["name"] for event in watch.drain()]
                assert seen == names
                await far.close()

        scene(play)

    def test_a_broken_connection_is_told_once_after_what_came_before_it(self) -> None:
        async def play() -> None:
            async with served() as made:
                far = await made.reach()
                watch = await far.watch(POD, resource_version=str(made.store.objects.version))
                await made.store.create(POD, pod("a"), field_manager="t")
                await until(lambda: bool(watch._queue))
                await made.shut()
                await until(lambda: not watch._open)
                assert not watch.ended
                await asyncio.wait_for(watch.wait(), 1)
                assert [event.object["metadata"]["name"] for event in watch.drain()] == ["a"]
                with pytest.raises(Unavailable, match="watch pods"):
                    watch.drain()
                assert watch.ended
                assert watch.drain() == []
                await far.close()

        scene(play)

    def test_closed_by_its_reader_it_is_over(self) -> None:
        async def play() -> None:
            async with served() as made:
                far = await made.reach()
                watch = await far.watch(POD, resource_version="")
                watch.close()
                watch.close()
                assert watch.ended
                assert watch.drain() == []
                await asyncio.wait_for(watch.wait(), 1)
                await far.close()

        scene(play)


class TestLife:
    def test_nobody_there_is_unavailable_with_the_address(self) -> None:
        async def play() -> None:
            async with served() as made:
                await made.shut()
                with pytest.raises(Unavailable, match=rf"operator at 127.0.0.1:{made.port} gave no answer"):
                    await made.reach(deadline_seconds=2.0)

        scene(play)

    def test_a_store_that_hangs_is_given_up_at_the_deadline(self) -> None:
        async def play() -> None:
            async with served() as made:
                far = await made.reach(deadline_seconds=0.3)

                async def never(*args: Any, **options: Any) -> Any:
                    await asyncio.Event().wait()

                made.store.get = never  # type: ignore[method-assign]
                with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED"):
                    await far.get(POD, "p", "default")
                made.store.watch = never  # type: ignore[method-assign]
                with pytest.raises(Unavailable):
                    await far.watch(POD, resource_version="")
                await far.close()

        scene(play)

    def test_the_same_store_found_again_after_an_outage(self) -> None:
        async def play() -> None:
            async with served() as made:
                far = await made.reach(deadline_seconds=2.0)
                await made.shut()
                with pytest.raises(Unavailable):
                    await far.create(LEASE, _lease("l"), field_manager="t")
                await made.open()
                async with asyncio.timeout(8):
                    while True:
                        try:
                            await far.create(LEASE, _lease("l"), field_manager="t")
                            break
                        except Unavailable:
                            await asyncio.sleep(0.05)
                await far.close()

        scene(play)

    def test_a_cache_follows_through_restarts_of_the_operator(self) -> None:
        """The embedded store dies with its process: whoever followed the old one must end equal to the new one."""

        async def play() -> None:
            async with served() as made:
                begin_life(made.store, CLOCK.now())
                far = await made.reach(deadline_seconds=2.0)
                cache: Reflector[Pod] = Reflector(far, POD, Pod, QUICK)  # its pauses are of a cluster
                for life in range(3):
                    for index in range(5 - life):
                        await made.store.create(POD, pod(f"p{life}-{index}"), field_manager="t")
                    await _equal(cache, made.store)
                    await made.shut()
                    await cache.pump()
                    made.store = open_store(CLOCK)
                    begin_life(made.store, CLOCK.now())
                    await made.open()
                await _equal(cache, made.store)
                assert cache.objects == {}
                await far.close()

        scene(play)


def test_versions_of_a_later_life_are_above_those_of_an_earlier_one() -> None:
    async def play() -> None:
        first, second = open_store(CLOCK), open_store(CLOCK)
        begin_life(first, 1_000_000.0)
        for index in range(50):
            await first.create(POD, pod(f"p{index}"), field_manager="t")
        begin_life(second, 1_000_000.5)
        assert second.objects.version > first.objects.version
        with pytest.raises(Gone):
            await second.watch(POD, resource_version=str(first.objects.version))
        watch = await second.watch(POD, resource_version=(await second.list(POD)).resource_version)
        await second.create(POD, pod("new"), field_manager="t")
        assert [event.object["metadata"]["name"] for event in watch.drain()] == ["new"]

    scene(play)


async def _equal(cache: Reflector[Pod], store: EmbeddedStore) -> None:
    """Pump until the cache holds what the store does."""

    async def truth() -> set[str]:
        return {f"default/{item['metadata']['name']}" for item in (await store.list(POD)).items}

    async with asyncio.timeout(15):
        while set(cache.objects) != await truth() or not cache.has_synced:
            await cache.pump()
            await asyncio.sleep(0.02)


def _event(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "reason": "T",
    }


def _lease(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "default"},
    }
