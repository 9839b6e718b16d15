"""Each mechanism of an engine beside the same run without it: the difference is what its formula says."""

import pytest

from simulator.physics.engine import EngineInstance
from simulator.physics.roofline import step_cost
from simulator.physics.sequence import EventKind, RefusalCode
from simulator.physics.specs import EngineSpec
from tests.physics.worlds import A100, LLAMA_7B, engine_for

COST = step_cost(A100, LLAMA_7B, EngineSpec())
FIRST, FINISHED, LEFT = EventKind.FIRST_TOKEN, EventKind.FINISHED, EventKind.HANDED_OVER


def engine(kv_tokens=40_000, **limits) -> EngineInstance:
    return EngineInstance(A100, LLAMA_7B, engine_for(kv_tokens, **limits))


def times(events):
    return {(event.request_id, event.kind): event.at_seconds for event in events}


def prefill(tokens: int, behind: int = 0) -> float:
    """Seconds of one step alone with ``tokens`` of a prompt behind ``behind`` that are in the cache."""
    return COST.seconds(0, tokens, 0, tokens * (behind + tokens / 2))


@pytest.mark.parametrize(
    ("cache", "second", "seconds"),
    [
        pytest.param(
            64, (1, 2, 3), prefill(256 - 192, 192), id="three blocks found: the rest is computed behind them"
        ),
        pytest.param(64, (1, 9, 3), prefill(256 - 64, 64), id="only the leading run counts"),
        pytest.param(
            64, (1, 2, 3, 4), prefill(64, 192), id="a whole prompt found: its last block is computed again"
        ),
        pytest.param(64, (7, 8, 9), prefill(256), id="nothing in common"),
        pytest.param(0, (1, 2, 3), prefill(256), id="switched off"),
    ],
)
def test_a_cached_prefix_is_not_computed_again(cache, second, seconds):
    shared = engine(prefix_block_tokens=cache)
    shared.submit(1, 256, 5, 0.0, prefix=(1, 2, 3, 4))
    shared.submit(2, 256, 5, 10.0, prefix=second)
    assert times(shared.advance_to(20.0))[2, FIRST] - 10.0 == pytest.approx(seconds, rel=1e-9)
    assert (
        shared.load().kv_free_tokens == shared.capacity_tokens
    )  # idle prefixes are free for whoever needs room


def test_a_prefix_that_two_hold_takes_room_once():
    shared = engine(1024, prefix_block_tokens=64)
    shared.submit(1, 512, 200, 0.0, prefix=tuple(range(8)))
    shared.advance_to(1.0)
    before = shared.load().kv_free_tokens
    shared.submit(2, 512, 200, 1.0, prefix=tuple(range(8)))
    shared.advance_to(2.0)
    # 7 of its 8 blocks are found held: the last is always computed.
    assert before - shared.load().kv_free_tokens == pytest.approx(512 + 200 - 7 * 64, abs=16)


def test_room_that_is_needed_forgets_the_prefix_used_least_recently():
    small = engine(1024, prefix_block_tokens=64)
    for index, prefix in enumerate([(1, 2, 3, 4), (5, 6, 7, 8), (1, 2, 3, 4)]):
        small.submit(index, 256, 1, float(index), prefix=prefix)
    small.submit(3, 639, 1, 5.0)  # takes 640 of 1024 tokens: 384 of the 512 idle ones stay
    small.submit(4, 256, 1, 6.0, prefix=(5, 6, 7, 8))
    small.submit(5, 256, 1, 7.0, prefix=(1, 2, 3, 4))
    at = times(small.advance_to(9.0))
    assert at[4, FIRST] - 6.0 == pytest.approx(
        prefill(256 - 128, 128), rel=1e-9
    )  # the last two of its four are gone
    assert at[5, FIRST] - 7.0 == pytest.approx(prefill(64, 192), rel=1e-9)


@pytest.mark.parametrize(
    ("chunk", "stall"),
    [
        pytest.param(
            512, COST.seconds(1, 511, 101, 511 * 511 / 2), id="chunks: a decode waits for one chunk"
        ),
        pytest.param(8192, COST.seconds(1, 4000, 101, 4000 * 4000 / 2), id="no chunks: for the whole prompt"),
    ],
)
def test_chunked_prefill_bounds_what_a_decode_waits_for(chunk, stall):
    decoding = engine(chunk_tokens=chunk)
    decoding.submit(1, 100, 200, 0.0)
    decoding.submit(2, 4000, 1, prefill(100))  # arrives as the first one's prompt is done
    decoding.advance_to(prefill(100) + stall * (1 - 1e-9))
    assert decoding.generated_tokens(1) == 1
    decoding.advance_to(prefill(100) + stall * (1 + 1e-9))
    assert decoding.generated_tokens(1) == 2


@pytest.mark.parametrize(
    ("priority", "first"), [(0, 2), (1, 3)], ids=["equal: in order of arrival", "higher: first"]
)
def test_priority_goes_first(priority, first):
    full = engine(max_num_seqs=1, chunk_tokens=2048)
    full.submit(1, 100, 50, 0.0)
    full.submit(2, 100, 5, 0.1)
    full.submit(3, 100, 5, 0.2, priority)
    at = times(full.advance_to(20.0))
    assert min((2, 3), key=lambda request: at[request, FIRST]) == first
    one = prefill(100) + COST.run_seconds(1, 101, 49)
    assert at[first, FIRST] == pytest.approx(one + prefill(100), rel=1e-9)


def test_preemption_computes_again_what_it_gave_up():
    steps = 64  # both grow from 256 tokens; the 512 + 64 of the cache are full after 32 steps each
    grown = engine(512 + steps, admission="grow", chunk_tokens=2048)
    roomy = engine(4096, admission="grow", chunk_tokens=2048)
    for each in (grown, roomy):
        each.submit(1, 256, 100, 0.0)
        each.submit(2, 256, 100, 0.0)
    tight, wide = times(grown.advance_to(60.0)), times(roomy.advance_to(60.0))
    assert grown.load().preemptions == 1
    assert not roomy.load().preemptions
    alone = 99 - 32
    together = prefill_two() + COST.run_seconds(2, 514, 32)
    first = together + COST.run_seconds(1, 257 + 32, alone)
    assert tight[1, FINISHED] == pytest.approx(first, rel=1e-9)
    again = first + prefill(256 + 33)  # whose step gives the next token
    assert tight[2, FINISHED] == pytest.approx(again + COST.run_seconds(1, 256 + 34, alone - 1), rel=1e-9)
    assert wide[2, FINISHED] == pytest.approx(prefill_two() + COST.run_seconds(2, 514, 99), rel=1e-9)


def prefill_two() -> float:
    return COST.seconds(0, 512, 0, 2 * 256 * 128)


@pytest.mark.parametrize(
    ("cached", "seconds"),
    [
        pytest.param(
            1.0, COST.seconds(0, 1, 0, 3000.5), id="KV came along: only the last token's is computed"
        ),
        pytest.param(0.5, COST.seconds(0, 1501, 0, 1501 * (1500 + 1501 / 2)), id="half came"),
        pytest.param(0.0, prefill(2048) + prefill(953, 2048), id="replay: everything is computed again"),
    ],
)
def test_a_move_costs_the_target_what_did_not_come_along(cached, seconds):
    source, target = engine(), engine()
    source.submit(1, 3000, 100, 0.0, hand_over=True)
    (first, left) = source.advance_to(5.0)
    assert (first.kind, left.kind, left.tokens) == (FIRST, LEFT, 1)
    held = source.load().kv_free_tokens
    assert held == source.capacity_tokens - source.spec.block_tokens * -(-3100 // source.spec.block_tokens)
    target.advance_to(5.0)
    assert target.take_over(source.handover(1), int(cached * 3000)) is None
    assert source.release(1)
    assert source.load().kv_free_tokens == source.capacity_tokens
    (done,) = target.advance_to(30.0)
    assert (done.kind, done.tokens) == (FINISHED, 100)
    assert done.at_seconds - 5.0 == pytest.approx(seconds + COST.run_seconds(1, 3002, 98), rel=1e-9)


def test_a_decoding_request_leaves_at_the_end_of_its_step_and_others_go_on():
    source = engine()
    source.submit(1, 100, 100, 0.0)
    source.submit(2, 100, 100, 0.0)
    source.advance_to(COST.seconds(0, 200, 0, 10_000) + 9.5 * COST.seconds(2, 0, 206, 0.0))
    assert source.hand_over(1)
    (left, done) = source.advance_to(30.0)
    start = COST.seconds(0, 200, 0, 10_000)
    assert (left.kind, left.tokens, done.request_id) == (LEFT, 11, 2)
    assert left.at_seconds == pytest.approx(start + COST.run_seconds(2, 202, 10), rel=1e-9)
    assert done.at_seconds == pytest.approx(left.at_seconds + COST.run_seconds(1, 111, 89), rel=1e-9)


def test_what_is_reserved_is_nobody_elses():
    target = engine(1024)
    assert target.reserve(7, 600)
    assert not target.reserve(8, 600)
    target.submit(1, 500, 20, 0.0)
    assert target.advance_to(5.0) == []  # does not fit beside the reservation
    target.unreserve(7)
    assert [event.kind for event in target.advance_to(10.0)] == [FIRST, FINISHED]
    assert target.reserve(9, 10)
    with pytest.raises(ValueError, match="reservation"):
        target.reserve(9, 10)


def test_a_draining_engine_takes_nothing_over_and_keeps_no_room_for_it():
    source, target = engine(), engine(1024)
    source.submit(1, 100, 50, 0.0, hand_over=True)
    source.advance_to(1.0)
    target.advance_to(1.0)
    assert target.reserve(1, 150)
    target.drain()
    refusal = target.take_over(source.handover(1), 100)
    assert refusal is not None
    assert refusal.code is RefusalCode.DRAINING
    assert target.load().kv_free_tokens == target.capacity_tokens


@pytest.mark.parametrize("request_id", [1, 9], ids=["it waits", "it is not here"])
def test_only_who_decodes_can_be_handed_over(request_id):
    source = engine()
    source.submit(1, 100, 50, 5.0)
    assert not source.hand_over(request_id)
    assert not source.release(request_id)


@pytest.mark.parametrize(
    ("tokens", "first"), [(300, 1), (100, 2)], ids=["it covers the move", "it does not: given back"]
)
def test_who_comes_with_room_does_not_wait_behind_who_waits_for_it(tokens, first):
    source, target = engine(), engine(1024)
    source.submit(1, 200, 100, 0.0, hand_over=True)
    source.advance_to(1.0)
    assert target.reserve(1, tokens)
    target.submit(2, 900, 2, 0.0, priority=1)
    events = target.advance_to(1.0)
    target.take_over(source.handover(1), 200)
    ends = [event.request_id for event in events + target.advance_to(30.0) if event.kind is FINISHED]
    assert ends == [first, 3 - first]


@pytest.mark.parametrize("together", [1, 2, 4, 8])
def test_continuous_batching_passes_the_weights_once_for_all(together):
    batched, single = engine(max_num_seqs=together), engine(max_num_seqs=1)
    for each in (batched, single):
        for request in range(together):
            each.submit(request, 100, 50, 0.0)
    ends = [max(times(each.advance_to(200.0)).values()) for each in (batched, single)]
    all_at_once = COST.seconds(0, 100 * together, 0, together * 100 * 50)
    assert ends[0] == pytest.approx(all_at_once + COST.run_seconds(together, 101 * together, 49), rel=1e-9)
    assert ends[1] == pytest.approx(together * (prefill(100) + COST.run_seconds(1, 101, 49)), rel=1e-9)
    # A step of all passes weights and launches once, so each further sequence costs the reading of its context alone.
    more = COST.seconds(together, 0, 101 * together, 0.0) - COST.seconds(1, 0, 101, 0.0)
    assert more == pytest.approx((together - 1) * (101 * COST.kv + COST.per_sequence), rel=1e-9)


@pytest.mark.parametrize(
    ("admission", "blocks", "running"),
    [
        pytest.param(
            "reserve", 40, 40 // ((100 + 220) // 16), id="prompt and output set aside: 20 blocks each"
        ),
        pytest.param("grow", 40, 40 // 7, id="blocks as they come: 7 of a prompt of 100"),
        pytest.param("reserve", 4_000, 16, id="without a limit: all of them"),
    ],
)
def test_admission_lets_in_as_many_as_have_their_blocks(admission, blocks, running):
    paged = engine(16 * blocks, admission=admission, chunk_tokens=4096)
    for request in range(16):
        paged.submit(request, 100, 220, 0.0)
    paged.advance_to(1e-6)
    load = paged.load()
    assert (load.running, load.waiting) == (running, 16 - running)
    events = paged.advance_to(600.0)
    assert sum(event.kind is FINISHED for event in events) == 16
    assert (paged.load().preemptions > 0) == (admission == "grow")
    assert paged.load().kv_free_tokens == paged.capacity_tokens
