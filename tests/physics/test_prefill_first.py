"""Engines before chunked prefill: each rule of their scheduler beside its closed form."""

import pytest

from simulator.physics.engine import EngineInstance
from simulator.physics.prefill_first import WATERMARK
from simulator.physics.roofline import step_cost
from simulator.physics.sequence import EventKind, Handover
from simulator.physics.specs import EngineSpec
from tests.physics.worlds import A100, LLAMA_7B, engine_for

COST = step_cost(A100, LLAMA_7B, EngineSpec())
FIRST, FINISHED = EventKind.FIRST_TOKEN, EventKind.FINISHED


def engine(kv_tokens=40_000, **limits) -> EngineInstance:
    limits = {"admission": "grow", "scheduling": "prefill_first", **limits}
    return EngineInstance(A100, LLAMA_7B, engine_for(kv_tokens, **limits))


def times(events):
    return {(event.request_id, event.kind): event.at_seconds for event in events}


def prompts(*tokens: int) -> float:
    """Seconds of one step of whole prompts and nothing else."""
    return COST.seconds(0, sum(tokens), 0, sum(each * each / 2 for each in tokens))


def decodes(context: int, steps: int, batch: int = 1) -> float:
    return COST.run_seconds(batch, context, steps)


@pytest.mark.parametrize("prompt", [100, 3_000, 9_000])
def test_a_prompt_stalls_every_decode_for_as_long_as_it_takes_however_long_it_is(prompt):
    alone, beside = engine(), engine()
    alone.submit(1, 500, 400, 0.0)
    beside.submit(1, 500, 400, 0.0)
    beside.submit(2, prompt, 1, 1.0)
    stalled = times(beside.advance_to(60.0))[1, FINISHED] - times(alone.advance_to(60.0))[1, FINISHED]
    assert stalled == pytest.approx(prompts(prompt), rel=1e-9)


def test_a_prompt_begins_at_the_next_step_boundary_and_is_not_cut_into_chunks():
    one = engine(chunk_tokens=512)
    one.submit(1, 500, 400, 0.0)
    one.submit(2, 3_000, 1, prompts(500) + decodes(501, 10) - 1e-6)
    begins = prompts(500) + decodes(501, 10)
    assert times(one.advance_to(60.0))[2, FIRST] == pytest.approx(begins + prompts(3_000), rel=1e-9)
    assert one.load().prefill_chunks == 2


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [
        pytest.param(2_048, prompts(1_000, 1_000), id="both fit the budget: one step"),
        pytest.param(1_999, prompts(1_000) + prompts(1_000), id="the second waits for the next step"),
    ],
)
def test_prompts_share_a_step_as_far_as_the_token_budget_goes(budget, seconds):
    one = engine(chunk_tokens=budget)
    one.submit(1, 1_000, 50, 0.0)
    one.submit(2, 1_000, 50, 0.0)
    assert times(one.advance_to(60.0))[2, FIRST] == pytest.approx(seconds, rel=1e-9)


@pytest.mark.parametrize(
    ("blocks", "waits"),
    [
        pytest.param(108, False, id="2 of 200 blocks stay free: admitted at once"),
        pytest.param(109, True, id="only one would: waits for the first to end"),
    ],
)
def test_a_prompt_leaves_the_watermark_free_while_others_run(blocks, waits):
    one = engine(16 * 200)
    assert int(WATERMARK * 200) == 2
    one.submit(1, 16 * 90, 10, 0.0)
    one.submit(2, 16 * blocks, 1, 0.001)
    found = times(one.advance_to(60.0))
    assert (found[2, FIRST] > found[1, FINISHED]) is waits


def test_alone_a_request_may_take_all_there_is():
    one = engine(1_024)
    one.submit(1, 1_000, 24, 0.0)
    assert (1, FINISHED) in times(one.advance_to(60.0))


def test_decodes_that_lack_a_block_preempt_the_youngest_and_its_tokens_are_computed_again_alone():
    small = engine(16 * 24)
    small.submit(1, 150, 120, 0.0)
    small.submit(2, 150, 60, 0.0)
    found = times(small.advance_to(60.0))
    assert small.load().preemptions >= 1
    assert found[1, FINISHED] < found[2, FINISHED]
    phases = small.phases()
    assert phases.prefill_tokens > 300
    assert phases.decode_tokens == 120 + 60 - small.load().preemptions - 2


def test_who_comes_with_all_of_its_kv_stalls_nobody():
    target, alone = engine(), engine()
    for one in (target, alone):
        one.submit(1, 500, 400, 0.0)
        one.advance_to(1.0)
    gone = Handover(
        request_id=2, prompt_tokens=800, output_tokens=60, generated_tokens=20, arrived_seconds=0.0
    )
    assert target.reserve(2, 830)
    assert target.take_over(gone, 820) is None
    slower = times(target.advance_to(60.0))[1, FINISHED] - times(alone.advance_to(60.0))[1, FINISHED]
    # Its 40 steps read its own context as well (and are bound by the weights still); no step of prompts came between.
    reading = sum(COST.kv * (820 + step) + COST.per_sequence for step in range(40))
    assert slower == pytest.approx(reading, rel=1e-6)
    assert target.phases().prefill_tokens == 500
