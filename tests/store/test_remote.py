"""The store's door: who may use it for what, what is too large, what every answer becomes on the way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from controller.resources.core import EVENT, NODE, POD
from controller.resources.kinds import MODEL_SERVICE
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
from controller.store.remote.messages import error_of, fault_of, refusal
from runtime.authority import Identity, Role
from runtime.channels import dial
from tests.store.objects import node, pod, service
from tests.store.remote import HUB
from tests.store.served import scene, served
from wire import store_pb2 as pb
from wire import store_pb2_grpc


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


def _event(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "reason": "T",
    }
