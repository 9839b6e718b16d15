"""One engine: times in closed form, admission, refusals, drain, cancel, kill, load."""

import math

import msgspec
import numpy as np
import pytest

from simulator.physics.engine import EngineInstance
from simulator.physics.roofline import prefill_seconds, step_cost
from simulator.physics.sequence import EventKind, RefusalCode
from simulator.physics.specs import EngineSpec
from tests.physics.worlds import A100, LLAMA_7B, engine_for

COST = step_cost(A100, LLAMA_7B, EngineSpec())
FIRST, FINISHED = EventKind.FIRST_TOKEN, EventKind.FINISHED


def engine(**changes) -> EngineInstance:
    return EngineInstance(A100, LLAMA_7B, engine_for(changes.pop("kv_tokens", 40_000), **changes))


def times(events):
    return {(event.request_id, event.kind): event.at_seconds for event in events}


def test_a_lone_request_takes_its_prefill_and_its_decode_steps():
    lone = engine()
    lone.submit(1, 3000, 100, 5.0)
    events = lone.advance_to(60.0)
    first = 5.0 + prefill_seconds(COST, 3000, 2048)
    assert [(event.kind, event.tokens) for event in events] == [(FIRST, 1), (FINISHED, 100)]
    assert events[0].at_seconds == pytest.approx(first, rel=1e-12)
    assert events[1].at_seconds == pytest.approx(first + COST.run_seconds(1, 3001, 99), rel=1e-12)


@pytest.mark.parametrize(
    ("output", "kinds"),
    [
        pytest.param(1, [FIRST, FINISHED], id="one token: the prefill gives it"),
        pytest.param(0, [FINISHED], id="no token: scored and gone"),
    ],
)
def test_short_outputs_end_with_the_prefill(output, kinds):
    short = engine()
    short.submit(1, 100, output, 0.0)
    events = short.advance_to(1.0)
    assert [event.kind for event in events] == kinds
    assert events[-1].tokens == output
    assert events[-1].at_seconds == pytest.approx(prefill_seconds(COST, 100, 2048))


def test_two_that_arrive_together_share_the_step():
    pair = engine()
    pair.submit(1, 500, 10, 0.0)
    pair.submit(2, 700, 10, 0.0)
    at = times(pair.advance_to(10.0))
    together = COST.seconds(0, 1200, 0, 500**2 / 2 + 700**2 / 2)
    assert at[1, FIRST] == at[2, FIRST] == pytest.approx(together)
    assert at[1, FINISHED] == pytest.approx(together + COST.run_seconds(2, 501 + 701, 9))


def test_an_arrival_waits_for_the_step_boundary_and_stalls_the_decodes():
    busy = engine()
    busy.submit(1, 100, 50, 0.0)
    start = prefill_seconds(COST, 100, 2048)
    arrival = start + 3.5 * COST.seconds(1, 0, 101, 0)
    busy.submit(2, 1000, 2, arrival)
    at = times(busy.advance_to(10.0))
    boundary = start + COST.run_seconds(1, 101, 4)
    mixed = COST.seconds(1, 1000, 105, 1000**2 / 2)
    assert at[2, FIRST] == pytest.approx(boundary + mixed)
    both = COST.seconds(2, 0, 106 + 1001, 0)
    rest = COST.run_seconds(1, 107, 43)
    assert at[1, FINISHED] == pytest.approx(boundary + mixed + both + rest)


def test_a_prompt_longer_than_the_budget_takes_chunks_beside_the_decodes():
    chunked = engine(chunk_tokens=512)
    chunked.submit(1, 10, 100, 0.0)
    start = prefill_seconds(COST, 10, 512)
    boundary = start + COST.run_seconds(1, 11, 20)
    chunked.submit(2, 1000, 1, boundary - 1e-6)
    at = times(chunked.advance_to(10.0))
    first = COST.seconds(1, 511, 31, 511**2 / 2)
    second = COST.seconds(1, 489, 32, 489 * 511 + 489**2 / 2)
    assert at[2, FIRST] == pytest.approx(boundary + first + second)
    assert at[1, FINISHED] == pytest.approx(at[2, FIRST] + COST.run_seconds(1, 33, 77))


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        pytest.param({"max_num_seqs": 2}, "slots", id="no slot left"),
        pytest.param({"kv_tokens": 2400}, "kv", id="no KV blocks left"),
    ],
)
def test_a_full_engine_queues_and_serves_in_order_of_arrival(limits, why):
    full = engine(**limits)
    for index in range(4):
        full.submit(index, 1000, 100, 0.001 * index)
    full.advance_to(0.5)
    load = full.load()
    assert (load.running, load.waiting) == (2, 2)
    at = times(full.advance_to(100.0))
    assert at[0, FINISHED] <= at[2, FIRST] <= at[3, FIRST]


def test_higher_priority_overtakes_the_queue_but_not_the_running():
    line = engine(max_num_seqs=1)
    line.submit(1, 100, 50, 0.0)
    line.submit(2, 100, 50, 0.01, priority=0)
    line.submit(3, 100, 50, 0.02, priority=5)
    at = times(line.advance_to(100.0))
    assert at[1, FINISHED] < at[3, FIRST] < at[3, FINISHED] < at[2, FIRST]


def test_the_head_of_the_queue_blocks_smaller_ones_behind_it():
    line = engine(kv_tokens=2400)
    line.submit(1, 1500, 200, 0.0)
    line.submit(2, 1500, 200, 0.01)
    line.submit(3, 10, 5, 0.02)
    at = times(line.advance_to(100.0))
    assert at[3, FIRST] >= at[1, FINISHED]


def test_preemption_recomputes_the_youngest_and_loses_no_token():
    tight = engine(kv_tokens=1024, admission="grow")
    tight.submit(1, 400, 300, 0.0)
    tight.submit(2, 400, 300, 0.01)
    events = tight.advance_to(100.0)
    at = times(events)
    assert tight.load().preemptions >= 1
    assert at[1, FINISHED] < at[2, FINISHED]
    assert {event.request_id: event.tokens for event in events if event.kind is FINISHED} == {1: 300, 2: 300}
    assert tight.phases().prefill_tokens > 800  # the second's tokens were computed twice
    assert sum(event.kind is FIRST for event in events) == 2


@pytest.mark.parametrize(
    ("prompt", "output", "code", "says"),
    [
        pytest.param(0, 5, RefusalCode.MALFORMED, "at least one prompt token", id="no prompt"),
        pytest.param(5, -1, RefusalCode.MALFORMED, "no negative output", id="negative output"),
        pytest.param(39_000, 2000, RefusalCode.TOO_LONG, "holds at most 40000", id="longer than the cache"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_sentence(prompt, output, code, says):
    refusal = engine().submit(7, prompt, output, 0.0)
    assert (refusal.request_id, refusal.code) == (7, code)
    assert says in refusal.message


def test_the_longest_that_fits_is_served():
    edge = engine(kv_tokens=1600)
    assert edge.submit(1, 1500, 100, 0.0) is None
    assert edge.advance_to(100.0)[-1].tokens == 100


def test_a_model_limit_below_the_cache_refuses_too():
    assert engine(max_model_tokens=2048).submit(1, 2000, 100, 0.0).code is RefusalCode.TOO_LONG


def test_the_same_id_twice_is_refused_until_the_first_is_done():
    once = engine()
    once.submit(1, 100, 10, 0.0)
    assert once.submit(1, 100, 10, 0.0).code is RefusalCode.DUPLICATE
    once.advance_to(10.0)
    assert once.submit(1, 100, 10, 10.0) is None


def test_weights_that_leave_no_room_are_refused_at_the_start():
    big = msgspec.structs.replace(LLAMA_7B, weight_bytes=80 * 2**30)
    with pytest.raises(ValueError, match="leaves no room for KV cache"):
        EngineInstance(A100, big, EngineSpec())


def test_time_never_runs_backwards():
    late = engine()
    late.advance_to(5.0)
    with pytest.raises(ValueError, match="cannot go back"):
        late.advance_to(4.0)


def test_a_late_submission_joins_now_but_keeps_its_place_in_the_queue():
    late = engine(max_num_seqs=1)
    late.submit(1, 100, 100, 0.0)
    late.submit(2, 100, 10, 0.5)
    late.advance_to(0.6)
    late.submit(3, 100, 10, 0.4)  # retried elsewhere: it arrived before 2
    at = times(late.advance_to(50.0))
    assert at[3, FIRST] < at[2, FIRST]


def test_draining_serves_what_it_has_and_takes_nothing_new():
    last = engine()
    last.submit(1, 100, 100, 0.0)
    last.advance_to(0.1)
    last.drain()
    assert last.submit(2, 100, 10, 0.2).code is RefusalCode.DRAINING
    assert not last.drained
    assert [event.kind for event in last.advance_to(30.0)] == [FINISHED]
    assert last.drained
    assert last.load().draining


def test_kill_loses_all_and_says_which():
    doomed = engine(max_num_seqs=1)
    for index in (5, 3, 9):
        doomed.submit(index, 100, 100, 0.0)
    doomed.submit(4, 100, 100, 90.0)
    doomed.advance_to(0.5)
    assert doomed.kill() == [5, 3, 9, 4]
    assert doomed.advance_to(100.0) == []
    assert doomed.submit(6, 10, 10, 100.0).code is RefusalCode.STOPPED
    load = doomed.load()
    assert (load.running, load.waiting, load.outstanding_tokens) == (0, 0, 0)
    assert doomed.phases().busy_seconds == pytest.approx(0.5)


@pytest.mark.parametrize(
    "when", [-1.0, 0.0, 0.05, 0.5], ids=["not yet arrived", "waiting", "prefilling", "decoding"]
)
def test_cancel_ends_a_request_wherever_it_stands(when):
    one = engine()
    if when == 0.0:
        one = engine(max_num_seqs=1)
        one.submit(1, 100, 400, -1.0)
    one.submit(2, 2000, 100, 0.0 if when >= 0 else 3.0)
    one.advance_to(max(when, 0.0))
    assert one.cancel(2)
    assert not one.cancel(2)
    events = one.advance_to(60.0)
    assert not [event for event in events if event.request_id == 2]
    load = one.load()
    assert (load.running, load.waiting, load.outstanding_tokens) == (0, 0, 0)
    assert load.kv_free_tokens == load.kv_capacity_tokens


def test_an_id_may_come_back_while_its_cancelled_self_still_runs():
    again = engine()
    again.submit(1, 2000, 100, 0.0)
    again.advance_to(0.05)
    again.cancel(1)
    assert again.submit(1, 50, 3, 0.05) is None
    assert [(event.kind, event.tokens) for event in again.advance_to(20.0)] == [(FIRST, 1), (FINISHED, 3)]


def test_a_lower_clock_slows_what_comes_after_the_current_step():
    slowed = engine()
    slowed.submit(1, 100, 200, 0.0)
    start = prefill_seconds(COST, 100, 2048)
    now = start + COST.run_seconds(1, 101, 10) - 1e-4
    slowed.advance_to(now)
    slowed.set_speed(0.5, 0.8, node_speed=0.9)
    at = times(slowed.advance_to(60.0))
    slow = step_cost(A100, LLAMA_7B, EngineSpec(), 0.8, 0.9)
    assert at[1, FINISHED] == pytest.approx(now + 1e-4 + slow.run_seconds(1, 111, 189))


def test_load_counts_what_is_owed_and_held():
    counted = engine()
    counted.submit(1, 1000, 101, 0.0)
    counted.submit(2, 1000, 101, 50.0)  # not here yet
    assert counted.load().outstanding_tokens == 0
    counted.advance_to(prefill_seconds(COST, 1000, 2048) + COST.run_seconds(1, 1001, 40) + 1e-6)
    load = counted.load()
    assert load.outstanding_tokens == 60
    assert counted.generated_tokens(1) == 41
    assert load.kv_capacity_tokens - load.kv_free_tokens == math.ceil(1101 / 16) * 16
    assert load.kv_capacity_tokens == counted.capacity_tokens == 40_000


def test_phases_split_a_mixed_step_by_what_its_decodes_alone_would_take():
    mixed = engine()
    mixed.submit(1, 100, 400, 0.0)
    mixed.advance_to(1.0)
    mixed.submit(2, 2000, 1, 1.0)
    at = times(mixed.advance_to(20.0))
    lone = engine()
    lone.submit(1, 100, 400, 0.0)
    lone.advance_to(20.0)
    stall = at[1, FINISHED] - times(_served_alone())[1, FINISHED]
    gained = mixed.phases().prefill_seconds - lone.phases().prefill_seconds
    assert gained == pytest.approx(stall, rel=1e-6)
    assert mixed.phases().decode_seconds == pytest.approx(lone.phases().decode_seconds, rel=1e-6)


def _served_alone():
    alone = engine()
    alone.submit(1, 100, 400, 0.0)
    return alone.advance_to(20.0)


def test_a_steady_batch_reaches_the_throughput_of_the_formula():
    rng = np.random.Generator(np.random.PCG64(3))
    steady, batch, prompt, output = engine(kv_tokens=110_000, max_num_seqs=64), 64, 500, 200
    for index in range(2000):
        steady.submit(index, prompt, output + int(rng.integers(-50, 51)), 0.0)
    steady.advance_to(30.0)
    before = steady.phases().decode_tokens
    steady.advance_to(90.0)
    rate = (steady.phases().decode_tokens - before) / 60.0
    # Per request: its share of `output` steps of 64, and its own prefill on top of one of them.
    step = COST.seconds(batch, 0, batch * (prompt + output // 2), 0)
    prefill = COST.seconds(batch, prompt, 0, prompt**2 / 2) - COST.seconds(batch, 0, 0, 0)
    assert rate == pytest.approx(batch / (step + batch / output * prefill), rel=0.03)
