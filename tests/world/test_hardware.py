"""What breaks, is reclaimed, starts again and is heard of, and who goes first: each as its formula says."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from simulator.physics.loading import TIER_BYTES_PER_SECOND, StartSpec, WeightTier
from simulator.world import mounting
from simulator.world.parts import Breaking, Hazard, Parts
from simulator.world.spec import Choice, Delays, Failing, Group
from simulator.world.world import World
from tests.physics.worlds import A100, engine_for
from tests.world.test_world import COST, ENGINE, asks, finish_of, prefill, spec
from tests.world.worlds import FAST, ONE, run

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
