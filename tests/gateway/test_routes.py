"""The operator's side of the routes: who may attach, what is believed, what is sent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import grpc
import grpc.aio
import pytest

from controller.routes import GatewayReport
from controller.routing import put_plan
from gateway.codec import route_table
from gateway.streams import refusal
from runtime.authority import Identity, Role
from runtime.channels import EOF, dial
from tests.gateway.loopback import OPERATOR, ORIGIN, WAIT, Plane, plane, run
from tests.gateway.test_plans import PLAN
from wire import gateway_pb2 as pb
from wire import gateway_pb2_grpc


class Attached:
    """A stream that says what the test wants."""

    def __init__(self, world: Plane, role: Role, name: str) -> None:
        self.channel: Any = dial(world.door.endpoint, world.authority.issue(Identity(role, name)), OPERATOR)
        self.call: Any = gateway_pb2_grpc.RoutesStub(self.channel).Attach()

    async def say(self, **report: Any) -> None:
        """Say it once the stream is accepted, as gateways do: a write that meets the refusal on its way back would put an
        INTERNAL of gRPC's own in its place (`grpc.aio` sets one where sending fails before the status is read).
        """
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):  # `end` tells why
            if await refusal(self.call) == "":
                await self.call.write(pb.GatewayReport(**report))

    async def read(self) -> pb.RouteTable:
        async with asyncio.timeout(WAIT):
            return await self.call.read()

    async def end(self) -> tuple[grpc.StatusCode, str]:
        async with asyncio.timeout(WAIT):
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                while await self.call.read() is not EOF:
                    pass
            return await self.call.code(), await self.call.details()

    async def close(self) -> None:
        self.call.cancel()
        await self.channel.close()


def load(**changed: Any) -> pb.ServiceLoad:
    sound = {
        "service": "shop/chat", "traffic_class": "interactive", "window_seconds": 60.0, "input_edges": [64, 128],
        "output_edges": [64], "cells": [0.5, 1.5], "held": 3,
    }  # fmt: skip
    return pb.ServiceLoad(**(sound | changed))


async def reports(world: Plane, name: str, count: int = 1) -> list[GatewayReport]:
    found: list[GatewayReport] = []
    async with asyncio.timeout(WAIT):
        while len(found) < count:
            await asyncio.sleep(0.01)
            found += [report for report in world.routes.drain() if report.gateway == name]
    return found


def test_a_gateway_that_attaches_late_is_sent_the_newest_table_and_each_newer_one() -> None:
    async def story() -> None:
        async with plane() as world:
            world.routes.publish(world.table({}, epoch=3))
            world.routes.publish(world.table({}, epoch=3))
            late = Attached(world, Role.GATEWAY, "g2")
            await late.say(gateway="g2")
            assert (await late.read()).version == 2
            assert await world.routes.present(["g1", "g2"], WAIT) == frozenset()
            world.routes.publish(world.table({}, epoch=4))
            assert (await late.read()).epoch == 4
            with pytest.raises(ValueError, match="not newer than 4/3"):
                world.routes.publish(pb.RouteTable(epoch=4, version=3))
            await late.close()

    run(story())


def test_reports_are_handed_out_by_tick_gateway_and_sequence() -> None:
    async def story() -> None:
        async with plane() as world:
            late = Attached(world, Role.GATEWAY, "g2")
            for sequence, tick in ((1, 5), (2, 6), (2, 6), (1, 9)):
                await late.say(
                    gateway="g2", sequence=sequence, tick=tick, observed_seconds=ORIGIN, loads=[load()]
                )
            found = await reports(world, "g2", 2)
            assert [(report.tick, report.sequence) for report in found] == [(5, 1), (6, 2)]
            assert await world.routes.reports_for(6, ["g2"], WAIT) == frozenset()
            assert await world.routes.reports_for(7, ["g2"], 0.05) == {"g2"}
            async with asyncio.timeout(WAIT):
                while world.routes.rejected < 2:  # noqa: ASYNC110 - the last one may still be on its way
                    await asyncio.sleep(0.01)
            assert world.routes.rejected == 2
            (seen,) = found[0].loads
            assert (seen.cells, seen.input_edges, seen.held, seen.ttft_seconds) == (
                (0.5, 1.5),
                (64, 128),
                3,
                None,
            )
            await late.close()

    run(story())


@pytest.mark.parametrize(
    "bad",
    [
        load(cells=[0.5]),
        load(cells=[0.5, float("nan")]),
        load(cells=[-0.5, 1.0]),
        load(window_seconds=0.0),
        load(rejected_per_second=float("inf")),
        load(service=""),
        load(service="s" * 100_000),
        load(input_edges=[1.0] * 100, output_edges=[1.0] * 100, cells=[0.0] * 10_000),
    ],
    ids=[
        "cells that are no grid", "a cell that is no number", "a negative cell", "no window", "an infinite rate",
        "no service", "an absurd name", "an absurd grid",
    ],
)  # fmt: skip
def test_a_load_that_cannot_be_true_is_left_out_and_the_rest_is_believed(bad: pb.ServiceLoad) -> None:
    async def story() -> None:
        async with plane() as world:
            late = Attached(world, Role.GATEWAY, "g2")
            rows = [pb.InstanceLoad(name="shop/a", outstanding=2), pb.InstanceLoad(name="")]
            await late.say(
                gateway="g2", sequence=1, observed_seconds=9e12, loads=[bad, load()], instances=rows
            )
            (report,) = await reports(world, "g2")
            assert [each.service for each in report.loads] == ["shop/chat"]
            assert [(row.name, row.outstanding) for row in report.instances] == [("shop/a", 2)]
            assert report.observed_seconds == ORIGIN
            assert world.routes.rejected == 2
            await late.close()

    run(story())


@pytest.mark.parametrize(
    ("role", "name", "says", "needle"),
    [
        (Role.NODE, "g1", "g1", "may not call"),
        (Role.CLIENT, "g1", "g1", "may not call"),
        (Role.GATEWAY, "g2", "g1", "names 'g1'"),
    ],
    ids=["a node with a gateway's name", "a client", "a gateway in another's name"],
)
def test_nobody_attaches_in_a_name_that_is_not_its_own(role: Role, name: str, says: str, needle: str) -> None:
    async def story() -> None:
        async with plane() as world:
            late = Attached(world, role, name)
            await late.say(gateway=says, sequence=1, loads=[load()])
            code, details = await late.end()
            assert code is grpc.StatusCode.PERMISSION_DENIED
            assert needle in details
            assert [report for report in world.routes.drain() if report.loads] == []
            await late.close()

    run(story())


def test_a_plan_that_was_lost_with_its_stream_or_its_gateway_comes_with_the_next_one() -> None:
    async def story() -> None:
        async with plane() as world:
            first = Attached(world, Role.GATEWAY, "g2")
            await first.say(gateway="g2")
            assert await world.routes.present(["g2"], WAIT) == frozenset()
            await first.close()  # with whatever was on its way
            table = world.table({})
            put_plan(table.services[0].size_plan, PLAN)
            world.routes.publish(table)
            again = Attached(world, Role.GATEWAY, "g2")
            await again.say(gateway="g2")
            (service,) = route_table(await again.read()).services
            assert service.size_plan == PLAN
            await again.close()
            assert await world.gateway.routed(table.epoch, table.version, WAIT)
            world.gateway._take_routes(ORIGIN)
            assert world.gateway.core.services["shop/chat"].route.size_plan == PLAN

    run(story())


def test_a_gateway_says_that_it_knows_plans_and_one_that_does_not_is_believed() -> None:
    async def story() -> None:
        async with plane() as world:
            late = Attached(world, Role.GATEWAY, "g2")
            await late.say(gateway="g2", sequence=1, loads=[load()])
            (old,) = await reports(world, "g2")
            await late.say(gateway="g2", sequence=2, loads=[load()], knows_size_plans=True)
            (new,) = await reports(world, "g2")
            assert (old.knows_size_plans, new.knows_size_plans) == (False, True)
            await late.close()

    run(story())


def test_a_second_stream_of_a_gateway_replaces_the_first() -> None:
    async def story() -> None:
        async with plane() as world:
            first = Attached(world, Role.GATEWAY, "g2")
            await first.say(gateway="g2", sequence=1, tick=1)
            assert await world.routes.reports_for(1, ["g2"], WAIT) == frozenset()
            second = Attached(world, Role.GATEWAY, "g2")
            await second.say(gateway="g2", sequence=1, tick=2)
            assert await world.routes.reports_for(2, ["g2"], WAIT) == frozenset()
            code, details = await first.end()
            assert (code, "replaced" in details) == (grpc.StatusCode.ABORTED, True)
            world.routes.publish(world.table({}))
            assert (await second.read()).version == 1
            assert world.routes.gateways() == ["g1", "g2"]
            await first.close()
            await second.close()

    run(story())
