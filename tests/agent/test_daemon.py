"""The daemon itself: drivers that fail, hubs that are not there, signals; and every kind of command on its way in."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal

import pytest

from agent.node.daemon import Agent, AgentConfig, stop_on_signals
from agent.node.decode import driver_command_of
from agent.node.drivers import base
from agent.node.drivers.base import DriverError, Sample
from agent.node.drivers.simulated import SimulatedDriver
from agent.node.link import LinkError
from controller.hub import commands as cmd
from controller.hub.commands import GrantPower, to_wire
from controller.hub.inbox import SessionChange
from runtime.authority import Authority, Identity, Role
from runtime.clock import VirtualClock, WallClock
from tests.hub.support import ORIGIN, SAFE_WATTS, TwoGpus, run, until, world


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        (
            cmd.StageWeights(model="m", fingerprint="f", tier="dram", source="n2", bytes=1 << 35),
            base.StageWeights,
        ),
        (cmd.DropWeights(model="m", fingerprint="f", tier="nvme"), base.DropWeights),
        (cmd.SetTier(replica="a/b", uid="u", tier="asleep_host"), base.SetTier),
        (cmd.Checkpoint(job_uid="j", attempt=3, tier="zone", interval_seconds=60.0), base.Checkpoint),
        (cmd.PaceGang(job_uid="j", attempt=3, period_seconds=1.0, offset_seconds=0.25), base.PaceGang),
        (cmd.Probe(peer="n2", nic="mlx5_0", duration_seconds=2.0), base.Probe),
        (cmd.Isolate(device_uuid="GPU-1", level=2, until_seconds=ORIGIN), base.Isolate),
    ],
    ids=lambda each: each.__name__ if isinstance(each, type) else "",
)
def test_what_the_operator_says_is_what_the_driver_hears(sent: cmd.AgentCommand, kind: type) -> None:
    heard = driver_command_of(to_wire(sent, "1/x/1/0", 1, 1, ORIGIN))
    assert isinstance(heard, kind)
    assert {name: getattr(heard, name) for name in sent.__struct_fields__} == {
        name: getattr(sent, name) for name in sent.__struct_fields__
    }
    assert set(heard.__struct_fields__) == set(sent.__struct_fields__)  # type: ignore[union-attr]


def test_a_driver_that_does_not_answer_costs_the_report_not_the_agent() -> None:
    class Moody(SimulatedDriver):
        silent = False

        def sample(self, now_seconds: float) -> Sample:
            if self.silent:
                raise DriverError("NVML does not answer; is the driver loaded?")
            return super().sample(now_seconds)

    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock) as made:
            physics = TwoGpus("n1")
            agent = made.agent("n1", physics)
            agent._driver = driver = Moody(physics)
            await agent.connect()
            driver.silent = True
            clock.advance_to(ORIGIN + 1)
            assert not await agent.tick(clock.now())
            assert agent.counters.driver_failures == 1
            assert agent.connected
            made.hub.send("n1", GrantPower(watts=1_500), "g", clock.now() + 5)
            assert await agent.commands_up_to(1, 5.0)
            assert physics.cap_watts == 1_500
            driver.silent = False
            clock.advance_to(ORIGIN + 2)
            assert await agent.tick(clock.now())

    run(scenario)


def test_without_a_hub_the_agent_waits_longer_and_longer_and_stays_safe() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        held = Authority.create(WallClock()).issue(Identity(Role.NODE, "n1"))
        physics = TwoGpus("n1", cap_watts=1_800)
        agent = Agent(
            AgentConfig(node="n1", endpoint="127.0.0.1:1", boot_id="b"),
            SimulatedDriver(physics),
            lambda: held,
            clock,
            random.Random(3).uniform,
        )
        tried = []
        for step in range(80):
            clock.advance_to(ORIGIN + step * 0.25)
            assert not await agent.tick(clock.now())
            if agent.counters.connect_failures > len(tried):
                tried.append(step * 0.25)
        gaps = [later - earlier for earlier, later in itertools.pairwise(tried)]
        assert 5 <= len(tried) <= 40
        assert max(gaps) <= 4.25
        assert sum(gaps[-3:]) >= sum(gaps[:3])
        assert physics.cap_watts == SAFE_WATTS
        with pytest.raises(LinkError, match=r"The hub at 127\.0\.0\.1:1 cannot be used \(UNAVAILABLE\)"):
            await agent.connect()

    run(scenario)


def test_sigterm_leaves_politely_at_the_safe_cap() -> None:
    async def scenario() -> None:
        clock = WallClock()
        async with world(clock=clock) as made:
            physics = TwoGpus("n1", now=clock.now())
            agent = made.agent("n1", physics, prompt_acks=True)
            stop = asyncio.Event()
            stop_on_signals(stop)
            running = asyncio.create_task(agent.run(stop))
            assert not await made.hub.present(["n1"], 5.0)
            made.hub.send("n1", GrantPower(watts=1_500, ttl_seconds=30.0), "g", clock.now() + 5)
            await until(lambda: physics.cap_watts == 1_500)
            os.kill(os.getpid(), signal.SIGTERM)
            await running
            assert physics.cap_watts == SAFE_WATTS
            assert not await made.hub.absent(["n1"], 5.0)
            [left] = [e for e in made.hub.inbox.drain_sessions() if e.change is not SessionChange.OPENED]
            assert (left.change, left.why) == (SessionChange.LEFT, "stopped")

    run(scenario)


def test_in_real_time_a_command_is_answered_at_once() -> None:
    async def scenario() -> None:
        clock = WallClock()
        async with world(clock=clock) as made:
            agent = made.agent("n1", TwoGpus("n1", now=clock.now()), prompt_acks=True)
            stop = asyncio.Event()
            running = asyncio.create_task(agent.run(stop))
            await until(lambda: made.hub.last_tick("n1") is not None)
            reports = made.hub.stats.reports
            made.hub.send("n1", GrantPower(watts=1_500), "g", clock.now() + 5)
            await until(lambda: made.hub.stats.acks.get("done") == 1, 0.5)
            assert made.hub.stats.reports == reports + 1
            stop.set()
            await running

    run(scenario)


def test_a_welcome_sets_the_pace() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        async with world(clock=clock, heartbeat_seconds=3.0) as made:
            agent = made.agent("n1", heartbeat_seconds=99.0)
            await agent.connect()
            await until(lambda: agent.highest_epoch == 1)
            told = []
            for second in range(1, 8):
                clock.advance_to(ORIGIN + second)
                told.append(await agent.tick(clock.now()))
            assert told == [True, False, False, True, False, False, True]

    run(scenario)
