"""Meters, clock ladders, settings that lag, streams of failures, refusals in words, and ends of lives."""

from __future__ import annotations

import math

import pytest

from simulator.physics.catalogue import A100_80, L4
from simulator.physics.clocks import LaggedSetting, ladder_mhz, snap_mhz
from simulator.physics.engine import EngineInstance
from simulator.physics.failures import FailureKind, FailureSource
from simulator.physics.meter import GpuMeter, GpuReading
from simulator.physics.network import NicClass, NicSpec
from simulator.physics.rendezvous import CheckpointVault, JoinResult, Rendezvous
from simulator.physics.sequence import Refusal, RefusalCode, refuse, refuse_stopped
from simulator.physics.server import NodeSpec
from simulator.physics.training import Gang, GangNode, GangPhase, TrainingSpec
from tests.physics.worlds import A100, LLAMA_7B, engine_for


def test_a_meter_gives_means_since_its_last_reading_and_energy_since_its_start() -> None:
    meter = GpuMeter(16.0)
    assert meter.read() == GpuReading(16.0, 16.0, 1.0, 0.0, 0.0)
    meter.add(3.0, 100.0, 200.0, 0.5, 1.0)
    meter.add(1.0, 20.0, 40.0, 1.0, 0.0)
    assert meter.read() == GpuReading(80.0, 160.0, 0.625, 0.75, 320.0)
    assert meter.read() == GpuReading(80.0, 160.0, 0.625, 0.75, 320.0)
    meter.add(2.0, 10.0, 10.0, 1.0, 0.5)
    assert meter.read() == GpuReading(10.0, 10.0, 1.0, 0.5, 340.0)
    assert meter.energy_joules == 340.0


def test_a_ladder_rises_by_steps_and_ends_at_the_greatest_clock() -> None:
    ladder = ladder_mhz(L4)
    assert ladder[:3] == (210, 225, 240)
    assert ladder[-2:] == (2_025, 2_040)
    assert len(ladder) == len(set(ladder)) == 123
    assert list(ladder) == sorted(ladder)
    assert [snap_mhz(L4, mhz) for mhz in (0.0, 210.0, 224.9, 225.0, 2_039.9, 2_040.0, 9_999.0)] == [
        210, 210, 210, 225, 2_025, 2_040, 2_040,
    ]  # fmt: skip


def test_commands_land_after_their_lag_in_their_order() -> None:
    setting = LaggedSetting("a", 2.0)
    assert (setting.next_event_seconds(), setting.target) == (math.inf, "a")
    setting.command("b", 1.0)
    setting.command("c", 1.5)
    assert (setting.value, setting.target, setting.next_event_seconds()) == ("a", "c", 3.0)
    assert not setting.advance_to(2.9)
    assert setting.advance_to(3.0)
    assert (setting.value, setting.target, setting.next_event_seconds()) == ("b", "c", 3.5)
    setting.command("b", 1.6)
    assert not setting.advance_to(9.0), "it ends where it was"
    assert setting.value == "b"


def test_a_setting_without_a_lag_lands_at_once_and_none_lands_before() -> None:
    setting = LaggedSetting(1)
    setting.command(2, 5.0)
    assert setting.advance_to(5.0)
    with pytest.raises(ValueError, match=r"^lag_seconds is -0.1; a setting cannot land before it is made$"):
        LaggedSetting(1, -0.1)


def test_the_stream_of_a_seed_never_changes() -> None:
    source = FailureSource(
        1, gpus={"n0": 8}, rates_per_gpu_hour={FailureKind.GPU_XID: 0.05}, started_seconds=100.0
    )
    first = source.advance_to(1e6)[0]
    assert (round(first.at_seconds, 3), first.node, first.kind, first.gpu) == (
        7860.372,
        "n0",
        FailureKind.GPU_XID,
        5,
    )
    assert source.now == 1e6


def test_failures_at_one_instant_come_by_node_then_kind_and_time_never_runs_back() -> None:
    from_past = FailureSource(
        0, gpus={"n0": 1}, rates_per_gpu_hour={FailureKind.HANG: 0.0}, started_seconds=50.0
    )
    assert from_past.advance_to(10.0) == []
    assert from_past.now == 50.0


@pytest.mark.parametrize("rate", [-0.1, math.inf, math.nan], ids=str)
def test_a_rate_that_cannot_be_is_refused_by_kind(rate: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^the rate of hang is {rate} per GPU-hour; it must be finite, not negative$"
    ):
        FailureSource(0, gpus={"n": 1}, rates_per_gpu_hour={FailureKind.HANG: rate})


@pytest.mark.parametrize(
    ("prompt", "output", "code", "message"),
    [
        (0, 5, RefusalCode.MALFORMED, "request 7 has 0 prompt and 5 output tokens; it needs at least one prompt token and no negative output"),
        (1, -1, RefusalCode.MALFORMED, "request 7 has 1 prompt and -1 output tokens; it needs at least one prompt token and no negative output"),
        (60, 41, RefusalCode.TOO_LONG, "request 7 needs 60 prompt + 41 output tokens, but this engine holds at most 100; shorten it or serve the model on more GPU memory"),
        (60, 40, RefusalCode.DUPLICATE, "request 7 is already here; cancel it before you send it again"),
        (1, 0, RefusalCode.DUPLICATE, "request 7 is already here; cancel it before you send it again"),
    ],
    ids=["no prompt", "a negative output", "one token too long", "here already, at the limit", "here already, at its least"],
)  # fmt: skip
def test_a_refusal_is_a_sentence_about_its_request(
    prompt: int, output: int, code: RefusalCode, message: str
) -> None:
    assert refuse(7, prompt, output, 100) == Refusal(7, code, message)


@pytest.mark.parametrize(("stopped", "code"), [(True, RefusalCode.STOPPED), (False, RefusalCode.DRAINING)])
def test_an_engine_that_ends_takes_no_new_requests(stopped: bool, code: RefusalCode) -> None:
    message = f"the engine is {code.value} and takes no new requests; send request 7 to another one"
    assert refuse_stopped(7, stopped) == Refusal(7, code, message)


def test_an_engine_says_when_it_next_changes_by_itself() -> None:
    engine = EngineInstance(A100, LLAMA_7B, engine_for(40_000))
    assert engine.next_event_seconds() == math.inf
    engine.submit(1, 100, 5, 30.0)
    engine.submit(2, 100, 5, 20.0)
    assert engine.next_event_seconds() == 20.0
    engine.advance_to(20.0)
    boundary = engine.next_event_seconds()
    assert 20.0 < boundary < 30.0
    engine.advance_to(29.0)
    assert engine.next_event_seconds() == 30.0
    engine.advance_to(99.0)
    assert engine.next_event_seconds() == math.inf


def test_a_gang_of_one_meets_itself() -> None:
    meeting = Rendezvous("job-1", "r1", 1, 1)
    assert meeting.join("pod", 0, "r1", 1, 5.0) is JoinResult.COMPLETE
    assert (meeting.complete, meeting.joins, meeting.complete_seconds) == (True, 1, 5.0)
    with pytest.raises(ValueError, match=r"^rendezvous r1 of job job-1 has size 0; it needs a rank$"):
        Rendezvous("job-1", "r1", 1, 0)


def test_an_attempt_restored_at_the_last_step_is_done_at_once() -> None:
    vault = CheckpointVault()
    vault.save("job-1", 1, 50, 0.0)
    spec = TrainingSpec(parameters=7e9, tokens_per_step=524_288, steps=50, checkpoint_interval_seconds=100.0)
    members = {"n0": GangNode(A100_80, 8, NicSpec(NicClass.INFINIBAND, 200e9, 4))}
    gang = Gang("job-1", 2, spec, members, vault, 10.0)
    gang.advance_node("n0", 1e5)
    assert (gang.phase, gang.step, gang.checkpoint_step) == (GangPhase.DONE, 50, 50)


def test_a_server_counts_whole_watts_that_cover_it() -> None:
    spec = NodeSpec(name="n", gpu=L4, gpus=4, nic=NicSpec(NicClass.ETHERNET, 25e9))
    assert spec.base_watts == spec.max_watts - 4 * 72
    assert spec.min_watts < spec.max_watts
    assert isinstance(spec.min_watts, int)
    for change in ({"gpus": 0}, {"speed": 0.0}, {"speed": math.nan}):
        with pytest.raises(
            ValueError, match=rf"^{next(iter(change))} of node n is .*; it must be a positive finite number$"
        ):
            NodeSpec(**{"name": "n", "gpu": L4, "gpus": 4, "nic": spec.nic, **change})
