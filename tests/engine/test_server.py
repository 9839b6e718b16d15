"""A node's engines on a real port: who may ask, and what ends a stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from agent.engine.host import EngineHost
from agent.engine.server import INBOX_FRAMES, NODE_KEY, OUTBOX_FRAMES, EngineServer, EnginesService
from runtime.authority import Authority, Identity, Role
from runtime.channels import EOF, dial
from runtime.clock import WallClock
from tests.engine.worlds import ORIGIN, engine
from tests.gateway.loopback import run
from wire import engine_pb2 as pb
from wire import engine_pb2_grpc

NODE = Identity(Role.NODE, "n1")
WAIT = 5.0


class Stream:
    """A gateway's stream that says what the test wants."""

    def __init__(
        self,
        authority: Authority,
        endpoint: str,
        who: Identity,
        node: str | None = "n1",
        peer: Identity = NODE,
    ) -> None:
        self.channel: Any = dial(endpoint, authority.issue(who), peer)
        metadata = ((NODE_KEY, node),) if node is not None else ()
        self.call: Any = engine_pb2_grpc.EnginesStub(self.channel).Serve(metadata=metadata)

    async def open(self) -> Stream:
        async with asyncio.timeout(WAIT):
            await self.call.initial_metadata()
        return self

    async def window(self, tick: int, *submissions: pb.Submission) -> None:
        frame = pb.GatewayFrame(tick=tick, until_seconds=ORIGIN + tick, submissions=submissions)
        await self.call.write(frame)

    async def read(self) -> pb.EngineFrame:
        async with asyncio.timeout(WAIT):
            return await self.call.read()

    async def end(self) -> tuple[grpc.StatusCode, str]:
        async with asyncio.timeout(WAIT):
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                while await self.call.read() is not EOF:
                    pass
            return await self.call.code(), await self.call.details()


@asynccontextmanager
async def node() -> AsyncIterator[tuple[Authority, EngineServer]]:
    authority = Authority.create(WallClock())
    held = authority.issue(NODE)
    host = EngineHost("n1")
    host.add("shop/a", engine())
    server = EngineServer(EnginesService(host), lambda: held)
    await server.start()
    try:
        yield authority, server
    finally:
        await server.stop()


def submission(request_id: int, at: float) -> pb.Submission:
    return pb.Submission(
        request_id=request_id, instance="shop/a", prompt_tokens=100, output_tokens=10, epoch=1,
        arrived_seconds=ORIGIN + at, submitted_seconds=ORIGIN + at,
    )  # fmt: skip


def gateway(name: str = "g1") -> Identity:
    return Identity(Role.GATEWAY, name)


def test_each_window_is_answered_by_exactly_one_frame_of_its_tick() -> None:
    async def story() -> None:
        async with node() as (authority, server):
            stream = await Stream(authority, server.endpoint, gateway()).open()
            assert server.service.gateways == ("g1",)
            for tick in (1, 2, 3):
                await stream.window(tick, submission(tick, tick - 0.5))
                assert await server.service.received(ORIGIN + tick, WAIT) == frozenset()
                server.service.advance(ORIGIN + tick)
                frame = await stream.read()
                assert (frame.tick, frame.sequence, frame.node) == (tick, tick, "n1")
                assert frame.observed_seconds == ORIGIN + tick
            assert await server.service.received(ORIGIN + 4, 0.05) == {"g1"}

    run(story())


def test_a_frame_that_is_due_before_a_stream_is_accepted_reaches_its_gateway() -> None:
    """Real time: the heartbeat may fall between a stream's coming and its acceptance."""

    async def story() -> None:
        async with node() as (authority, server):
            for number in range(1, 6):
                name = f"g{number}"

                async def due(name: str = name, until: float = ORIGIN + number) -> None:
                    while name not in server.service.gateways:  # noqa: ASYNC110 - not a turn of the loop too late
                        await asyncio.sleep(0)
                    server.service.advance(until)

                heartbeat = asyncio.create_task(due())
                stream = Stream(authority, server.endpoint, gateway(name))
                assert (await stream.read()).observed_seconds == ORIGIN + number
                await heartbeat

    run(story())


def test_which_gateway_was_faster_changes_no_event() -> None:
    async def tell(order: tuple[str, str], told: list[bytes]) -> None:
        async with node() as (authority, server):
            streams = {name: await Stream(authority, server.endpoint, gateway(name)).open() for name in order}
            for name in order:
                await streams[name].window(1, *(submission(k, 0.5) for k in range(5)))
                while not server.service._sessions[name].inbox:  # noqa: ASYNC110 - only one of them is here
                    await asyncio.sleep(0.001)
            server.service.advance(ORIGIN + 1)
            frames = [await streams[name].read() for name in sorted(order)]
            told.extend(frame.SerializeToString(deterministic=True) for frame in frames)

    first: list[bytes] = []
    second: list[bytes] = []
    run(tell(("g1", "g2"), first))
    run(tell(("g2", "g1"), second))
    assert first == second


@pytest.mark.parametrize(
    ("who", "asked", "code", "needle"),
    [
        (gateway(), "n2", grpc.StatusCode.NOT_FOUND, "This is node 'n1', not 'n2'"),
        (gateway(), None, grpc.StatusCode.NOT_FOUND, NODE_KEY),
        (Identity(Role.NODE, "n2"), "n1", grpc.StatusCode.PERMISSION_DENIED, "may not call"),
        (Identity(Role.CLIENT, "c"), "n1", grpc.StatusCode.PERMISSION_DENIED, "may not call"),
    ],
    ids=["a gateway that means another node", "a gateway that names none", "another node", "a client"],
)
def test_a_stream_is_refused(who: Identity, asked: str | None, code: grpc.StatusCode, needle: str) -> None:
    async def story() -> None:
        async with node() as (authority, server):
            found, details = await Stream(authority, server.endpoint, who, asked).end()
            assert found is code
            assert needle in details
            assert server.service.gateways == ()

    run(story())


def test_a_gateway_does_not_talk_to_a_node_of_another_name() -> None:
    async def story() -> None:
        async with node() as (authority, server):
            other = Identity(Role.NODE, "n2")
            code, details = await Stream(authority, server.endpoint, gateway(), peer=other).end()
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "Hostname" in details

    run(story())


def test_a_second_stream_of_a_gateway_replaces_the_first_and_drops_its_requests() -> None:
    async def story() -> None:
        async with node() as (authority, server):
            first = await Stream(authority, server.endpoint, gateway()).open()
            await first.window(1, submission(1, 0.5))
            await server.service.received(ORIGIN + 1, WAIT)
            server.service.advance(ORIGIN + 0.5)
            second = await Stream(authority, server.endpoint, gateway()).open()
            code, details = await first.end()
            assert (code, "replaced" in details) == (grpc.StatusCode.ABORTED, True)
            await second.window(1)
            await server.service.received(ORIGIN + 1, WAIT)
            server.service.advance(ORIGIN + 5)
            assert list((await second.read()).events) == []
            assert server.service.gateways == ("g1",)

    run(story())


def test_a_gateway_that_runs_ahead_of_time_is_stopped() -> None:
    async def story() -> None:
        async with node() as (authority, server):
            stream = await Stream(authority, server.endpoint, gateway()).open()
            for tick in range(1, INBOX_FRAMES + 2):
                await stream.window(tick)
            code, details = await stream.end()
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "none is advanced" in details

    run(story())


def test_a_gateway_that_reads_nothing_is_cut_off() -> None:
    async def story() -> None:
        async with node() as (authority, server):
            stream = await Stream(authority, server.endpoint, gateway()).open()
            session = server.service._sessions["g1"]
            for second in range(OUTBOX_FRAMES + 2):  # without giving the writer a turn
                server.service.advance(ORIGIN + second)
            assert server.service.cut_off >= 1
            code, _ = await stream.end()
            assert (code, session.ended != "") == (grpc.StatusCode.ABORTED, True)

    run(story())


def test_a_frame_that_cannot_be_parsed_ends_its_stream_and_no_other() -> None:
    async def story() -> None:
        async with node() as (authority, server):
            good = await Stream(authority, server.endpoint, gateway("g2")).open()
            channel: Any = dial(server.endpoint, authority.issue(gateway("g1")), NODE)
            raw: Any = channel.stream_stream(
                "/plimsoll.v1.Engines/Serve", request_serializer=bytes, response_deserializer=bytes
            )(metadata=((NODE_KEY, "n1"),))
            await raw.write(b"\xff\xff\xff")
            async with asyncio.timeout(WAIT):
                assert await raw.code() is grpc.StatusCode.INVALID_ARGUMENT
            await good.window(1)
            assert await server.service.received(ORIGIN + 1, WAIT) == frozenset()

    run(story())


def test_nobody_waits_for_the_frame_of_a_gateway_that_has_left() -> None:
    async def scenario() -> None:
        async with node() as (authority, server):
            stream = await Stream(authority, server.endpoint, gateway()).open()
            waiting = asyncio.create_task(server.service.received(ORIGIN + 1, 10 * WAIT))
            await asyncio.sleep(0)
            stream.call.cancel()
            async with asyncio.timeout(WAIT):
                assert await waiting == frozenset()
            await stream.channel.close()

    run(scenario())
