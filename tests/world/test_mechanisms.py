"""Copies, loads and training beside the run without them: the difference is what its formula says."""

from __future__ import annotations

import msgspec
import pytest

from cluster.serving import Role
from simulator.physics.loading import TIER_BYTES_PER_SECOND, WeightTier
from simulator.physics.network import ALPHA_SECONDS, NicClass
from simulator.physics.training import GangNode, compute_seconds
from simulator.world import mounting
from simulator.world.parts import Breaking, Buses, Parts
from simulator.world.spec import Failing, Group, Moving
from simulator.world.world import World
from tests.physics.worlds import A100
from tests.world.forced import force_move
from tests.world.test_world import ENGINE, asks, finish_of, spec
from tests.world.worlds import FAST, IB, KV, ONE, STEP, job, run

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


def test_a_request_may_move_again_while_the_copy_of_a_move_that_failed_is_under_way() -> None:
    failures = (Failing(instance=1, at_seconds=0.6, start=FAST),)
    wire = Moving(bytes_per_second=2e8, lag_tokens=64, stages=9)
    world = World(spec(failures=failures, moving=wire), asks((0.0, 1000, 2_000)))
    force_move(world, 0.5)
    force_move(world, 2.9)  # the first copy, of 2.6 s, is still on its way to where nobody is
    outcome = world.run()
    assert (outcome.completed, outcome.output_tokens) == (1, 2_000)
    assert outcome.migrations + outcome.migrations_aborted == 2
