"""What a tick says: dead bands against what was told, whole sections, heartbeats."""

from __future__ import annotations

import msgspec
import pytest

from agent.node.actuator import Actuator
from agent.node.counters import Counters
from agent.node.drivers.base import GangState, GpuReadings, InstanceState, ReplicaState, Sample, WeightState
from agent.node.drivers.simulated import SimulatedDriver
from agent.node.reporter import DeadBand, Reporter
from runtime.clock import VirtualClock
from tests.hub.support import ORIGIN, TwoGpus
from wire import agent_pb2 as pb

GPUS = GpuReadings(
    watts=(300.0, 600.0),
    cap_watts=(650, 650),
    clock_mhz=(1_500, 1_500),
    utilisation=(0.5, 0.5),
    memory_used_bytes=(1 << 34, 1 << 34),
    temperature_celsius=(50.0, None),
    energy_millijoules=(1, 1),
    throttle_bits=(0, 0),
)
BASE = Sample(node_watts=1_500.0, gpus=GPUS, replicas=(ReplicaState(name="a/b", phase="ready"),))


class Station:
    """A reporter with its actuator, that was told `BASE` already."""

    def __init__(self) -> None:
        self.clock = VirtualClock(ORIGIN)
        self.counters = Counters()
        self.actuator = Actuator("n1", SimulatedDriver(TwoGpus("n1")), self.clock, self.counters)
        self.reporter = Reporter(DeadBand(), self.counters)
        self.now = ORIGIN
        assert self.tick(BASE) is not None

    def tick(self, sample: Sample, heartbeat_seconds: float = 5.0) -> pb.Report | None:
        self.now += 1.0
        report = pb.Report()
        return (
            report if self.reporter.fill(report, sample, self.actuator, self.now, heartbeat_seconds) else None
        )


def with_gpus(**columns: object) -> Sample:
    return msgspec.structs.replace(BASE, gpus=msgspec.structs.replace(GPUS, **columns))


@pytest.mark.parametrize(
    ("sample", "news"),
    [
        pytest.param(BASE, False, id="nothing"),
        pytest.param(with_gpus(watts=(304.9, 600.0)), False, id="watts inside the band"),
        pytest.param(with_gpus(watts=(305.1, 600.0)), True, id="watts beyond the band"),
        pytest.param(with_gpus(watts=(300.0, 605.9)), False, id="watts inside one hundredth"),
        pytest.param(with_gpus(watts=(300.0, 606.1)), True, id="watts beyond one hundredth"),
        pytest.param(
            msgspec.structs.replace(BASE, node_watts=1_515.1), True, id="node watts beyond one hundredth"
        ),
        pytest.param(with_gpus(cap_watts=(650, 649)), True, id="any change of a cap"),
        pytest.param(with_gpus(clock_mhz=(1_500, 1_485)), False, id="one clock step"),
        pytest.param(with_gpus(clock_mhz=(1_500, 1_470)), True, id="two clock steps"),
        pytest.param(with_gpus(utilisation=(0.53, 0.5)), True, id="utilisation"),
        pytest.param(with_gpus(memory_used_bytes=((1 << 34) + (1 << 25), 1 << 34)), False, id="32 MiB"),
        pytest.param(with_gpus(memory_used_bytes=((1 << 34) + (1 << 27), 1 << 34)), True, id="128 MiB"),
        pytest.param(with_gpus(temperature_celsius=(50.0, 50.0)), True, id="a sensor that answers again"),
        pytest.param(with_gpus(watts=(None, 600.0)), True, id="a sensor that fell silent"),
        pytest.param(with_gpus(energy_millijoules=(9, 9)), False, id="the energy counter alone"),
        pytest.param(with_gpus(throttle_bits=(4, 0)), True, id="a throttle reason"),
        pytest.param(with_gpus(watts=(300.0,)), True, id="a device less"),
    ],
)
def test_what_is_news_in_the_columns(sample: Sample, news: bool) -> None:
    report = Station().tick(sample)
    assert (report is not None) == news
    if report is not None:
        assert report.telemetry.HasField("gpus")
        assert not report.telemetry.HasField("replicas")
        assert not report.HasField("inventory")


def test_a_slow_drift_is_told_once_it_adds_up() -> None:
    station = Station()
    told = [station.tick(with_gpus(watts=(300.0 + step, 600.0)), 100.0) is not None for step in range(1, 13)]
    assert told == [False] * 5 + [True] + [False] * 5 + [True]


@pytest.mark.parametrize(
    ("section", "changed"),
    [
        pytest.param("replicas", {"replicas": ()}, id="a replica is gone: the empty section is sent"),
        pytest.param("instances", {"instances": (InstanceState(name="a/b", running=1),)}, id="an engine"),
        pytest.param(
            "gangs",
            {
                "gangs": (
                    GangState(job="a/j", job_uid="u", attempt=1, ranks=8, ranks_joined=3, phase="forming"),
                )
            },
            id="a gang",
        ),
        pytest.param(
            "weights",
            {"weights": (WeightState(model="m", tier="dram", bytes=1, state="staging"),)},
            id="weights",
        ),
    ],
)
def test_row_sections_go_whole_and_alone(section: str, changed: dict[str, object]) -> None:
    report = Station().tick(msgspec.structs.replace(BASE, **changed))
    assert report is not None
    assert [field.name for field, _ in report.telemetry.ListFields()] == [section]


def test_heartbeats_keep_their_time() -> None:
    station = Station()
    told = [station.tick(BASE, 3.0) is not None for _ in range(7)]
    assert told == [False, False, True, False, False, True, False]
    assert station.counters.heartbeats == 2


def test_a_new_stream_is_told_everything() -> None:
    station = Station()
    station.reporter.forget()
    report = station.tick(BASE)
    assert report is not None
    assert report.HasField("inventory")
    assert {field.name for field, _ in report.telemetry.ListFields()} == {
        "node_watts", "gpus", "lease", "replicas", "instances", "gangs", "weights", "counters",
    }  # fmt: skip


def test_missing_readings_survive_the_wire() -> None:
    station = Station()
    report = station.tick(with_gpus(clock_mhz=(None, 900), memory_used_bytes=(None, 5)))
    assert report is not None
    assert list(report.telemetry.gpus.clock_mhz) == [0xFFFFFFFF, 900]
    assert list(report.telemetry.gpus.memory_used_bytes) == [0xFFFFFFFFFFFFFFFF, 5]
