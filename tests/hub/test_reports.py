"""Reports and commands between real agents and a real hub on loopback, on virtual time."""

from __future__ import annotations

import math

import pytest

from controller.hub.commands import Checkpoint, GrantPower, SetTier
from controller.hub.inbox import SessionChange
from controller.hub.messages import AckCode
from controller.hub.sessions import HubError, NotConnected
from runtime.clock import VirtualClock
from tests.hub.support import MAX_WATTS, ORIGIN, SAFE_WATTS, TwoGpus, World, run, world


async def one_tick(made: World, clock: VirtualClock, seconds: float = 1.0) -> None:
    """The barrier of accelerated time: commands arrived, clock on, one report from each."""
    for each in made.agents:
        assert await each.commands_up_to(made.hub.sent_sequence(each.node), 5.0)
    clock.advance_to(clock.now() + seconds)
    for each in made.agents:
        assert await each.tick(clock.now())
    missing = await made.hub.reports_for(int(clock.now()), [each.node for each in made.agents], 5.0)
    assert not missing


def test_first_report_has_every_section_and_later_ones_what_moved() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock) as made:
            physics = TwoGpus("n1")
            agent = made.agent("n1", physics)
            await agent.connect()
            await one_tick(made, clock)
            [first] = made.hub.inbox.drain()
            assert first.inventory is not None
            assert [device.uuid for device in first.inventory.devices] == ["GPU-n1-0", "GPU-n1-1"]
            assert first.inventory.max_watts == MAX_WATTS
            assert (first.tick, first.node, first.sequence) == (int(ORIGIN) + 1, "n1", 2)
            assert first.observed_seconds == first.delivered_seconds == ORIGIN + 1
            assert first.node_watts == 400 + 2 * 300
            assert first.gpus is not None
            assert first.gpus.cap_watts == (300, 300)
            assert first.gpus.temperature_celsius[0] == 50.0
            assert math.isnan(first.gpus.temperature_celsius[1])
            assert first.lease is not None
            assert not first.lease.active
            assert first.lease.safe_watts == SAFE_WATTS
            assert first.instances == ()
            await one_tick(made, clock)
            [second] = made.hub.inbox.drain()
            assert second.inventory is second.gpus is second.lease is second.instances is None
            physics.demand_watts = 250.0
            await one_tick(made, clock)
            [third] = made.hub.inbox.drain()
            assert third.gpus is not None
            assert third.gpus.watts == (250.0, 250.0)

    run(scenario)


def test_a_lease_raises_the_cap_and_ends_at_its_very_moment_when_the_hub_is_silent() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock) as made:
            physics = TwoGpus("n1", demand_watts=700.0)
            agent = made.agent("n1", physics)
            await agent.connect()
            await one_tick(made, clock)
            joules = physics.joules
            made.hub.send("n1", GrantPower(watts=1_800, ttl_seconds=2.5), "1/power/1/0", clock.now() + 5)
            await one_tick(made, clock)
            report = made.hub.inbox.drain()[-1]
            assert report.acks[0].code is AckCode.DONE
            assert report.acks[0].readback_watts == 1_800
            assert report.lease is not None
            assert report.lease.active
            assert report.lease.expires_seconds == ORIGIN + 1 + 2.5
            assert report.gpus is not None
            assert report.gpus.watts == (700.0, 700.0)
            await one_tick(made, clock)
            await one_tick(made, clock)
            report = made.hub.inbox.drain()[-1]
            assert report.lease is not None
            assert not report.lease.active
            assert report.gpus is not None
            assert report.gpus.cap_watts == (300, 300)
            # 2.5 s of lease at 1,400 W, then the half second that is left of the tick at the safe 600 W.
            assert physics.joules - joules == pytest.approx(2.5 * 1_400 + 0.5 * 600)
            assert agent.counters.leases_expired == 1

    run(scenario)


def test_commands_a_driver_carries_out_and_one_it_does_not() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock) as made:
            physics = TwoGpus("n1")
            agent = made.agent("n1", physics)
            await agent.connect()
            await one_tick(made, clock)
            made.hub.inbox.drain()
            deadline = clock.now() + 5
            assert (
                made.hub.send("n1", SetTier(replica="shop/chat-0", uid="u", tier="awake"), "a", deadline) == 1
            )
            assert made.hub.send("n1", Checkpoint(job_uid="j", attempt=1), "b", deadline) == 2
            assert made.hub.send("n1", GrantPower(watts=MAX_WATTS + 1), "c", deadline) == 3
            assert made.hub.send("n1", GrantPower(watts=1_200, ttl_seconds=600.0), "d", deadline) == 4
            assert made.hub.send("n1", GrantPower(watts=1_200), "e", clock.now() - 1) == 5
            assert made.hub.send("n1", GrantPower(watts=1_200), "a", deadline) == 6
            await one_tick(made, clock)
            [report] = made.hub.inbox.drain()
            assert [(ack.id, ack.code) for ack in report.acks] == [
                ("a", AckCode.DONE),
                ("b", AckCode.UNSUPPORTED),
                ("c", AckCode.OUT_OF_RANGE),
                ("d", AckCode.OUT_OF_RANGE),
                ("e", AckCode.EXPIRED),
                ("a", AckCode.DUPLICATE),
            ]
            assert "1801 W is outside" in report.acks[2].message
            assert physics.cap_watts == SAFE_WATTS
            assert report.last_command_sequence == 6 == agent.last_command_sequence
            assert made.hub.stats.acks == {
                "done": 1, "unsupported": 1, "out_of_range": 2, "expired": 1, "duplicate": 1,
            }  # fmt: skip
            assert made.hub.stats.commands_sent == 6

    run(scenario)


def test_drain_sorts_by_tick_node_and_sequence_whoever_was_first() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock) as made:
            for name in ("n3", "n1", "n2"):
                await made.agent(name).connect()
            await one_tick(made, clock)
            await one_tick(made, clock)
            order = [(report.tick - int(ORIGIN), report.node) for report in made.hub.inbox.drain()]
            assert order == [(1, "n1"), (1, "n2"), (1, "n3"), (2, "n1"), (2, "n2"), (2, "n3")]

    run(scenario)


def test_goodbye_leaves_the_node_at_its_safe_cap_and_is_told_from_a_loss() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock) as made:
            polite, physics = made.agent("polite", TwoGpus("polite")), TwoGpus("sudden")
            sudden = made.agent("sudden", physics)
            await polite.connect()
            await sudden.connect()
            await one_tick(made, clock)
            made.hub.send("polite", GrantPower(watts=1_500), "p", clock.now() + 5)
            await one_tick(made, clock)
            assert polite.lease.active
            await polite.close("node drained")
            await sudden.abandon()
            assert not polite.lease.active
            assert await made.hub.absent({"polite", "sudden"}, 5.0) == frozenset()
            changes = {
                (event.node, event.change, event.why)
                for event in made.hub.inbox.drain_sessions()
                if event.change is not SessionChange.OPENED
            }
            assert changes == {
                ("polite", SessionChange.LEFT, "node drained"),
                ("sudden", SessionChange.LOST, "the stream ended without a goodbye"),
            }
            with pytest.raises(NotConnected, match="'polite' has no stream"):
                made.hub.send("polite", GrantPower(watts=1_500), "q", clock.now() + 5)

    run(scenario)


def test_the_barrier_names_the_nodes_that_did_not_report() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock) as made:
            here, silent = made.agent("here"), made.agent("silent")
            await here.connect()
            await silent.connect()
            clock.advance_to(ORIGIN + 1)
            await here.tick(clock.now())
            missing = await made.hub.reports_for(int(ORIGIN) + 1, ["here", "silent"], 0.2)
            assert missing == frozenset({"silent"})

    run(scenario)


def test_an_epoch_only_grows() -> None:
    async def scenario() -> None:
        async with world(epoch=7) as made:
            with pytest.raises(HubError, match="Epoch 7 is not above 7"):
                made.hub.raise_epoch(7)

    run(scenario)
