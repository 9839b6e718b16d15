"""The part that changes the node: leases that end, caps that do not hold, answers that wait."""

from __future__ import annotations

import msgspec
import pytest

from agent.node.actuator import ACKS_KEPT, RETRY_SAFE_SECONDS, Actuator
from agent.node.counters import Counters
from agent.node.drivers.base import Code, DriverCommand, DriverError, Inventory, Outcome, SetPower
from agent.node.drivers.simulated import SimulatedDriver
from runtime.clock import VirtualClock
from tests.hub.support import MAX_WATTS, ORIGIN, SAFE_WATTS, TwoGpus
from wire import agent_pb2 as pb


def power(
    sequence: int, watts: int = 1_500, ttl: float = 5.0, epoch: int = 1, clock_mhz: int = 0
) -> pb.Command:
    command = pb.Command(
        id=f"{epoch}/{sequence}", epoch=epoch, sequence=sequence, deadline_seconds=ORIGIN + 1e6
    )
    command.grant_power.watts = watts
    command.grant_power.ttl_seconds = ttl
    command.grant_power.clock_mhz = clock_mhz
    return command


class Bench:
    def __init__(self, physics: TwoGpus | None = None) -> None:
        self.clock = VirtualClock(ORIGIN)
        self.physics = physics or TwoGpus("n1")
        self.counters = Counters()
        self.actuator = Actuator("n1", SimulatedDriver(self.physics), self.clock, self.counters)

    def codes(self) -> list[int]:
        return [ack.code for ack in self.actuator.take_acks()]

    def wait(self, seconds: float) -> None:
        self.clock.advance_to(self.clock.now() + seconds)
        self.actuator.advance(self.clock.now())


def test_a_node_begins_at_its_safe_cap() -> None:
    bench = Bench(TwoGpus("n1", cap_watts=MAX_WATTS))
    assert bench.physics.cap_watts == SAFE_WATTS == bench.actuator.readback_watts


def test_renewals_hold_the_cap_and_silence_ends_it() -> None:
    bench = Bench()
    for sequence in range(1, 6):
        bench.actuator.receive([power(sequence, clock_mhz=1_410)])
        bench.wait(3.0)
        assert bench.physics.cap_watts == 1_500
        assert bench.physics.clock_mhz == 1_410
    bench.wait(3.0)
    assert bench.physics.cap_watts == SAFE_WATTS
    assert bench.physics.clock_mhz == 0
    assert bench.counters.leases_expired == 1
    assert bench.codes() == [Code.DONE] * 5


@pytest.mark.parametrize("moved", [False, True], ids=["clock still at the start", "clock already at the end"])
def test_within_a_window_the_cap_falls_at_the_leases_end(moved: bool) -> None:
    bench = Bench(TwoGpus("n1", demand_watts=700.0))
    bench.actuator.receive([power(1, watts=1_800, ttl=0.25)])
    if moved:
        bench.clock.advance_to(ORIGIN + 1)
    bench.actuator.advance(ORIGIN + 1)
    assert bench.physics.joules == pytest.approx(0.25 * 1_400 + 0.75 * 600)


def test_a_cap_that_does_not_hold_is_no_lease() -> None:
    bench = Bench()
    bench.physics.cap_watts, bench.physics.obeys = 1_700, False
    bench.actuator.receive([power(1, watts=1_500)])
    [ack] = bench.actuator.take_acks()
    assert ack.code == Code.FAILED
    assert "add up to 1700 W, more than the 1500 W" in ack.message
    assert ack.readback_watts == 1_700
    assert not bench.actuator.lease.active
    assert bench.counters.power_failures == 2, "the grant, and the safe cap after it"


def test_the_safe_cap_is_tried_until_it_holds() -> None:
    bench = Bench()
    bench.actuator.receive([power(1, ttl=1.0)])
    bench.physics.obeys = False
    bench.wait(1.0)
    assert bench.physics.cap_watts == 1_500
    assert bench.actuator.wake_monotonic_seconds == pytest.approx(1.0 + RETRY_SAFE_SECONDS)
    bench.wait(RETRY_SAFE_SECONDS)
    bench.physics.obeys = True
    bench.wait(RETRY_SAFE_SECONDS)
    assert bench.physics.cap_watts == SAFE_WATTS
    assert bench.actuator.wake_monotonic_seconds is None
    assert bench.counters.leases_expired == 1


def test_a_driver_that_fails_is_answered_and_counted() -> None:
    class Broken(SimulatedDriver):
        def apply(self, command: DriverCommand, now_seconds: float) -> Outcome:
            if isinstance(command, SetPower):
                return super().apply(command, now_seconds)
            raise DriverError("The weight cache does not answer; restart the agent.")

    counters = Counters()
    actuator = Actuator("n1", Broken(TwoGpus("n1")), VirtualClock(ORIGIN), counters)
    command = pb.Command(id="s", epoch=1, sequence=1, deadline_seconds=ORIGIN + 5)
    command.drop_weights.model = "m"
    unknown = pb.Command(id="u", epoch=1, sequence=2, deadline_seconds=ORIGIN + 5)
    actuator.receive([command, unknown])
    failed, unsupported = actuator.take_acks()
    assert (failed.code, failed.message) == (
        Code.FAILED,
        "The weight cache does not answer; restart the agent.",
    )
    assert unsupported.code == Code.UNSUPPORTED
    assert counters.driver_failures == 1


def test_answers_that_nobody_takes_are_bounded() -> None:
    bench = Bench()
    bench.actuator.receive([power(sequence) for sequence in range(1, ACKS_KEPT + 101)])
    acks = bench.actuator.take_acks()
    assert len(acks) == ACKS_KEPT
    assert acks[0].sequence == 101
    assert bench.counters.acks_dropped == 100
    assert not bench.actuator.has_acks


def test_a_changed_inventory_moves_the_safe_cap_of_a_node_without_lease() -> None:
    class Shrinking(TwoGpus):
        safe = SAFE_WATTS

        def inventory(self) -> Inventory:
            return msgspec.structs.replace(super().inventory(), safe_watts=self.safe)

    physics = Shrinking("n1")
    bench = Bench(physics)
    assert not bench.actuator.refresh_inventory()
    physics.safe = 900
    assert bench.actuator.refresh_inventory()
    assert physics.cap_watts == 900


def test_leaving_gives_the_lease_back() -> None:
    bench = Bench()
    bench.actuator.receive([power(1)])
    bench.actuator.release()
    assert bench.physics.cap_watts == SAFE_WATTS
    assert not bench.actuator.lease.active
