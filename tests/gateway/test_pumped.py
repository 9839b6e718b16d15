"""Accelerated time over real streams: exact, and the same each time."""

from __future__ import annotations

import random

import pytest

from gateway.client import Result
from gateway.messages import Window
from gateway.server import WindowLate
from tests.gateway.loopback import CHAT, GATEWAY, ORIGIN, Plane, plane, run


def test_a_request_goes_from_the_client_to_an_engine_and_back() -> None:
    async def story() -> None:
        async with plane() as world:
            await world.node("n1", "shop/a")
            await world.route({"shop/a": "n1"})
            client = await world.client()
            (result,) = [*await world.second(client, world.requests(0.25)), *await world.second(client)]
            assert (result.outcome, result.output_tokens, result.instance) == ("served", 20, "shop/a")
            assert ORIGIN + 0.25 < result.first_token_seconds < result.finished_seconds < ORIGIN + 2
            assert (client.outstanding, world.gateway.core.open_requests) == (0, 0)

    run(story())


def test_a_service_at_zero_holds_tells_the_operator_and_serves_once_there_is_an_engine() -> None:
    async def story() -> None:
        async with plane() as world:
            await world.node("n1", "shop/a")
            await world.route({})
            client = await world.client()
            assert await world.second(client, world.requests(0.5, 0.75)) == []
            (report,) = world.routes.drain()
            (load,) = report.loads
            assert (load.service, load.held, load.arrived, load.oldest_held_seconds) == (CHAT, 2, 2, 0.5)
            assert sum(load.cells) == pytest.approx(2 / load.window_seconds)
            await world.route({"shop/a": "n1"})
            results = [*(await world.second(client)), *(await world.second(client))]
            assert [result.outcome for result in results] == ["served", "served"]
            assert min(result.first_token_seconds for result in results) > ORIGIN + 1
            newest = world.routes.drain()[-1]
            assert (newest.loads[0].held, newest.loads[0].finished) == (0, 2)
            assert (newest.route_epoch, newest.route_version) == (1, 2)
            assert newest.loads[0].ttft_seconds is not None
            assert [row.connected for row in newest.instances] == [True]

    run(story())


async def _failure_story(world: Plane) -> list[Result]:
    """Sixty requests on two nodes, one of which dies in the middle of a second; all results."""
    rng = random.Random(7)
    for name in ("n1", "n2"):
        await world.node(name, f"shop/{name}")
    await world.route({"shop/n1": "n1", "shop/n2": "n2"})
    client = await world.client()
    results: list[Result] = []
    for second in range(12):
        at = sorted(second + rng.random() for _ in range(10)) if second < 6 else []
        if second == 4:
            await world.nodes["n1"].die()
        results += await world.second(client, world.requests(*at, prompt=500, output=200))
    return results


def test_a_node_that_dies_loses_no_request() -> None:
    async def story() -> None:
        async with plane() as world:
            results = await _failure_story(world)
            assert sorted(result.request_id for result in results) == list(range(1, 61))
            assert {result.outcome for result in results} == {"served"}
            retried = [result for result in results if result.retries]
            assert len(retried) > 5
            assert {result.instance for result in retried} == {"shop/n2"}
            assert world.gateway.core.counts.retried == sum(result.retries for result in results)
            assert world.gateway.core.refused_transitions == {}

    run(story())


def test_two_runs_tell_the_same_story() -> None:
    async def tell(results: list[Result]) -> None:
        async with plane() as world:
            results += await _failure_story(world)

    first: list[Result] = []
    second: list[Result] = []
    run(tell(first))
    run(tell(second))
    assert first == second


def test_a_node_that_comes_back_is_used_again() -> None:
    async def story() -> None:
        async with plane() as world:
            await world.node("n1", "shop/a")
            await world.route({"shop/a": "n1"})
            client = await world.client()
            await world.second(client, world.requests(0.1, output=500))
            await world.nodes["n1"].die()
            assert await world.second(client) == []
            await world.node("n1", "shop/a", started=ORIGIN + 2)
            await world.route({"shop/a": "n1"})
            results = [result for _ in range(8) for result in await world.second(client)]
            (result,) = results
            assert (result.outcome, result.retries) == ("served", 1)

    run(story())


def test_a_client_that_closes_has_its_requests_withdrawn_from_the_engines() -> None:
    async def story() -> None:
        async with plane() as world:
            node = await world.node("n1", "shop/a")
            await world.route({"shop/a": "n1"})
            client = await world.client()
            await world.second(client, world.requests(0.1, 0.2, output=5_000))
            assert node.host.open_requests == 2
            await client.close()
            world.clients.clear()
            for _ in range(3):
                await world.second()
            assert node.host.open_requests == 0
            assert [ending.code for ending in world.endings] == ["ClientGone", "ClientGone"]
            assert world.gateway.ingress.clients == 0

    run(story())


def test_a_window_whose_requests_do_not_come_is_refused_by_name() -> None:
    async def story() -> None:
        async with plane() as world:
            await world.client()
            with pytest.raises(WindowLate, match=r"\d of 2 clients"):
                await world.gateway.open_window(Window(1, ORIGIN, ORIGIN + 1), clients=2, timeout_seconds=0.1)

    run(story())


def test_the_gateway_keeps_its_routes_while_the_operator_is_away() -> None:
    async def story() -> None:
        async with plane() as world:
            await world.node("n1", "shop/a")
            await world.route({"shop/a": "n1"})
            client = await world.client()
            await world.second(client, world.requests(0.1))
            await world.door.stop()
            world.tick += 1
            window = Window(world.tick, ORIGIN + 1, ORIGIN + 2)
            await client.send_window(world.tick, ORIGIN + 1, ORIGIN + 2, world.requests(1.5))
            await world.gateway.open_window(window, clients=1, timeout_seconds=5.0)
            service = world.nodes["n1"].service
            await service.received(ORIGIN + 2, 5.0)
            service.advance(ORIGIN + 4)
            await world.gateway.close_window()
            results = await client.answer(world.tick)
            assert {result.outcome for result in results} == {"served"}
            assert GATEWAY.name not in world.routes.gateways()

    run(story())
