"""One port, one rule: other services behind the hub's door, every kind of call guarded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from controller.hub.server import Hosted, HubServer
from controller.hub.service import Hub
from runtime.authority import Authority, Credentials, Identity, Role
from runtime.channels import dial
from runtime.clock import WallClock
from tests.hub.support import HUB_IDENTITY, run
from wire import gateway_pb2 as pb
from wire import gateway_pb2_grpc

GATEWAY = Identity(Role.GATEWAY, "edge")
NODE = Identity(Role.NODE, "n1")
ROUTES = "plimsoll.v1.Routes"


class Routes(gateway_pb2_grpc.RoutesServicer):
    """Answers each report with a table of its sequence: an async generator, as a service may be written."""

    async def Attach(
        self, request_iterator: AsyncIterator[pb.GatewayReport], context: Any
    ) -> AsyncIterator[pb.RouteTable]:
        async for report in request_iterator:
            yield pb.RouteTable(version=report.sequence)


async def echo(request: bytes, context: Any) -> bytes:
    return request


async def twice(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield request
    yield request


async def count(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return str(len([each async for each in requests])).encode()


def register_kinds(server: grpc.aio.Server) -> None:
    """The three other kinds of call."""
    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Twice": grpc.unary_stream_rpc_method_handler(twice),
        "Count": grpc.stream_unary_rpc_method_handler(count),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Kinds", handlers),))


class Door:
    """A server with Routes for gateways, Kinds for gateways and nodes, and an unlisted service."""

    def __init__(self) -> None:
        self.authority = Authority.create(WallClock())
        held = self.authority.issue(HUB_IDENTITY)
        self.server = HubServer(
            Hub(WallClock(), epoch=1),
            lambda: held,
            hosted=[
                Hosted(
                    name=ROUTES,
                    roles=frozenset({Role.GATEWAY}),
                    register=lambda server: gateway_pb2_grpc.add_RoutesServicer_to_server(Routes(), server),
                ),
                Hosted(
                    name="test.Kinds", roles=frozenset({Role.GATEWAY, Role.NODE}), register=register_kinds
                ),
            ],
        )
        handler = grpc.method_handlers_generic_handler(
            "test.Unlisted", {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
        )
        self.server._server.add_generic_rpc_handlers((handler,))

    async def __aenter__(self) -> Door:
        await self.server.start()
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self.server.stop()

    def channel(self, identity: Identity) -> Any:
        held: Credentials = self.authority.issue(identity)
        return dial(self.server.endpoint, held, HUB_IDENTITY)


def test_routes_are_served_to_gateways_on_the_same_port() -> None:
    async def scenario() -> None:
        async with Door() as door, door.channel(GATEWAY) as channel:
            call = gateway_pb2_grpc.RoutesStub(channel).Attach()  # type: ignore[call-arg]
            for sequence in (1, 2, 3):
                await call.write(pb.GatewayReport(gateway="edge", sequence=sequence))
                assert (await call.read()).version == sequence
            await call.done_writing()
            assert await call.code() is grpc.StatusCode.OK

    run(scenario)


def test_routes_are_not_served_to_nodes() -> None:
    async def scenario() -> None:
        async with Door() as door, door.channel(NODE) as channel:
            call = gateway_pb2_grpc.RoutesStub(channel).Attach()  # type: ignore[call-arg]
            assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
            assert await call.details() == (
                "spiffe://plimsoll/node/n1 may not call plimsoll.v1.Routes: it is not open to the role node."
            )

    run(scenario)


@pytest.mark.parametrize("identity", [GATEWAY, NODE], ids=["gateway", "node"])
def test_every_kind_of_call_passes_the_guard(identity: Identity) -> None:
    async def scenario() -> None:
        async def three() -> AsyncIterator[bytes]:
            for each in (b"a", b"b", b"c"):
                yield each

        async with Door() as door, door.channel(identity) as channel:
            assert await channel.unary_unary("/test.Kinds/Echo")(b"x") == b"x"
            assert [each async for each in channel.unary_stream("/test.Kinds/Twice")(b"x")] == [b"x", b"x"]
            assert await channel.stream_unary("/test.Kinds/Count")(three()) == b"3"
            assert door.server.guard.refused == 0

    run(scenario)


@pytest.mark.parametrize(
    ("method", "code"),
    [
        pytest.param(
            "/test.Unlisted/Echo", grpc.StatusCode.PERMISSION_DENIED, id="served but open to nobody"
        ),
        pytest.param("/test.Nothing/Echo", grpc.StatusCode.UNIMPLEMENTED, id="not served"),
        pytest.param(
            "/grpc.reflection.v1.ServerReflection/X", grpc.StatusCode.UNIMPLEMENTED, id="no reflection"
        ),
    ],
)
def test_what_is_not_listed_is_closed(method: str, code: grpc.StatusCode) -> None:
    async def scenario() -> None:
        async with Door() as door, door.channel(GATEWAY) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(method)(b"x")
            assert refused.value.code() is code

    run(scenario)
