"""Instances that tell the gateway once a step, and moves whose last tokens are copied: beside the world without."""

import pytest

from simulator.physics.roofline import step_cost
from simulator.physics.specs import EngineSpec
from simulator.traces.requests import TraceRequest
from simulator.world.hearing import Told
from simulator.world.spec import Choice, Delays, Group, Moving, WorldSpec
from simulator.world.world import World
from tests.physics.worlds import A100, LLAMA_7B, engine_for
from tests.world.forced import force_move

COST = step_cost(A100, LLAMA_7B, EngineSpec())
OLD = engine_for(40_000, admission="grow", scheduling="prefill_first", chunk_tokens=12_800)


def world(*rows: tuple[float, int, int], count: int = 2, engine: EngineSpec = OLD, **more) -> World:
    asks = [TraceRequest(line, *row) for line, row in enumerate(rows)]
    groups = (Group(gpu=A100, engine=engine, count=count, per_node=1),)
    more = {"dispatch": Choice("llumnix"), **more}
    return World(WorldSpec(model=LLAMA_7B, groups=groups, **more), asks)


def served(one: World) -> list[int]:
    """How many prompts each instance computed."""
    one.run()
    return sorted(each.engine.load().prefill_chunks for each in one.instances)


BURST = tuple((1.0 + 0.01 * n, 3_000, 2) for n in range(6))


@pytest.mark.parametrize(
    ("each_step", "most"),
    [
        pytest.param(False, 3, id="the pending account spreads a burst"),
        pytest.param(True, 6, id="told once a step: it all goes where it looked freest"),
    ],
)
def test_what_arrives_during_a_long_prompt_crowds_where_nobody_tells(each_step, most):
    # One decodes on each; the first has less, so it is the freer of the two until it tells of the burst.
    begun = ((0.0, 100, 400), (0.001, 300, 400))
    crowd = world(
        *begun, *BURST, delays=Delays(each_step=each_step, gateway_seconds=0.001, report_seconds=0.05)
    )
    chunks = served(crowd)
    assert sum(chunks) == 8
    assert max(chunks) == most + 1


def test_a_crowd_ends_when_the_step_of_its_first_prompt_has_ended():
    begun = ((0.0, 100, 400), (0.001, 300, 400))
    step = COST.seconds(0, 3_000, 0, 3_000 * 1_500)
    late = (1.0 + 3 * step, 3_000, 2)
    assert served(world(*begun, (1.0, 3_000, 400), late, delays=Delays(each_step=True))) == [2, 2]


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        pytest.param([None], 9.0, id="idle: all is told"),
        pytest.param([(8.0, 0.02, False)], 9.0 - 0.03, id="decoding: the step before the present one"),
        pytest.param([(8.0, 0.02, False), (8.7, 0.5, True)], 8.7 - 0.02, id="a prompt after decodes"),
        pytest.param([(8.0, 0.7, True), (8.7, 0.5, True)], 8.0, id="a prompt right after another"),
        pytest.param([(8.7, 0.5, True), (8.7, 0.5, True)], 8.7 - 0.05, id="the same prompt seen twice"),
    ],
)
def test_what_was_told_is_how_the_last_step_that_ended_began(steps, told):
    record = Told()
    for step in steps:
        found = record.since(9.0, step)
    assert found == pytest.approx(told)


def test_a_move_whose_last_tokens_are_copied_costs_their_bytes_and_stalls_nobody():
    still = world((0.0, 1_000, 200))
    moved = world(
        (0.0, 1_000, 200), moving=Moving(commit_seconds=0.003, bytes_per_second=2e9, copy_last=True)
    )
    still.run()
    left = force_move(moved, 0.5)
    outcome = moved.run()
    assert (outcome.migrations, outcome.migrations_aborted) == (1, 0)
    assert left[0].lag == 1
    gap = float(moved.book.finished_seconds[0] - still.book.finished_seconds[0])
    tokens = (gap - 0.003) * 2e9 / LLAMA_7B.kv_bytes_per_token
    assert tokens == pytest.approx(round(tokens), abs=1e-3)
    assert 2 <= round(tokens) <= moved.spec.moving.lag_tokens
    assert sum(each.engine.phases().prefill_tokens for each in moved.instances) == 1_000
    assert all(each.engine.load().kv_free_tokens == each.engine.capacity_tokens for each in moved.instances)
