"""Each mechanism of the world beside the run without it: the difference is what its formula says."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from cluster.actions import Migrate
from cluster.serving import Role
from simulator.physics.engine import EngineInstance
from simulator.physics.loading import TIER_BYTES_PER_SECOND, StartSpec, WeightTier
from simulator.physics.network import ALPHA_SECONDS, NicClass, NicSpec
from simulator.physics.power import DEFAULT_POWER, GpuPower, gpu_cap_watts, server_watts
from simulator.physics.roofline import step_cost
from simulator.physics.specs import EngineSpec
from simulator.physics.training import GangNode, TrainingSpec, compute_seconds
from simulator.world import mounting, moving
from simulator.world.parts import Breaking, Buses, Cap, Domain, Hazard, Meter, Parts, Power, Training
from simulator.world.spec import Choice, Delays, Failing, Group, Moving, ScenarioError
from simulator.world.world import World
from tests.physics.worlds import A100, LLAMA_7B, engine_for
from tests.world.test_world import COST, ENGINE, asks, finish_of, prefill, spec

KV = LLAMA_7B.kv_bytes_per_token
FAST = StartSpec(
    weight_bytes=10**9, tier=WeightTier.DRAM, jitter=0.0, container_seconds=1.0, process_seconds=0.0,
    engine_seconds=1.0, warm_up_seconds=0.0,
)  # fmt: skip
IB = NicSpec(NicClass.INFINIBAND, 200e9, 4)
STEP = TrainingSpec(
    parameters=1e9, tokens_per_step=65_536, steps=20, start_seconds=5.0, checkpoint_interval_seconds=1e6,
    checkpoint_seconds=3.0, restore_seconds=4.0,
)  # fmt: skip
ONE = Group(gpu=A100, engine=ENGINE)


def job(**changes: Any) -> Training:
    given = {"name": "llm", "spec": STEP, "nodes": ("t0", "t1"), "gpu": A100, "nic": IB}
    return Training(**(given | changes))


def run(*groups: Group, requests: Any = (), parts: Parts | None = None, **more: Any) -> World:
    world = World(spec(*groups, parts=parts or Parts(), **more), requests)
    assert world.run().complete
    return world


# ---------------------------------------------------------------------------------------------------- PCIe and NICs


@pytest.mark.parametrize(
    ("gpus_per_switch", "per_node"),
    [
        pytest.param(1, 2, id="a switch each: as fast as alone"),
        pytest.param(2, 1, id="a node each: as fast as alone"),
        pytest.param(2, 2, id="one switch: two copies take twice as long"),
    ],
)
def test_copies_behind_one_switch_share_it(gpus_per_switch: int, per_node: int) -> None:
    wire, switch = 100e9, 1e9
    groups = (
        Group(gpu=A100, engine=ENGINE, role=Role.PREFILL, count=2, per_node=per_node),
        Group(gpu=A100, engine=ENGINE, role=Role.DECODE, count=2, per_node=1),
    )
    moving = Moving(bytes_per_second=wire)
    two = asks((0.0, 1000, 2), (0.0, 1000, 2))
    buses = Buses(gpus_per_switch=gpus_per_switch, bytes_per_second=switch)
    free = run(*groups, requests=two, moving=moving)
    held_up = run(*groups, requests=two, moving=moving, parts=Parts(buses=buses))
    times = 2.0 if gpus_per_switch == per_node == 2 else 1.0
    alone = 1001 * KV / wire
    shared = alone * (
        2.0 if per_node == 2 else 1.0
    )  # without switches it is the NIC that two copies of a node share
    more = held_up.book.finished_seconds.max() - free.book.finished_seconds.max()
    assert more == pytest.approx(times * 1001 * KV / switch - shared, rel=1e-6)


@pytest.mark.parametrize(
    ("tier", "together"),
    [
        pytest.param(WeightTier.NVME, 2.0, id="they share the tier"),
        pytest.param(WeightTier.DRAM, 1.0, id="the tier is wide: the narrow switch of each decides"),
    ],
)
def test_loads_of_one_node_share_what_they_have_in_common(tier: WeightTier, together: float) -> None:
    size, switch = 40 * 10**9, 5e9
    start = msgspec.structs.replace(FAST, weight_bytes=size, tier=tier)
    group = Group(gpu=A100, engine=ENGINE, count=2, per_node=2)
    parts = Parts(buses=Buses(gpus_per_switch=1, bytes_per_second=switch))

    def ready(*who: int) -> float:
        failures = tuple(Failing(instance=each, at_seconds=1.0, start=start) for each in who)
        world = run(group, requests=asks((100.0, 100, 2)), failures=failures, parts=parts)
        return max(each.started for each in world.instances)

    rate = min(TIER_BYTES_PER_SECOND[tier], switch)
    assert ready(0) - 1.0 == pytest.approx(1.0 + size / rate + 1.0)
    assert ready(0, 1) - ready(0) == pytest.approx((together - 1.0) * size / rate, abs=1e-6)


def test_a_copy_of_kv_beside_a_load_of_weights_gets_half_of_the_switch() -> None:
    switch = 2e9
    groups = (
        Group(gpu=A100, engine=ENGINE, role=Role.PREFILL),
        Group(gpu=A100, engine=ENGINE, role=Role.DECODE, count=2, per_node=2),
    )
    start = msgspec.structs.replace(FAST, weight_bytes=40 * 10**9)
    parts = Parts(buses=Buses(gpus_per_switch=2, bytes_per_second=switch))
    more = {"parts": parts, "moving": Moving(bytes_per_second=100e9), "requests": asks((3.0, 1000, 2))}
    quiet = run(*groups, **more)
    # The second decode instance loads from second 1 to beyond 20, behind the same switch.
    busy = run(*groups, failures=(Failing(instance=2, at_seconds=0.0, start=start),), **more)
    assert finish_of(busy) - finish_of(quiet) == pytest.approx(1001 * KV / switch, rel=1e-6)
    assert busy.instances[2].alive or busy.starts.stage(busy.instances[2]) is not None


def test_a_load_that_is_given_up_leaves_its_bandwidth() -> None:
    switch = 2e9
    start = msgspec.structs.replace(FAST, weight_bytes=40 * 10**9)
    group = Group(gpu=A100, engine=ENGINE, count=2, per_node=2)
    parts = Parts(buses=Buses(gpus_per_switch=2, bytes_per_second=switch),
                  breaking=(Breaking(node="node-0-00000", gpu=1, at_seconds=6.0, repair_seconds=1e3),))  # fmt: skip
    failures = tuple(Failing(instance=each, at_seconds=0.0, start=start) for each in (0, 1))
    world = run(group, requests=asks((50.0, 100, 2)), failures=failures, parts=parts)
    # Seconds 1 to 6 at half the switch move 5 GB, the other 35 go at all of it.
    assert world.instances[0].started == pytest.approx(6.0 + 35e9 / switch + 1.0)
    assert not world.instances[1].alive


def test_gradients_and_kv_share_the_nic_of_a_node_that_serves_and_trains() -> None:
    groups = (
        Group(gpu=A100, engine=ENGINE, role=Role.PREFILL, per_node=1),
        Group(gpu=A100, engine=ENGINE, role=Role.DECODE, per_node=1),
    )
    wire = 1e9
    moving = Moving(bytes_per_second=wire)
    beside = job(nodes=("node-0-00000", "node-1-00000"), gpus=8)
    compute = compute_seconds(STEP, dict.fromkeys(("a", "b"), GangNode(A100, 8, IB)))
    ring = 2.0 * 1e9 / wire  # 2 (n - 1) / n of the 2 GB of gradients, n = 2
    arrival = STEP.start_seconds + compute + 0.2  # so that the KV is copied in the first exchange
    quiet = run(*groups, requests=asks((arrival, 1000, 2)), moving=moving)
    busy = run(*groups, requests=asks((arrival, 1000, 2)), moving=moving, parts=Parts(training=(beside,)))
    copy = 1001 * KV / wire
    assert finish_of(busy) - finish_of(quiet) == pytest.approx(copy, rel=1e-6)  # half the NIC: twice as long
    (trained,) = busy.jobs.jobs
    alone = 20 * (compute + ring + 2 * ALPHA_SECONDS[NicClass.INFINIBAND]) + STEP.start_seconds
    assert trained.ended == pytest.approx(alone + copy, rel=1e-9)


# ------------------------------------------------------------------------------------------------------ training jobs


def test_an_iteration_is_compute_and_a_ring_over_the_nics() -> None:
    world = run(ONE, parts=Parts(training=(job(),)))
    (done,) = world.jobs.jobs
    nodes = dict.fromkeys(("t0", "t1"), GangNode(A100, 8, IB))
    ring = 2.0 * 1e9 / (4 * 200e9 / 8 * 0.75) + 2 * ALPHA_SECONDS[NicClass.INFINIBAND]
    one = compute_seconds(STEP, nodes) + ring
    assert done.ended == pytest.approx(STEP.start_seconds + 20 * one, rel=1e-9)
    found = mounting.figures(world)
    assert (found["job_llm_steps"], found["job_llm_done"], found["job_llm_failures"]) == (20, 1.0, 0)
    assert found["job_llm_exchange_share"] == pytest.approx(20 * ring / done.ended, rel=1e-9)
    single = run(ONE, parts=Parts(training=(job(nodes=("t0",)),)))
    assert single.jobs.jobs[0].ended == pytest.approx(
        STEP.start_seconds + 20 * compute_seconds(STEP, {"t0": nodes["t0"]})
    )


def test_checkpoints_cost_their_time_and_save_what_a_fault_would_lose() -> None:
    nodes = dict.fromkeys(("t0", "t1"), GangNode(A100, 8, IB))
    ring = 2.0 * 1e9 / (4 * 200e9 / 8 * 0.75) + 2 * ALPHA_SECONDS[NicClass.INFINIBAND]
    one = compute_seconds(STEP, nodes) + ring
    every_five = msgspec.structs.replace(STEP, checkpoint_interval_seconds=4.5 * one)
    ends = {}
    for name, step in (("none", STEP), ("every five steps", every_five)):
        # In the third step after the fifth, which a checkpoint follows or not.
        fault = STEP.start_seconds + 7.5 * one + (STEP.checkpoint_seconds if step is every_five else 0.0)
        for faults in ((), (Breaking(node="t1", gpu=3, at_seconds=fault, repair_seconds=7.0),)):
            world = run(ONE, parts=Parts(training=(job(spec=step),), breaking=faults))
            ends[name, bool(faults)] = world.jobs.jobs[0]
    sound, saved = ends["none", False].ended, ends["every five steps", False].ended
    assert saved - sound == pytest.approx(3 * STEP.checkpoint_seconds)  # after 5, 10 and 15 of 20
    lost, kept = ends["none", True], ends["every five steps", True]
    assert (lost.failures, lost.attempt, lost.lost_steps) == (1, 2, 7)
    assert (kept.failures, kept.attempt, kept.lost_steps) == (1, 2, 2)
    away = 7.0 + 60.0 + STEP.start_seconds
    assert lost.ended - sound == pytest.approx(away + 7.5 * one)
    assert kept.ended - saved == pytest.approx(away + STEP.restore_seconds + 2.5 * one)


def test_a_job_that_fails_too_often_is_given_up_and_one_that_nobody_awaits_is_left_behind() -> None:
    faults = tuple(Breaking(node="t0", at_seconds=at) for at in (6.0, 72.0))
    world = run(ONE, parts=Parts(training=(job(restart_limit=1),), breaking=faults))
    (lost,) = world.jobs.jobs
    assert (lost.given_up, lost.failures, lost.ended, lost.steps) == (True, 2, 72.0, 0)
    assert mounting.figures(world)["node_crash_failures"] == 2
    behind = run(ONE, requests=asks((0.0, 10, 5)), parts=Parts(training=(job(awaited=False),)))
    assert not behind.jobs.jobs[0].over
    assert behind.kernel.now < 5.0


# ---------------------------------------------------------------------------------------------------- broken hardware


@pytest.mark.parametrize(
    ("gpu", "lost"),
    [
        pytest.param(-1, {0, 1}, id="a node takes all its instances"),
        pytest.param(1, {0}, id="a GPU takes the instance that uses it"),
        pytest.param(2, {1}, id="another GPU another one"),
    ],
)
def test_what_breaks_takes_those_that_use_it(gpu: int, lost: set[int]) -> None:
    pair = msgspec.structs.replace(ENGINE, tensor_parallel=2)
    group = Group(gpu=A100, engine=pair, count=4, per_node=2)
    breaking = (Breaking(node="node-0-00000", gpu=gpu, at_seconds=0.5, repair_seconds=2.0, start=FAST),)
    world = run(group, requests=asks(*[(0.0, 1000, 200)] * 4, (60.0, 9, 9)), parts=Parts(breaking=breaking))
    assert world.book.completed == 5
    assert world.book.replayed == len(lost)
    starts = [each.started for each in world.instances]
    ready = 0.5 + 2.0 + 1.0 + 10**9 / TIER_BYTES_PER_SECOND[WeightTier.DRAM] + 1.0
    if len(lost) == 2:  # both load at once from the node's memory
        ready += 10**9 / TIER_BYTES_PER_SECOND[WeightTier.DRAM]
    assert starts == pytest.approx([ready if number in lost else 0.0 for number in range(4)])


def test_an_instance_waits_until_all_that_it_needs_is_sound_again() -> None:
    breaking = (
        Breaking(node="node-0-00000", gpu=0, at_seconds=1.0, repair_seconds=10.0, start=FAST),
        Breaking(node="node-0-00000", at_seconds=2.0, repair_seconds=20.0, start=FAST),
        Breaking(node="node-0-00000", gpu=0, at_seconds=3.0, repair_seconds=1.0),  # broken already
    )
    world = run(ONE, requests=asks((1.5, 100, 2)), parts=Parts(breaking=breaking))
    assert world.instances[0].started == pytest.approx(
        22.0 + 2.0 + 10**9 / TIER_BYTES_PER_SECOND[WeightTier.DRAM]
    )
    assert mounting.figures(world) == {"gpu_xid_failures": 1.0, "node_crash_failures": 1.0}


def test_random_failures_come_as_often_as_their_hazard_says_and_the_same_for_the_same_seed() -> None:
    hazard = Hazard(per_gpu_hour=40.0, gpu_share=0.75, repair_seconds=0.0, start=FAST)
    group = Group(gpu=A100, engine=ENGINE, count=8, per_node=4)
    last = asks((1_800.0, 10, 2))

    def counts(seed: int) -> dict[str, float]:
        return mounting.figures(run(group, requests=last, parts=Parts(hazards=(hazard,)), seed=seed))

    found = counts(1)
    assert found == counts(1) != counts(2)
    total = found["gpu_xid_failures"] + found["node_crash_failures"]
    assert total == pytest.approx(160, abs=4 * 160**0.5)  # 40 an hour on 8 GPUs for half of one
    assert found["gpu_xid_failures"] / total == pytest.approx(0.75, abs=0.15)


# ----------------------------------------------------------------------------------------------------------- watching


def test_what_an_object_says_is_known_a_watch_later() -> None:
    def first_token(watch: float) -> float:
        delays = Delays(watch_seconds=watch)
        failures = (Failing(instance=0, at_seconds=1.0, start=FAST),)
        world = run(ONE, requests=asks((2.0, 1000, 10)), failures=failures, delays=delays)
        return float(world.book.ttft_seconds[0])

    assert first_token(3.0) - first_token(0.5) == pytest.approx(2.5)


@pytest.mark.parametrize(("at", "where"), [(1.05, 0), (1.15, 1)], ids=["not heard of yet", "heard of"])
def test_a_notice_of_reclaim_closes_the_row_when_it_is_heard_of(at: float, where: int) -> None:
    failures = (Failing(instance=0, at_seconds=1.0, notice_seconds=60.0),)
    first = Choice("round_robin")
    group = Group(gpu=A100, engine=ENGINE, count=2)
    world = World(spec(group, failures=failures, dispatch=first), asks((at, 100, 5)))
    world.run()
    chunks = [each.totals()[2] for each in world.instances]
    assert chunks.index(1) == where


def test_the_operator_hears_of_a_death_and_of_the_next_life_a_watch_later() -> None:
    failures = (Failing(instance=0, at_seconds=5.0, start=FAST),)
    world = World(
        spec(failures=failures, migration=Choice("llumnix")), asks(*[(float(n), 50, 20) for n in range(20)])
    )
    heard: list[tuple[float, str, float]] = []
    fold = world.observer.fold

    def listening(event: Any) -> bool:
        if event.source == "watch":
            heard.append((event.delivered_seconds, type(event).__name__, event.observed_seconds))
        return fold(event)

    world.observer.fold = listening  # type: ignore[method-assign]
    world.run()
    up = world.instances[0].started
    assert heard == [(5.1, "Gone", 5.0), (pytest.approx(up + 0.1), "Seen", pytest.approx(up))]


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


# --------------------------------------------------------------------------------------------------------- priorities


@pytest.mark.parametrize(
    ("priority", "last"),
    [(0, 2), (3, 0)],
    ids=["equal: in order of arrival", "higher: before who came before"],
)
def test_the_priority_of_a_request_reaches_its_engine_its_policy_and_its_next_owner(
    priority: int, last: bool
) -> None:
    narrow = engine_for(40_000, max_num_seqs=1)
    requests = asks((0.0, 100, 40), (0.1, 100, 40), (0.2, 100, 40))
    requests[2] = msgspec.structs.replace(requests[2], priority=priority)
    group = Group(gpu=A100, engine=narrow)
    world = World(spec(group, failures=(Failing(instance=0, at_seconds=0.3, start=FAST),)), requests)
    asked: list[int] = []
    decide = world.services[0].dispatch.decide

    class Asked:
        def decide(self, view: Any, state: Any, ctx: Any) -> Any:
            asked.append(view.request.priority)
            return decide(view, state, ctx)

    world.services[0].dispatch = Asked()
    world.run()
    assert asked[:3] == [0, 0, priority]
    assert world.book.priorities.tolist() == ([0, 0, 0] if last else [0, 3, 0])
    assert np.diff(world.book.finished_seconds).min() > 0.0
    assert [world.book.arrived_of(each) for each in (0, 3)] == ([3, 0] if priority == 0 else [2, 1])
    one = prefill(100) + COST.run_seconds(1, 101, 39)
    assert np.diff(np.sort(world.book.finished_seconds))[-1] == pytest.approx(one, rel=1e-6)


def test_who_is_refused_is_counted_with_its_priority() -> None:
    lost = spec(ONE, failures=(Failing(instance=0, at_seconds=0.5),), hold_seconds=5.0)
    request = msgspec.structs.replace(asks((1.0, 100, 5))[0], priority=7)
    world = World(lost, [request])
    world.run()
    assert (world.book.refused_of[7], world.book.arrived_of(7)) == (1, 1)


# ------------------------------------------------------------------------------------------------- reclaims and starts


@pytest.mark.parametrize(
    ("notice", "replayed"),
    [(10.0, 0), (0.2, 1), (0.0, 1)],
    ids=["time enough", "too short", "without a word"],
)
def test_a_reclaim_costs_nothing_who_can_end_within_its_notice(notice: float, replayed: int) -> None:
    failures = (Failing(instance=0, at_seconds=0.5, notice_seconds=notice),)
    still = run(requests=asks((0.0, 1000, 200)))
    world = run(failures=failures, requests=asks((0.0, 1000, 200)))
    assert world.book.replayed == replayed
    if not replayed:
        assert finish_of(world) == finish_of(still)
        return
    death, done = 0.5 + notice, 1
    while prefill(1000) + COST.run_seconds(1, 1001, done) <= death:
        done += 1  # tokens that were out: they are computed again as prompt elsewhere
    again = prefill(1000 + done) + COST.run_seconds(1, 1000 + done + 1, 200 - done - 1)
    assert finish_of(world) - finish_of(still) == pytest.approx(death + again - finish_of(still), rel=1e-9)


@pytest.mark.parametrize(
    ("notice", "replayed"),
    [(10.0, 0), (0.2, 2), (0.0, 2)],
    ids=["time enough", "too short", "without a word"],
)
def test_the_reclaim_of_a_node_takes_all_of_it_when_its_notice_is_over(notice: float, replayed: int) -> None:
    group = Group(gpu=A100, engine=ENGINE, count=4, per_node=2)
    breaking = (Breaking(node="node-0-00000", at_seconds=0.5, notice_seconds=notice),)
    requests = asks(*[(0.0, 1000, 200)] * 4, *[(1.0, 1000, 5)] * 6, (20.0, 5, 5))
    world = run(group, requests=requests, parts=Parts(breaking=breaking))
    assert world.book.replayed == replayed
    chunks = [each.totals()[2] for each in world.instances]
    assert chunks[:2] == [1, 1]  # what came after the notice went to the other node
    assert [each.alive for each in world.instances] == [False, False, True, True]


def test_reclaims_at_random_are_a_hazard_of_nodes_with_a_notice() -> None:
    hazard = Hazard(per_gpu_hour=20.0, gpu_share=0.0, notice_seconds=30.0, repair_seconds=5.0, start=FAST)
    world = run(ONE, requests=asks((3_600.0, 5, 5)), parts=Parts(hazards=(hazard, hazard)))
    found = mounting.figures(world)
    assert found["gpu_xid_failures"] == 0
    # One GPU for an hour under two hazards; what falls into another's repair takes nothing more.
    assert found["node_crash_failures"] == pytest.approx(40, abs=4 * 40**0.5)


@pytest.mark.parametrize(
    ("changed", "more"),
    [
        pytest.param({}, 0.0, id="a warm node"),
        pytest.param({"image_bytes": 10**9, "image_bytes_per_second": 1e8}, 10.0, id="the image is pulled"),
        pytest.param({"container_seconds": 4.0}, 3.0, id="a slower container"),
        pytest.param({"process_seconds": 5.0}, 5.0 - 10**9 / 21e9, id="a process that outlasts its weights"),
        pytest.param({"tier": WeightTier.NVME}, 10**9 / 3.6e9 - 10**9 / 21e9, id="weights from NVMe"),
        pytest.param({"engine_seconds": 20.0}, 19.0, id="compilation"),
        pytest.param({"warm_up_seconds": 2.5}, 2.5, id="warm-up"),
    ],
)
def test_each_stage_of_a_cold_start_costs_its_time(changed: dict[str, Any], more: float) -> None:
    def ready(start: StartSpec) -> float:
        failures = (Failing(instance=0, at_seconds=1.0, start=start),)
        return run(ONE, requests=asks((60.0, 10, 2)), failures=failures).instances[0].started

    assert ready(msgspec.structs.replace(FAST, **changed)) - ready(FAST) == pytest.approx(more, abs=1e-9)


def test_a_request_may_move_again_while_the_copy_of_a_move_that_failed_is_under_way() -> None:
    failures = (Failing(instance=1, at_seconds=0.6, start=FAST),)
    wire = Moving(bytes_per_second=2e8, lag_tokens=64, stages=9)
    world = World(spec(failures=failures, moving=wire), asks((0.0, 1000, 2_000)))

    def go(at: float, _subject: None, there: World) -> Any:
        source = there.book.open[0].instance
        target = next(each for each in there.instances if each is not source)
        action = Migrate(
            reason=0, sequence="0", epoch=1, source=source.name, target=target.name, mode="kv", reserve_tokens=0,
            deadline_seconds=at + 60.0,
        )  # fmt: skip
        return moving.begin(at, action, there)

    world.kernel.push((0.5, go, None))
    world.kernel.push((2.9, go, None))  # the first copy, of 2.6 s, is still on its way to where nobody is
    outcome = world.run()
    assert (outcome.completed, outcome.output_tokens) == (1, 2_000)
    assert outcome.migrations + outcome.migrations_aborted == 2
