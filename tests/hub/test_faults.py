"""What goes wrong between agents and hub, and that it costs only the stream it happened on."""

from __future__ import annotations

import asyncio
import logging

import pytest

from agent.node.daemon import Agent
from agent.node.link import HubLink, LinkError
from controller.hub.commands import GrantPower
from controller.hub.inbox import SessionChange
from controller.hub.messages import AckCode
from controller.hub.server import HubServer
from controller.hub.service import Hub
from controller.hub.sessions import OUTBOX_COMMANDS, NotConnected, OutboxFull
from runtime.channels import NODE_PLANE, Limits
from runtime.clock import VirtualClock, WallClock
from tests.hub.proxy import proxy
from tests.hub.support import HUB_IDENTITY, ORIGIN, SAFE_WATTS, TwoGpus, World, run, until, world
from wire import agent_pb2 as pb


async def raw_link(made: World, node: str, endpoint: str = "", limits: Limits = NODE_PLANE) -> HubLink:
    hello = pb.AgentMessage(node=node, sequence=1, hello=pb.Hello(boot_id="raw", driver="simulated"))
    return await HubLink.open(
        endpoint or made.server.endpoint,
        HUB_IDENTITY,
        made.credentials(node),
        hello,
        lambda message: None,
        limits,
    )


def report(node: str, sequence: int, *, tick: int = 1, text: str = "") -> pb.AgentMessage:
    message = pb.AgentMessage(node=node, sequence=sequence, tick=tick, observed_seconds=ORIGIN)
    message.report.telemetry.node_watts = 500.0
    if text:
        message.report.telemetry.replicas.rows.add(name="a", phase="failed", fault=text)
    return message


async def healthy_tick(clock: VirtualClock, agent: Agent, hub: Hub) -> None:
    clock.advance_to(clock.now() + 1)
    assert await agent.tick(clock.now())
    assert not await hub.reports_for(int(clock.now()), [agent.node], 5.0)


@pytest.mark.parametrize(
    ("size", "oversized"),
    [
        pytest.param(1_200_000, 1, id="above the hub's limit: counted, with a sentence"),
        pytest.param(8_000_000, 0, id="above gRPC's own limit: never read, seen as a loss"),
    ],
)
def test_an_oversized_message_ends_only_its_own_stream(
    size: int, oversized: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock) as made:
            healthy = made.agent("healthy")
            await healthy.connect()
            greedy = await raw_link(made, "greedy", limits=Limits(send_bytes=16_000_000))
            await greedy.send(report("greedy", 2))
            await until(lambda: made.hub.last_tick("greedy") == 1)
            await greedy.send(report("greedy", 3, text="x" * size))
            assert await made.hub.absent({"greedy"}, 5.0) == frozenset()
            await until(lambda: greedy.broken is not None)
            assert greedy.broken is not None
            assert greedy.broken.startswith("RESOURCE_EXHAUSTED")
            await greedy.close()
            assert made.hub.stats.oversized == oversized
            assert made.hub.stats.lost == 1
            await healthy_tick(clock, healthy, made.hub)
            assert made.hub.nodes() == ["healthy"]

    with caplog.at_level(logging.INFO, "controller.hub"):
        run(scenario)
    assert any(getattr(record, "facts", {}).get("node") == "greedy" for record in caplog.records)


def test_a_stream_cut_half_way_ends_only_that_session_and_the_agent_comes_back() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock) as made, proxy(made.server.port) as between:
            healthy, cut = made.agent("healthy"), made.agent("cut", endpoint=between.endpoint)
            await healthy.connect()
            await cut.connect()
            await healthy_tick(clock, cut, made.hub)
            made.hub.inbox.drain()
            between.cut_after = between.passed + 40  # inside the next report's TLS record
            clock.advance_to(clock.now() + 1)
            await cut.tick(clock.now())
            assert await made.hub.absent({"cut"}, 5.0) == frozenset()
            assert made.hub.inbox.drain() == []
            assert made.hub.stats.lost == 1
            await healthy_tick(clock, healthy, made.hub)
            between.cut_after = None
            for _ in range(10):
                clock.advance_to(clock.now() + 1)
                if await cut.tick(clock.now()):
                    break
            assert not await made.hub.reports_for(int(clock.now()), ["cut"], 5.0)
            after = made.hub.inbox.drain()[-1]
            assert after.node == "cut"
            assert after.inventory is not None, "the first report of a new stream has every section"
            assert cut.counters.reconnects == 1

    run(scenario)


def test_a_newer_stream_of_a_node_replaces_the_older() -> None:
    async def scenario() -> None:
        async with world() as made:
            older = await raw_link(made, "n1")
            newer = await raw_link(made, "n1")
            await until(lambda: older.broken is not None)
            assert older.broken is not None
            assert "replaced" in older.broken
            assert newer.broken is None
            assert made.hub.nodes() == ["n1"]
            assert made.hub.stats.replaced == 1
            assert made.hub.stats.lost == 0
            changes = [event.change for event in made.hub.inbox.drain_sessions()]
            assert changes == [SessionChange.OPENED, SessionChange.REPLACED, SessionChange.OPENED]
            await newer.send(report("n1", 2))
            await until(lambda: made.hub.last_tick("n1") == 1)
            await older.close()
            await newer.close()

    run(scenario)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        pytest.param(
            pb.AgentMessage(node="n1", sequence=1, report=pb.Report()), "must be a hello", id="no hello"
        ),
        pytest.param(pb.AgentMessage(sequence=1, hello=pb.Hello()), "names ''", id="no name"),
        pytest.param(
            pb.AgentMessage(node="n" * 1_000_000, sequence=1, hello=pb.Hello()), "names 'nnn", id="1 MB name"
        ),
    ],
)
def test_a_bad_greeting_is_refused_with_a_sentence(message: pb.AgentMessage, sentence: str) -> None:
    async def scenario() -> None:
        async with world() as made:
            with pytest.raises(LinkError, match=sentence):
                await HubLink.open(
                    made.server.endpoint, HUB_IDENTITY, made.credentials("n1"), message, lambda each: None
                )
            assert made.hub.stats.refused_protocol == 1
            assert made.hub.nodes() == []

    run(scenario)


def test_a_second_hello_and_a_repeated_report() -> None:
    async def scenario() -> None:
        async with world() as made:
            link = await raw_link(made, "n1")
            await link.send(report("n1", 2))
            await link.send(report("n1", 2))
            await until(lambda: made.hub.stats.repeated_reports == 1)
            assert len(made.hub.inbox.drain()) == 1
            await link.send(pb.AgentMessage(node="n1", sequence=3, hello=pb.Hello()))
            await until(lambda: link.broken is not None)
            assert link.broken is not None
            assert "A hello is not expected here" in link.broken
            await link.close()

    run(scenario)


def test_bytes_that_are_no_message_end_the_stream() -> None:
    async def scenario() -> None:
        async with world() as made:
            link = await raw_link(made, "n1")

            class Garbage:
                def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
                    return b"\xff\xff\xff\xff"

            link._call._request_serializer = lambda garbage: garbage.SerializeToString()
            await link.send(Garbage())  # type: ignore[arg-type]
            assert await made.hub.absent({"n1"}, 5.0) == frozenset()
            await until(lambda: link.broken is not None)
            await link.close()

    run(scenario)


def test_an_old_leader_is_not_obeyed_and_learns_it() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock, epoch=5) as made:
            physics = TwoGpus("n1")
            agent = made.agent("n1", physics)
            await agent.connect()
            await until(lambda: made.hub.connected("n1"))
            made.hub.send("n1", GrantPower(watts=1_500), "5/power/1/0", clock.now() + 5)
            assert await agent.commands_up_to(1, 5.0)
            await made.server.stop()

            older = Hub(clock, epoch=3, heartbeat_seconds=1.0)
            held = made.authority.issue(HUB_IDENTITY)
            server = HubServer(older, lambda: held, port=made.server.port)
            await server.start()
            for _ in range(100):
                clock.advance_to(clock.now() + 1)
                if await agent.tick(clock.now()):
                    break
                await asyncio.sleep(0.02)
            await until(lambda: older.connected("n1"))
            [opened] = older.inbox.drain_sessions()
            assert opened.highest_epoch == 5 == older.highest_epoch_seen
            with pytest.raises(NotConnected, match="has obeyed epoch 5; this hub is of epoch 3"):
                older.send("n1", GrantPower(watts=1_500), "x", clock.now() + 5)

            # A leader that does not ask first is refused by the agent itself.
            session = older._sessions["n1"]
            stale = pb.Command(id="stale", epoch=3, sequence=1, deadline_seconds=clock.now() + 5)
            stale.grant_power.watts = 1_700
            stale.grant_power.ttl_seconds = 5.0
            session.queue(stale)
            await until(lambda: agent._actuator.has_acks)
            await healthy_tick(clock, agent, older)
            [ack] = [ack for each in older.inbox.drain() for ack in each.acks if ack.id == "stale"]
            assert ack.code is AckCode.OLD_EPOCH
            assert ack.message == "Epoch 3 is over: this node obeys epoch 5."
            assert physics.cap_watts != 1_700

            older.raise_epoch(6)
            assert older.send("n1", GrantPower(watts=1_600), "6/power/1/0", clock.now() + 5) == 1
            assert await agent.commands_up_to(1, 5.0)
            await until(lambda: physics.cap_watts == 1_600)
            assert agent.highest_epoch == 6
            await server.stop()

    run(scenario)


def test_before_anybody_leads_agents_report_and_get_no_commands() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock, epoch=0) as made:
            agent = made.agent("n1")
            await agent.connect()
            await healthy_tick(clock, agent, made.hub)
            with pytest.raises(NotConnected, match="this hub is of epoch 0"):
                made.hub.send("n1", GrantPower(watts=1_500), "x", clock.now() + 5)
            made.hub.raise_epoch(1)
            made.hub.send("n1", GrantPower(watts=1_500), "1/power/1/0", clock.now() + 5)
            assert await agent.commands_up_to(1, 5.0)

    run(scenario)


def test_a_node_that_takes_no_commands_gets_no_more_and_others_do() -> None:
    async def scenario() -> None:
        async with world() as made, proxy(made.server.port) as between:
            stuck = await raw_link(made, "stuck", between.endpoint)
            fine = made.agent("fine")
            await fine.connect()
            stuck._reading.cancel()  # takes nothing more: flow control stops the hub's writer, then the queue fills
            between.stalled = True
            padding = "p" * 900

            async def flood() -> None:
                for count in range(100_000):
                    made.hub.send("stuck", GrantPower(watts=1_500), f"{count}{padding}", ORIGIN + 5)
                    if count % 32 == 0:
                        await asyncio.sleep(0)

            before = -1
            while made.hub.stats.commands_sent != before:  # the pipe takes some too: until it takes no more
                before = made.hub.stats.commands_sent
                with pytest.raises(OutboxFull, match="'stuck' has 256 commands waiting"):
                    await flood()
                await asyncio.sleep(0.2)
            assert made.hub.send("fine", GrantPower(watts=1_500), "f", ORIGIN + 5) == 1
            assert await fine.commands_up_to(1, 5.0)
            between.cut()
            assert await made.hub.absent({"stuck"}, 10.0) == frozenset()
            stats = made.hub.stats
            await until(lambda: stats.commands_queued == stats.commands_sent + stats.commands_dropped)
            assert stats.commands_dropped >= OUTBOX_COMMANDS

    run(scenario)


def test_agents_come_back_after_the_hub_restarts_and_are_safe_meanwhile() -> None:
    """On wall time, with the real loop around tick: what a person sees when the operator restarts."""

    async def scenario() -> None:
        clock = WallClock()
        async with world(clock=clock) as made:
            nodes = [f"n{index}" for index in range(8)]
            physics = {node: TwoGpus(node, now=clock.now()) for node in nodes}
            agents = [made.agent(node, physics[node], prompt_acks=True) for node in nodes]
            stop = asyncio.Event()
            running = [asyncio.create_task(agent.run(stop)) for agent in agents]
            assert not await made.hub.present(nodes, 5.0)
            for node in nodes:
                made.hub.send(node, GrantPower(watts=1_500, ttl_seconds=0.6), f"1/{node}", clock.now() + 5)
            await until(lambda: all(each.cap_watts == 1_500 for each in physics.values()))
            await until(lambda: made.hub.stats.acks.get("done") == len(nodes))
            await made.server.stop()
            await until(lambda: all(each.cap_watts == SAFE_WATTS for each in physics.values()))

            hub = Hub(clock, epoch=2)
            held = made.authority.issue(HUB_IDENTITY)
            server = HubServer(hub, lambda: held, port=made.server.port)
            await server.start()
            assert not await hub.present(nodes, 10.0)
            hub.send("n3", GrantPower(watts=1_400), "2/n3", clock.now() + 5)
            await until(lambda: physics["n3"].cap_watts == 1_400)
            stop.set()
            await asyncio.gather(*running)
            assert not await hub.absent(nodes, 5.0)
            assert hub.stats.left == len(nodes)
            assert physics["n3"].cap_watts == SAFE_WATTS
            await server.stop()

    run(scenario)


def test_a_hub_that_cannot_have_its_port_says_so() -> None:
    async def scenario() -> None:
        async with world() as made:
            held = made.authority.issue(HUB_IDENTITY)
            second = HubServer(Hub(WallClock(), epoch=1), lambda: held, port=made.server.port)
            with pytest.raises(OSError, match=rf"Cannot listen on 127\.0\.0\.1:{made.server.port}"):
                await second.start()

    run(scenario)
