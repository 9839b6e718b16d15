"""Watts by phase, what a cap costs and hides, meters, and what of the mechanisms cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster.serving import Role
from simulator.physics.engine import EngineInstance
from simulator.physics.power import DEFAULT_POWER, GpuPower, gpu_cap_watts, server_watts
from simulator.physics.roofline import step_cost
from simulator.physics.specs import EngineSpec
from simulator.physics.training import GangNode, compute_seconds
from simulator.world import mounting
from simulator.world.parts import Breaking, Buses, Cap, Domain, Hazard, Meter, Parts, Power
from simulator.world.spec import Failing, Group, ScenarioError
from simulator.world.world import World
from tests.physics.worlds import A100, LLAMA_7B, engine_for
from tests.world.test_world import COST, ENGINE, asks, finish_of, prefill, spec
from tests.world.worlds import FAST, IB, KV, ONE, STEP, job, run

# -------------------------------------------------------------------------------------------------------------- power

GPU = GpuPower(A100)
SERVER = DEFAULT_POWER.server_watts_per_gpu_watt
BASE = DEFAULT_POWER.server_base_watts_per_gpu


def powered(**more: Any) -> Parts:
    return Parts(power=Power(every_seconds=0.5, **more))


def test_energy_is_that_of_the_phases_and_adds_up() -> None:
    world = run(ONE, requests=asks((1.0, 2000, 301)), parts=powered())
    found, seconds = mounting.figures(world), world.kernel.now
    decoding, prompt = COST.run_seconds(1, 2001, 300), prefill(2000)
    share = 300 * COST.matmul / decoding
    held = GPU.held()
    decode_watts = held.decode_watts + held.decode_compute_watts * share
    assert found["joules_prefill"] == pytest.approx(prompt * held.prefill_watts, rel=1e-9)
    assert found["joules_decode"] == pytest.approx(decoding * decode_watts, rel=1e-9)
    assert found["joules_idle"] == pytest.approx((seconds - prompt - decoding) * A100.idle_watts, rel=1e-9)
    boards = found["joules_prefill"] + found["joules_decode"] + found["joules_idle"]
    assert found["joules"] == pytest.approx(SERVER * boards + BASE * seconds, rel=1e-9)
    assert found["joules_per_token"] == pytest.approx(found["joules"] / 301)
    series = mounting.series(world, 120)
    width = series["watts_seconds"][1] - series["watts_seconds"][0]
    assert sum(series["watts_node_node-0-00000"][:-1]) * width < found["joules"]
    assert sum(
        sum(series[f"watts_phase_{name}"][:4]) for name in ("idle", "prefill", "decode", "server")
    ) == (pytest.approx(sum(series["watts_node_node-0-00000"][:4])))
    assert "joules" not in mounting.figures(run(ONE, requests=asks((1.0, 2000, 301))))


@pytest.mark.parametrize(
    ("watts", "clock_mhz"),
    [
        pytest.param(0, 1110, id="clocks locked"),
        pytest.param(round(BASE + SERVER * 300), 0, id="a limit that bites in prefill alone"),
        pytest.param(round(BASE + SERVER * 180), 0, id="a limit that bites in both"),
    ],
)
def test_a_cap_costs_the_time_of_a_slower_clock_and_keeps_to_its_watts(watts: int, clock_mhz: int) -> None:
    cap = Cap(at_seconds=0.0, watts=watts, clock_mhz=clock_mhz)
    request = asks((1.0, 2000, 301))
    free, capped = (
        run(ONE, requests=request, parts=Parts(power=Power(every_seconds=0.02, caps=caps)))
        for caps in ((), (cap,))
    )
    each = gpu_cap_watts(A100, watts, 1, DEFAULT_POWER) if watts else A100.max_watts
    held = GPU.held(each, clock_mhz or None)
    slow, fast = (
        step_cost(A100, LLAMA_7B, EngineSpec(), clock) for clock in (held.prefill_clock, held.decode_clock)
    )
    assert capped.book.ttft_seconds[0] == pytest.approx(slow.seconds(0, 2000, 0, 2_000_000.0), rel=1e-9)
    assert capped.book.tpot_seconds[0] == pytest.approx(fast.run_seconds(1, 2001, 300) / 300, rel=1e-9)
    assert capped.book.tpot_seconds[0] >= free.book.tpot_seconds[0]
    assert capped.book.ttft_seconds[0] > free.book.ttft_seconds[0]
    if watts:
        most = server_watts(each, 1)
        assert mounting.figures(capped)["watts_peak"] <= most * (1 + 1e-9)
        assert mounting.figures(free)["watts_peak"] > most
    assert mounting.figures(capped)["joules_prefill"] != mounting.figures(free)["joules_prefill"]


def test_a_cap_ends_and_an_engine_that_starts_under_one_runs_at_its_clock() -> None:
    cap = Cap(at_seconds=0.0, clock_mhz=705, node="node-0-00000", until_seconds=50.0)
    failures = (Failing(instance=0, at_seconds=5.0, start=FAST),)
    world = run(
        ONE, requests=asks((20.0, 2000, 2), (60.0, 2000, 2)), failures=failures, parts=powered(caps=(cap,))
    )
    slow = step_cost(A100, LLAMA_7B, EngineSpec(), 705 / 1410)
    clocks = mounting.series(world, 120)["mhz_decode"]
    assert {705, 1410} == {round(mhz) for mhz in clocks if min(abs(mhz - 705), abs(mhz - 1410)) < 1}
    assert world.book.ttft_seconds.tolist() == pytest.approx(
        [slow.seconds(0, 2000, 0, 2_000_000.0), prefill(2000)], rel=1e-9
    )


def test_a_cap_slows_training_by_its_clock_and_its_watts_are_booked() -> None:
    cap = Cap(at_seconds=0.0, clock_mhz=1110, domain="row")
    row = Domain(name="row", rating_watts=10_000, nodes=("t0", "t1"))
    ends, joules = [], []
    for caps in ((), (cap,)):
        world = run(ONE, parts=Parts(training=(job(),), power=Power(domains=(row,), caps=caps)))
        (done,) = world.jobs.jobs
        ends.append(done.ended)
        joules.append(mounting.figures(world))
    nodes = dict.fromkeys(("t0", "t1"), GangNode(A100, 8, IB))
    compute = 20 * compute_seconds(STEP, nodes)
    assert ends[1] - ends[0] == pytest.approx(compute * ((1410 / 1110) ** 0.4 - 1.0), rel=1e-9)
    assert joules[0]["joules_training"] == pytest.approx(16 * compute * GPU.held().training_watts, rel=1e-9)
    slow = GPU.held(lock_mhz=1110)
    assert joules[1]["joules_training"] == pytest.approx(
        16 * compute * (1410 / 1110) ** 0.4 * slow.training_watts, rel=1e-9
    )
    assert joules[1]["peak_share_row"] < joules[0]["peak_share_row"]


def test_sensors_tell_means_and_what_the_same_work_would_draw_without_the_cap() -> None:
    cap = Cap(at_seconds=0.0, clock_mhz=1110)
    world = World(spec(ONE, parts=powered(caps=(cap,))), asks((1.0, 2000, 301), (30.0, 5, 5)))
    readings: list[Any] = []

    def look(at: float, _subject: None, there: World) -> Any:
        drawing = there.drawing
        assert drawing is not None
        readings.append(drawing.read(drawing.draws["node-0-00000"], at, there))
        return ((at + 2.0, look, None),)

    world.kernel.push((2.0, look, None))
    world.run()
    slow, held, free = (
        step_cost(A100, LLAMA_7B, EngineSpec(), 1110 / 1410),
        GPU.held(lock_mhz=1110),
        GPU.held(),
    )
    prompt = slow.seconds(0, 2000, 0, 2_000_000.0)
    share = slow.matmul / slow.seconds(1, 0, 2030, 0.0)
    for watts, power in ((readings[0].watts, held), (readings[0].uncapped_watts, free)):
        decode = power.decode_watts + power.decode_compute_watts * share
        boards = A100.idle_watts + prompt * power.prefill_watts + (1.0 - prompt) * decode
        assert watts == pytest.approx(BASE + SERVER * boards / 2.0, rel=2e-3)
    assert readings[0].utilisation == pytest.approx(0.5, rel=1e-6)
    assert readings[-1].watts == pytest.approx(server_watts(A100.idle_watts, 1), rel=1e-6)
    assert readings[-1].utilisation == 0.0


def test_who_leaves_an_engine_whose_clock_rises_leaves_as_soon_as_it_is_done() -> None:
    groups = (
        Group(gpu=A100, engine=ENGINE, role=Role.PREFILL),
        Group(gpu=A100, engine=ENGINE, role=Role.DECODE),
    )
    cap = Cap(at_seconds=0.0, clock_mhz=510, node="node-0-00000", until_seconds=1.5)
    parts = Parts(power=Power(caps=(cap,), actuation_seconds=0.0))
    world = run(*groups, requests=asks((1.0, 9000, 20)), parts=parts)
    alone = EngineInstance(A100, LLAMA_7B, ENGINE, 0.0)
    alone.set_speed(510 / 1410)
    alone.submit(0, 9000, 20, 1.0, hand_over=True)
    events = alone.advance_to(1.5)
    alone.set_speed(1.0)
    events += alone.advance_to(9.0)
    left = events[-1].at_seconds
    moved = 9001 * KV / world.spec.moving.bytes_per_second + world.spec.moving.commit_seconds
    rest = COST.seconds(0, 1, 0, 9000.5) + COST.run_seconds(1, 9002, 18)
    assert finish_of(world) == pytest.approx(left + moved + rest, rel=1e-9)


def test_a_node_that_is_down_draws_nothing() -> None:
    group = Group(gpu=A100, engine=ENGINE, count=2, per_node=1)
    breaking = (Breaking(node="node-1-00000", at_seconds=1.0),)
    away = (Breaking(node="node-0-00001", at_seconds=2.0, repair_seconds=6.0),)
    last = asks((20.0, 10, 2))
    sound, down = (
        run(group, requests=last, parts=Parts(power=Power(), breaking=faults)) for faults in ((), away)
    )
    more = mounting.figures(sound)["joules"] - mounting.figures(down)["joules"]
    assert more == pytest.approx(6.0 * server_watts(A100.idle_watts, 1), rel=1e-9)
    with pytest.raises(ScenarioError, match=r"breaking\[0\]\.node is 'node-1-00000'; known are"):
        World(spec(group, parts=Parts(breaking=breaking)), ())


def test_a_meter_tells_the_mean_of_its_period_late() -> None:
    row = Domain(name="row", rating_watts=5_000)
    part = Domain(name="rack", rating_watts=3_000, parent="row", groups=(0,))
    meter = Meter(every_seconds=4.0, delay_seconds=3.0)
    world = World(
        spec(ONE, parts=Parts(power=Power(domains=(row, part), meter=meter))),
        asks((1.0, 2000, 301), (30.0, 5, 5)),
    )
    told: list[Any] = []
    fold = world.observer.fold
    world.observer.fold = lambda event: told.append(event) or fold(event)  # type: ignore[method-assign, func-returns-value]
    world.run()
    reports = [each for each in told if each.source == "meters" and each.domain == "row"]
    ages = {each.delivered_seconds - each.observed_seconds for each in reports}
    assert ages == {3.0}
    assert [each.observed_seconds for each in reports[:3]] == [4.0, 8.0, 12.0]
    found = GPU.held()
    decoded = 3.0 - prefill(2000)
    share = COST.matmul / COST.seconds(1, 0, 2001, 0.0)
    watts = A100.idle_watts + prefill(2000) * found.prefill_watts
    watts += decoded * (found.decode_watts + found.decode_compute_watts * share)
    assert reports[0].columns["meter_watts"] == pytest.approx(BASE + SERVER * watts / 4.0, rel=1e-3)
    assert world.observer.domain_rows.get("rack", "meter_watts") == pytest.approx(
        reports[-1].columns["meter_watts"]
    )


def test_a_run_without_any_of_it_is_the_run_it_was() -> None:
    crowd = asks(*[(0.05 * n, 300, 80) for n in range(60)])
    plain = World(spec(), crowd).run()
    booked = World(spec(parts=Parts(power=Power())), crowd).run()
    same = [name for name in plain.__struct_fields__ if name not in {"events", "utilisation", "seconds"}]
    assert [getattr(plain, name) for name in same] == [getattr(booked, name) for name in same]
    assert booked.utilisation == pytest.approx(plain.utilisation)


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        (Parts(buses=Buses(gpus_per_switch=0)), "buses.gpus_per_switch"),
        (Parts(training=(job(nodes=()),)), "jobs[0].nodes"),
        (Parts(training=(job(nodes=("a", "a")),)), "jobs[0].nodes"),
        (Parts(training=(job(), job())), "jobs"),
        (Parts(training=(job(gpus=0),)), "jobs[0].gpus"),
        (Parts(breaking=(Breaking(node="node-0-00000", gpu=-2, at_seconds=1.0),)), "breaking[0].gpu"),
        (Parts(breaking=(Breaking(node="node-0-00000", gpu=9, at_seconds=1.0),)), "breaking[0].gpu"),
        (Parts(breaking=(Breaking(node="node-0-00000", at_seconds=-1.0),)), "breaking[0].at_seconds"),
        (Parts(hazards=(Hazard(gpu_share=1.5),)), "random_failures[0].gpu_share"),
        (Parts(hazards=(Hazard(nodes=("moon",)),)), "random_failures[0].nodes"),
        (powered(caps=(Cap(at_seconds=-1.0),)), "power.caps[0].at_seconds"),
        (powered(caps=(Cap(at_seconds=1.0, domain="x"),)), "power.caps[0].domain"),
        (powered(caps=(Cap(at_seconds=1.0, node="x"),)), "power.caps[0].node"),
        (powered(caps=(Cap(at_seconds=1.0, until_seconds=1.0),)), "power.caps[0].until_seconds"),
        (powered(domains=(Domain(name="a", rating_watts=0),)), "power.domains[0].rating_watts"),
        (powered(domains=(Domain(name="a", rating_watts=1, parent="b"),)), "power.domains[0].parent"),
        (powered(domains=(Domain(name="a", rating_watts=1, groups=(3,)),)), "power.domains[0].groups"),
        (powered(domains=(Domain(name="a", rating_watts=1, nodes=("x",)),)), "power.domains[0].nodes"),
        (powered(domains=(Domain(name="a", rating_watts=1),) * 2), "power.domains"),
        (Parts(power=Power(every_seconds=100.0)), "power.every_seconds"),
        (Parts(power=Power(meter=Meter(every_seconds=0.0))), "power.meter.every_seconds"),
    ],
)  # fmt: skip
def test_a_mechanism_that_cannot_be_is_refused_by_its_field(parts: Parts, path: str) -> None:
    with pytest.raises(ScenarioError) as refused:
        World(spec(parts=parts), ())
    assert refused.value.path == path


def test_long_runs_keep_their_watts_in_wider_bins() -> None:
    world = run(ONE, requests=asks((5_000.0, 10, 2)), parts=Parts(power=Power(every_seconds=0.5)))
    series = mounting.series(world, 10_000)
    assert len(series["watts_seconds"]) <= 2_048
    total = np.array(series["watts_phase_idle"]) + np.array(series["watts_phase_server"])
    assert total[:-1] == pytest.approx(server_watts(A100.idle_watts, 1), rel=1e-6)
    assert engine_for(1_000) is not None
