"""The same gateway around a wall clock: as soon as there is something to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from gateway.client import ClientError, GatewayClient
from runtime.authority import Role
from runtime.clock import WallClock
from tests.gateway.loopback import CHAT, WAIT, Plane, background, plane, run
from tests.hub.proxy import proxy


async def until(condition: Callable[[], object], seconds: float = WAIT) -> None:
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def nodes(world: Plane, *names: str) -> None:
    for name in names:
        await world.node(name, f"shop/{name}", started=world.clock.now())


def test_requests_are_served_at_once_and_reported() -> None:
    async def story() -> None:
        async with plane(WallClock(), report_seconds=0.1) as world:
            await nodes(world, "n1", "n2")
            loops = [node.service.run(world.clock) for node in world.nodes.values()]
            async with background(world.gateway.run(), *loops):
                world.routes.publish(world.table({"shop/n1": "n1", "shop/n2": "n2"}))
                await until(lambda: len(world.gateway.links.up) == 2)
                client = await world.client()
                asked = world.requests(*([0.0] * 20), prompt=100, output=5)
                before = world.clock.now()
                results = await client.generate(asked)
                assert [result.request_id for result in results] == [request.request_id for request in asked]
                assert {result.outcome for result in results} == {"served"}
                assert all(
                    before < result.first_token_seconds <= result.finished_seconds for result in results
                )
                assert {result.instance for result in results} == {"shop/n1", "shop/n2"}
                await until(lambda: any(r.loads and r.loads[0].finished == 20 for r in world.routes.drain()))

    run(story())


def test_many_tasks_may_ask_at_once_on_one_stream() -> None:
    async def story() -> None:
        async with plane(WallClock()) as world:
            await nodes(world, "n1")
            loops = [node.service.run(world.clock) for node in world.nodes.values()]
            async with background(world.gateway.run(), *loops):
                world.routes.publish(world.table({"shop/n1": "n1"}))
                await until(lambda: world.gateway.links.up)
                for _ in range(3):
                    client = await world.client()
                    asked = [world.requests(*[0.0] * 200, prompt=10, output=1) for _ in range(5)]
                    answers = await asyncio.gather(*(client.generate(each) for each in asked))
                    assert [len(answer) for answer in answers] == [200] * 5
                    assert {each.outcome for answer in answers for each in answer} == {"served"}

    run(story())


def test_the_first_held_request_is_reported_before_the_next_report_is_due() -> None:
    async def story() -> None:
        async with plane(WallClock(), report_seconds=60.0) as world, background(world.gateway.run()):
            world.routes.publish(world.table({}))
            await until(lambda: world.gateway.core.services)
            world.routes.drain()
            client = await world.client()
            asking = asyncio.create_task(client.generate(world.requests(0.0)))
            await until(lambda: [load.held for r in world.routes.drain() for load in r.loads] == [1])
            asking.cancel()

    run(story())


def test_a_killed_node_has_its_requests_served_by_the_other() -> None:
    async def story() -> None:
        async with plane(WallClock()) as world:
            await nodes(world, "n1", "n2")
            loops = [node.service.run(world.clock) for node in world.nodes.values()]
            async with background(world.gateway.run(), *loops):
                world.routes.publish(world.table({"shop/n1": "n1", "shop/n2": "n2"}))
                client = await world.client()
                await until(lambda: len(world.gateway.links.up) == 2)
                asking = asyncio.create_task(client.generate(world.requests(*([0.0] * 10), output=60)))
                await until(lambda: world.nodes["n1"].host.open_requests > 0)
                await world.nodes["n1"].die()
                results = await asking
                assert {result.outcome for result in results} == {"served"}
                assert sum(result.retries for result in results) > 0
                assert {result.instance for result in results if result.retries} == {"shop/n2"}

    run(story())


def test_a_node_that_falls_silent_is_given_up_though_its_connection_stands() -> None:
    async def story() -> None:
        async with plane(WallClock(), silence_seconds=0.5) as world:
            await nodes(world, "n1", "n2")
            talking = world.nodes["n2"].service.run(world.clock, heartbeat_seconds=0.1)
            async with background(world.gateway.run(), talking):
                world.routes.publish(world.table({"shop/n1": "n1", "shop/n2": "n2"}))
                client = await world.client()
                results = await client.generate(world.requests(*([0.0] * 6), output=5))
                assert {result.instance for result in results} == {"shop/n2"}

    run(story())


def test_a_connection_cut_inside_a_frame_is_dialled_again_and_nothing_is_lost() -> None:
    async def story() -> None:
        async with plane(WallClock()) as world:
            await nodes(world, "n1")
            port = int(world.nodes["n1"].server.endpoint.rpartition(":")[2])
            async with (
                proxy(port) as middle,
                background(world.gateway.run(), world.nodes["n1"].service.run(world.clock)),
            ):
                table = world.table({"shop/n1": "n1"})
                table.services[0].instances[0].endpoint = middle.endpoint
                world.routes.publish(table)
                client = await world.client()
                await until(lambda: world.gateway.links.up)
                middle.cut_after = middle.passed + 200
                asking = asyncio.create_task(client.generate(world.requests(*([0.0] * 40), output=5)))
                await until(lambda: world.gateway.core.counts.retried > 0)
                middle.cut_after = None
                assert {result.outcome for result in await asking} == {"served"}

    run(story())


def test_a_restarted_operator_is_attached_again_and_its_older_table_ignored() -> None:
    async def story() -> None:
        async with plane(WallClock()) as world, background(world.gateway.run()):
            world.routes.publish(world.table({}, epoch=5))
            await until(lambda: world.gateway.core.route_epoch == 5)
            assert world.routes.highest_epoch_seen in {0, 5}
            assert world.gateway.routes is not None
            attached = world.gateway.routes.attachments
            for session in list(world.routes._sessions.values()):
                session.replace()
            await until(lambda: world.gateway.routes and world.gateway.routes.attachments > attached)
            world.routes._table = None  # a new process remembers nothing
            world.routes.publish(world.table({}, epoch=4))
            await until(lambda: world.gateway.core.counts.routes_old_epoch > 0)
            world.routes.publish(world.table({}, epoch=6))
            await until(lambda: world.gateway.core.route_epoch == 6)

    run(story())


@pytest.mark.parametrize(
    ("role", "name"),
    [(Role.NODE, "n1"), (Role.GATEWAY, "g2"), (Role.OPERATOR, "operator")],
    ids=["a node", "another gateway", "the operator"],
)
def test_only_clients_may_ask_for_tokens(role: Role, name: str) -> None:
    async def story() -> None:
        async with plane() as world:
            with pytest.raises(ClientError, match="may not call"):
                await GatewayClient.connect(world.gateway.endpoint, "g1", world.credentials(role, name))

    run(story())


def test_a_client_that_dials_another_gateway_than_it_meant_is_told() -> None:
    async def story() -> None:
        async with plane() as world:
            with pytest.raises(ClientError, match="cannot be reached"):
                await GatewayClient.connect(world.gateway.endpoint, "g9", world.credentials(Role.CLIENT, "c"))

    run(story())


def test_ids_in_use_are_refused_by_the_client() -> None:
    async def story() -> None:
        async with plane() as world:
            client = await world.client()
            twice = world.requests(0.0) * 2
            with pytest.raises(ValueError, match="id of its own"):
                await client.generate(twice)

    run(story())


def test_an_unknown_service_is_turned_away_by_name() -> None:
    async def story() -> None:
        async with plane(WallClock()) as world, background(world.gateway.run()):
            client = await world.client()
            (result,) = await client.generate(world.requests(0.0, service="shop/nobody"))
            assert (result.outcome, result.code) == ("rejected", "RejectNoService")
            assert "shop/nobody" in result.message
            assert CHAT not in result.message
            (result,) = await client.generate(world.requests(0.0, service="s" * 1_000_000))
            assert (result.code, len(result.message) < 500) == ("RejectNoService", True)

    run(story())


def test_nobody_brings_its_own_time_to_a_gateway_in_real_time() -> None:
    async def story() -> None:
        async with plane(WallClock()) as world, background(world.gateway.run()):
            client = await world.client()
            await client.send_window(1, 0.0, 1.0, world.requests(0.5))
            with pytest.raises(ClientError, match="runs in real time"):
                await client.answer(1, WAIT)

    run(story())
