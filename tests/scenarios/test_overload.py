"""More than anybody can take: a burst at a service at zero, a message too large, streams cut half way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from agent.node.link import HubLink
from console.local import HUB
from runtime.authority import Identity, Role
from runtime.channels import Limits
from tests.scenarios.plays_serving import SHORT_MEMORY, settled
from tests.scenarios.props import fleet, manifests, service
from tests.scenarios.soundness import assert_sound
from tests.scenarios.stage import Stage
from tests.scenarios.tiers import WALL_SECONDS
from wire import agent_pb2 as pb

CHAT = "shop/chat"


def run(tmp_path: Path, spec: str, script: Callable[[Stage], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(WALL_SECONDS), Stage(fleet(l4=2), tmp_path) as stage:
            await stage.apply(manifests(service("chat", spec)))
            await script(stage)
            await assert_sound(stage)

    asyncio.run(limited())


def test_a_thousand_requests_at_a_service_at_zero(tmp_path: Path) -> None:
    """As many as there are places are held and served; the others are told at once when to come back."""

    async def script(stage: Stage) -> None:
        await stage.until(lambda seen: seen.phase("ModelService", CHAT) == "AtZero", 30, "at zero")
        stage.load(CHAT, 1000.0, 1)
        await stage.second()
        turned_away = stage.traffic.ended("rejected")
        assert len(turned_away) == 900
        assert {(r.code, r.retry_after_seconds >= 1.0) for r in turned_away} == {("RejectCap", True)}
        assert "its hold queue is full; try again in" in turned_away[0].message
        await stage.until(lambda _: not stage.traffic.open, 200, "those that were held are served")
        assert Counter(r.outcome for r in stage.traffic.results.values()) == {"served": 100, "rejected": 900}
        assert "ScaledFromZero" in await stage.told_codes(CHAT)

    run(tmp_path, "keepAliveSeconds: 60\nhold: {maxRequests: 100, deadlineSeconds: 300}", script)


def test_a_burst_at_a_service_that_serves_is_not_lost(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda _: settled(stage, CHAT, 1), 30, "one replica ready")
        stage.load(CHAT, 1000.0, 1, output=10)
        await stage.until(lambda _: not stage.traffic.open, 300, "all have ended")
        assert len(stage.traffic.ended("served")) == 1000

    run(tmp_path, f"minReplicas: 1\n{SHORT_MEMORY}", script)


def test_an_agent_that_says_too_much_loses_its_stream_and_disturbs_nobody(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda _: settled(stage, CHAT, 1), 30, "one replica ready")
        stage.load(CHAT, 2.0, 10)
        held = stage.cluster.authority.issue(Identity(Role.NODE, "greedy"))
        hello = pb.AgentMessage(node="greedy", sequence=1, hello=pb.Hello(boot_id="x", driver="simulated"))
        limits = Limits(send_bytes=16_000_000)
        endpoint = stage.cluster._door.endpoint
        link = await HubLink.open(endpoint, HUB, held, hello, lambda _: None, limits)
        large = pb.AgentMessage(node="greedy", sequence=2, observed_seconds=stage.now)
        large.report.telemetry.replicas.rows.add(name="a", phase="failed", fault="x" * 1_200_000)
        await link.send(large)
        assert await stage.cluster.hub.absent({"greedy"}, 10.0) == frozenset()
        assert stage.cluster.hub.stats.oversized == 1
        await stage.until(lambda _: not stage.traffic.open, 60, "all have ended")
        assert len(stage.traffic.ended("served")) == 20
        await link.close()

    run(tmp_path, "minReplicas: 1", script)


def test_a_client_that_goes_away_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda _: settled(stage, CHAT, 1), 30, "one replica ready")
        stage.load(CHAT, 5.0, 4, output=400)
        await stage.seconds(4)
        left = stage.traffic.open
        assert left > 5
        client, stage.cluster.feeder.client = stage.cluster.feeder.client, None
        assert client is not None
        await client.close()
        await stage.seconds(3)
        counts = stage.cluster.gateway.core.counts
        assert counts.cancelled == left
        assert stage.cluster.gateway.core.open_requests == 0
        await stage.seconds(2)
        assert set(stage.cluster.fleet.inflight().values()) == {0}, "the engines were told to stop"

    run(tmp_path, "minReplicas: 1", script)


def test_a_hub_that_is_cut_off_is_found_again_by_every_agent(tmp_path: Path) -> None:
    """Every agent's stream breaks at once: all come back, and nothing that serves notices."""

    async def script(stage: Stage) -> None:
        await stage.until(lambda _: settled(stage, CHAT, 1), 30, "one replica ready")
        before = stage.seen.pods(CHAT)[0]["metadata"]["uid"]
        stage.load(CHAT, 2.0, 10)
        for node in stage.cluster.fleet.nodes.values():
            assert node.agent is not None
            await node.agent.abandon()
        await stage.until(lambda _: len(stage.cluster.fleet.linked()) == 2, 20, "all agents are back")
        await stage.until(lambda _: not stage.traffic.open, 60, "all have ended")
        assert len(stage.traffic.ended("served")) == 20
        assert [pod["metadata"]["uid"] for pod in stage.seen.pods(CHAT)] == [before]

    run(tmp_path, "minReplicas: 1\nmaxReplicas: 1", script)
