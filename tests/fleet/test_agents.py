"""Agents of the fleet: the production daemon, real gRPC and mutual TLS, over modelled machines."""

from __future__ import annotations

import pytest
from cryptography import x509

from controller.hub.commands import GrantPower
from controller.hub.messages import AckCode
from runtime.authority import Role, identity_of
from simulator.fleet.specs import demo_fleet, uniform_fleet
from simulator.physics.failures import Failure, FailureKind
from tests.fleet.worlds import ORIGIN, QUICK, Cluster, cluster, engine_pod, rank_pod, run


def grant(made: Cluster, node: str, watts: int, ttl_seconds: float = 5.0) -> None:
    assert made.hub is not None
    made.hub.send(
        node,
        GrantPower(watts=watts, clock_mhz=0, ttl_seconds=ttl_seconds),
        f"g-{made.now}-{watts}",
        made.clock.now() + ttl_seconds,
    )


def test_every_agent_reports_once_a_second_what_its_machine_has_and_draws() -> None:
    async def scenario() -> None:
        async with cluster(demo_fleet(start=QUICK), hub=True) as made:
            await made.seconds(3)
            assert len(made.reports) == 3 * 24
            assert [(r.tick, r.node) for r in made.reports] == sorted((r.tick, r.node) for r in made.reports)
            first = {r.node: r for r in made.reports if r.tick == int(ORIGIN) + 1}
            inventory = first["a100-ib-01"].inventory
            assert inventory is not None
            assert [d.index for d in inventory.devices] == list(range(8))
            assert {d.product for d in inventory.devices} == {"NVIDIA-A100-SXM4-80GB"}
            assert {(n.link, n.rate_bits_per_second) for n in inventory.nics} == {("infiniband", 200 * 10**9)}
            spec = made.fleet.nodes["a100-ib-01"].spec
            assert inventory.safe_watts == spec.safe_watts
            assert inventory.max_watts - inventory.base_watts == 8 * 400
            # Idle: the base and 63 W for each GPU, with what the supplies lose.
            assert first["a100-ib-01"].node_watts == pytest.approx(870.0 + 1.28 * 8 * 63)

    run(scenario)


def test_each_node_speaks_under_its_own_certificate() -> None:
    async def scenario() -> None:
        async with cluster(hub=True) as made:
            held = [node.credentials() for node in made.fleet.nodes.values()]
            assert [(c.identity.role, c.identity.name) for c in held] == [
                (Role.NODE, "node-0000"),
                (Role.NODE, "node-0001"),
            ]
            assert len({c.key_pem for c in held}) == 2
            named = [identity_of(x509.load_pem_x509_certificate(c.certificate_pem)).name for c in held]
            assert named == ["node-0000", "node-0001"]

    run(scenario)


def test_a_power_lease_holds_the_machine_up_and_its_end_lets_it_fall_at_that_very_moment() -> None:
    async def scenario() -> None:
        async with cluster(uniform_fleet(2, start=QUICK), hub=True) as made:
            await made.seconds(2)
            node = made.fleet.nodes["node-0000"]
            physics = node.machine.physics
            safe = physics.power_state().gpu_cap_watts
            grant(made, "node-0000", node.machine.inventory().max_watts, ttl_seconds=2.5)
            await made.seconds(1)
            acks = [ack for report in made.reports for ack in report.acks]
            assert [ack.code for ack in acks] == [AckCode.DONE]
            assert physics.power_state().gpu_cap_watts == 700
            await made.seconds(1)
            assert physics.power_state().gpu_cap_watts == 700
            await made.seconds(1)  # the lease ended in the middle of this second
            assert physics.power_state().gpu_cap_watts == safe
            assert node.agent is not None
            assert node.agent.counters.leases_expired == 1

    run(scenario)


def test_a_grant_below_what_the_machine_can_be_set_to_is_refused() -> None:
    async def scenario() -> None:
        async with cluster(hub=True) as made:
            await made.seconds(1)
            least = made.fleet.nodes["node-0000"].machine.inventory().min_watts
            for watts in (least - 1, least):
                grant(made, "node-0000", watts)
            await made.seconds(1)
            acks = [ack for report in made.reports for ack in report.acks]
            assert [ack.code for ack in acks] == [AckCode.OUT_OF_RANGE, AckCode.DONE]
            assert acks[1].readback_watts is not None
            assert acks[1].readback_watts <= least

    run(scenario)


def test_engines_and_gangs_are_reported_with_their_figures() -> None:
    async def scenario() -> None:
        async with cluster(uniform_fleet(3, start=QUICK), hub=True) as made:
            await made.seconds(2)
            pair = ("node-0001", "node-0002")
            await made.create(engine_pod("chat-0", "node-0000"))
            for rank in range(2):
                await made.create(rank_pod("bert", 1, rank, pair, steps=100_000))
            await made.until(lambda: made.ready("default/chat-0"))
            made.fleet.nodes["node-0000"].machine.physics.submit(
                "default/chat-0", 1, 500, 5_000, made.clock.now()
            )
            await made.seconds(20)
            last = {}
            for report in made.reports:
                for section in ("instances", "gangs", "replicas"):
                    if getattr(report, section):
                        last[report.node, section] = getattr(report, section)
            [row] = last["node-0000", "instances"]
            assert (row.name, row.running) == ("default/chat-0", 1)
            assert 0 < row.kv_free_tokens < row.kv_capacity_tokens
            [replica] = last["node-0000", "replicas"]
            assert (replica.name, replica.phase) == ("default/chat-0", "ready")
            steps = set()
            for node in pair:
                [gang] = last[node, "gangs"]
                assert (gang.job, gang.attempt, gang.ranks, gang.ranks_joined) == ("default/bert", 1, 8, 8)
                assert gang.phase == "running"
                steps.add(gang.step)
            assert len(steps) == 1
            assert steps.pop() > 0

    run(scenario)


def test_a_crashed_node_vanishes_from_the_hub_within_the_same_second_and_reports_no_more() -> None:
    async def scenario() -> None:
        async with cluster(hub=True) as made:
            await made.seconds(2)
            assert made.hub is not None
            made.fleet.schedule(Failure(made.clock.now() + 0.5, "node-0000", FailureKind.NODE_CRASH))
            await made.seconds(1)
            assert made.hub.nodes() == ["node-0001"]
            made.reports.clear()
            await made.seconds(5)
            assert {report.node for report in made.reports} == {"node-0001"}
            assert made.fleet.true_power_watts(["node-0000"]) == 0.0
            await made.fleet.recover("node-0000", made.clock.now())
            await made.seconds(8)
            assert made.hub.nodes() == ["node-0000", "node-0001"]
            assert any(r.node == "node-0000" and r.inventory is not None for r in made.reports)

    run(scenario)


def test_a_silent_agent_says_nothing_while_its_node_stays_ready_and_falls_to_its_safe_cap() -> None:
    async def scenario() -> None:
        async with cluster(hub=True) as made:
            await made.seconds(2)
            node = made.fleet.nodes["node-0000"]
            safe = node.machine.physics.power_state().gpu_cap_watts
            grant(made, "node-0000", node.machine.inventory().max_watts)
            await made.seconds(1)
            assert node.machine.physics.power_state().gpu_cap_watts > safe
            await node.partition()
            made.reports.clear()
            await made.seconds(60)
            assert {report.node for report in made.reports} == {"node-0001"}
            assert node.machine.physics.power_state().gpu_cap_watts == safe
            conditions = (await made.node("node-0000"))["status"]["conditions"]
            assert {c["status"] for c in conditions if c["type"] == "Ready"} == {"True"}
            node.heal()
            await made.seconds(8)
            assert made.hub is not None
            assert made.hub.nodes() == ["node-0000", "node-0001"]
            assert made.reports[-1].node == "node-0001"
            assert any(report.node == "node-0000" for report in made.reports)

    run(scenario)


def test_true_power_follows_the_caps_and_uncapped_power_does_not() -> None:
    async def scenario() -> None:
        async with cluster(uniform_fleet(1, start=QUICK), hub=True) as made:
            await made.seconds(2)
            await made.create(rank_pod("bert", 1, 0, ("node-0000",), steps=100_000))
            await made.seconds(60)
            [watts, free] = [
                each(["node-0000"]) for each in (made.fleet.true_power_watts, made.fleet.uncapped_power_watts)
            ]
            assert watts < free
            assert watts <= made.fleet.nodes["node-0000"].spec.safe_watts
            grant(made, "node-0000", made.fleet.nodes["node-0000"].machine.inventory().max_watts)
            await made.seconds(3)
            assert made.fleet.true_power_watts(["node-0000"]) == pytest.approx(free, rel=0.02)

    run(scenario)
