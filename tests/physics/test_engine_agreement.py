"""The event-skipping engine against the step-by-step one, and against itself cut into pieces of time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.physics.engine import EngineInstance
from simulator.physics.reference import PerTokenEngine
from simulator.physics.sequence import EventKind
from tests.physics.worlds import A100, LLAMA_7B, engine_for


def scenario(seed: int, scheduling: str = "chunked"):
    """A random load with its engine: (engine spec, requests, commands)."""
    rng = np.random.Generator(np.random.PCG64(seed))
    kv_tokens = int(rng.choice([1024, 2048, 6000, 40000]))
    seqs = int(rng.choice([2, 8, 64]))
    block = int(rng.choice([1, 4, 16]))
    spec = engine_for(
        kv_tokens,
        prefix_block_tokens=int(rng.choice([0, 64, 256])),
        admission=str(rng.choice(["reserve", "grow"])),
        scheduling=scheduling,
        max_num_seqs=seqs,
        chunk_tokens=int(rng.choice([seqs + 1, 128, 512, 2048])),
        block_tokens=block,
    )
    count = int(rng.integers(1, 40))
    arrivals = np.cumsum(rng.exponential(rng.choice([0.0, 0.01, 0.2, 2.0]), count))
    requests = []
    for index in range(count):
        prompt = int(rng.integers(1, kv_tokens // 2))
        output = int(rng.integers(0, min(kv_tokens // 2 - 16, 400)))
        prefix = prefix_of(rng, spec, prompt)
        requests.append((float(arrivals[index]), index, prompt, output, int(rng.choice([0, 0, 1])), prefix))
    horizon = float(arrivals[-1]) + 1.0
    commands = [
        (float(rng.uniform(0, horizon)), "speed", tuple(float(x) for x in rng.uniform(0.5, 1.0, 3)))
        for _ in range(int(rng.integers(0, 4)))
    ]
    commands += [
        (float(rng.uniform(0, horizon)), "cancel", int(rng.integers(0, count)))
        for _ in range(int(rng.integers(0, 4)))
    ]
    return spec, requests, sorted(commands, key=lambda command: command[0])


def prefix_of(rng, spec, prompt):
    """Hashes of a prompt that begins as one of three others do, for some of its blocks."""
    if not spec.prefix_block_tokens:
        return ()
    blocks, family = prompt // spec.prefix_block_tokens, int(rng.integers(0, 3))
    common = int(rng.integers(0, blocks + 1))
    own = int(rng.integers(10, 2**40))
    return tuple(family + 3 * n if n < common else -(own + n) for n in range(blocks))


def play(engine, requests, commands):
    """Submit everything, apply the commands at their times, run to the end; returns the events."""
    for at, request_id, prompt, output, priority, prefix in requests:
        assert engine.submit(request_id, prompt, output, at, priority, prefix) is None
    events = []
    for at, kind, value in commands:
        events += engine.advance_to(at)
        if kind == "speed":
            engine.set_speed(*value)
        else:
            engine.cancel(value)
    return events + engine.advance_to(1e6)


def by_request(events):
    return {(event.request_id, event.kind): event for event in events}


SCHEDULING = st.sampled_from(["chunked", "prefill_first"])


@given(st.integers(0, 2**32), SCHEDULING)
@settings(max_examples=200)
def test_skipping_agrees_with_every_token_computed(seed, scheduling):
    spec, requests, commands = scenario(seed, scheduling)
    fast = EngineInstance(A100, LLAMA_7B, spec)
    slow = PerTokenEngine(A100, LLAMA_7B, spec)
    got, want = by_request(play(fast, requests, commands)), by_request(play(slow, requests, commands))
    assert got.keys() == want.keys()
    for key, event in want.items():
        assert got[key].tokens == event.tokens
        assert got[key].at_seconds == pytest.approx(event.at_seconds, rel=1e-9, abs=1e-9)
    arrived = {request_id: at for at, request_id, *_ in requests}
    for request_id, kind in want:
        if kind is EventKind.FINISHED and (request_id, EventKind.FIRST_TOKEN) in want:
            assert _latencies(got, request_id, arrived) == pytest.approx(
                _latencies(want, request_id, arrived), rel=1e-3
            )
    assert fast.load().preemptions == slow.preemptions


@given(st.integers(0, 2**32))
@settings(max_examples=100)
def test_the_percentiles_of_ttft_and_tpot_agree_within_a_thousandth(seed):
    """What the figure `simulator-speed` tells for one trace, for any load: prefixes, priorities, cancellations, clocks."""
    spec, requests, commands = scenario(seed)
    told = []
    for kind in (EngineInstance, PerTokenEngine):
        events = by_request(play(kind(A100, LLAMA_7B, spec), requests, commands))
        arrived = {request_id: at for at, request_id, *_ in requests}
        ends = [key for key, what in events if what is EventKind.FINISHED]
        seen = [
            _latencies(events, key, arrived)[:2] for key in ends if (key, EventKind.FIRST_TOKEN) in events
        ]
        told.append(np.percentile(seen or [(1.0, 1.0)], [50, 99], axis=0))
    assert told[0] == pytest.approx(told[1], rel=1e-3, abs=1e-12)


@given(st.integers(0, 2**32))
@settings(max_examples=25)
def test_seconds_since_1970_are_fine_enough(seed):
    spec, requests, _ = scenario(seed)
    origin = 1_760_000_000.0
    early = by_request(play(EngineInstance(A100, LLAMA_7B, spec), requests, []))
    moved = [(origin + at, *rest) for at, *rest in requests]
    late = EngineInstance(A100, LLAMA_7B, spec, started_seconds=origin)
    for at, request_id, prompt, output, priority, prefix in moved:
        assert late.submit(request_id, prompt, output, at, priority, prefix) is None
    for key, event in by_request(late.advance_to(origin + 1e6)).items():
        assert event.at_seconds - origin == pytest.approx(early[key].at_seconds, abs=2e-3)


def _latencies(events, request_id, arrived):
    first = events[request_id, EventKind.FIRST_TOKEN].at_seconds
    last = events[request_id, EventKind.FINISHED]
    return first - arrived[request_id], (last.at_seconds - first) / max(last.tokens - 1, 1), last.at_seconds


@given(st.integers(0, 2**32), st.integers(1, 60), SCHEDULING)
def test_how_time_is_cut_does_not_change_a_single_bit(seed, pieces, scheduling):
    spec, requests, commands = scenario(seed, scheduling)
    whole = play(EngineInstance(A100, LLAMA_7B, spec), requests, commands)
    engine = EngineInstance(A100, LLAMA_7B, spec)
    for at, request_id, prompt, output, priority, prefix in requests:
        engine.submit(request_id, prompt, output, at, priority, prefix)
    cuts = [(at, "look", None) for at in np.linspace(0.0, requests[-1][0] + 5.0, pieces).tolist()]
    events = []
    for at, kind, value in sorted(commands + cuts, key=lambda each: each[0]):
        events += engine.advance_to(at)
        if kind == "speed":
            engine.set_speed(*value)
        elif kind == "cancel":
            engine.cancel(value)
        else:
            check_bounds(engine, requests)
    assert events + engine.advance_to(1e6) == whole


def check_bounds(engine, requests):
    load, phases = engine.load(), engine.phases()
    assert 0 <= load.kv_free_tokens <= load.kv_capacity_tokens
    assert 0 <= load.outstanding_tokens <= 2 * sum(prompt + output for _, _, prompt, output, *_ in requests)
    assert load.running <= engine.spec.max_num_seqs
    busy = phases.prefill_seconds + phases.decode_seconds
    assert phases.prefill_seconds >= 0
    assert phases.decode_seconds >= 0
    assert busy + phases.idle_seconds == pytest.approx(engine.now - engine.started, abs=1e-9)


@given(st.integers(0, 2**32), SCHEDULING)
def test_work_is_conserved_and_time_runs_forward(seed, scheduling):
    spec, requests, _ = scenario(seed, scheduling)
    engine = EngineInstance(A100, LLAMA_7B, spec)
    events = play(engine, requests, [])
    times = [event.at_seconds for event in events]
    assert times == sorted(times)
    finished = {event.request_id: event.tokens for event in events if event.kind is EventKind.FINISHED}
    assert finished == {request_id: output for _, request_id, _, output, *_ in requests}
    firsts = {event.request_id for event in events if event.kind is EventKind.FIRST_TOKEN}
    assert firsts == {request_id for request_id, output in finished.items() if output}
    load, phases = engine.load(), engine.phases()
    assert (load.running, load.waiting, load.outstanding_tokens) == (0, 0, 0)
    assert load.kv_free_tokens == load.kv_capacity_tokens
    decoded = sum(max(request[3] - 1, 0) for request in requests)
    prompts = sum(request[2] for request in requests)
    if not load.preemptions:
        assert phases.decode_tokens == decoded
        assert phases.prefill_tokens + load.prefix_hit_tokens == prompts
    assert phases.prefill_tokens + load.prefix_hit_tokens >= prompts


@given(st.integers(0, 2**32), SCHEDULING)
@settings(max_examples=80)
def test_requests_that_change_engines_agree_too(seed, scheduling):
    spec, requests, _ = scenario(seed, scheduling)
    rng = np.random.Generator(np.random.PCG64([seed, 1]))
    moves = sorted(
        (float(rng.uniform(0, requests[-1][0] + 2.0)), int(rng.integers(0, 40))) for _ in range(12)
    )
    flags = rng.integers(0, 2, len(requests)).tolist()
    cached = float(rng.choice([0.0, 0.5, 1.0]))
    fast = hand_around(EngineInstance, spec, requests, moves, flags, cached)
    slow = hand_around(PerTokenEngine, spec, requests, moves, flags, cached)
    assert fast.keys() == slow.keys()
    for key, (at, tokens) in slow.items():
        assert fast[key][1] == tokens
        assert fast[key][0] == pytest.approx(at, rel=1e-9, abs=1e-9)
    assert {key[2] for key in fast if key[1] is EventKind.FINISHED} == {request[1] for request in requests}


def hand_around(kind, spec, requests, moves, flags, cached):
    """Two engines; some requests leave the first by a flag or at drawn moments, and go on in the second.

    Time is cut every quarter of a second, then coarsely: what leaves within one is taken over at its end.
    """
    first, second = kind(A100, LLAMA_7B, spec), kind(A100, LLAMA_7B, spec)
    for (at, request_id, prompt, output, priority, prefix), flag in zip(requests, flags, strict=True):
        first.submit(request_id, prompt, output, at, priority, prefix, bool(flag))
    seen, moves, reserved = {}, list(moves), []
    for at in np.concatenate([np.arange(0.0, requests[-1][0] + 3.0, 0.25), np.arange(1, 60) * 1e5]).tolist():
        for name, engine in (("first", first), ("second", second)):
            for event in engine.advance_to(at):
                seen[name, event.kind, event.request_id] = (event.at_seconds, event.tokens)
                if event.kind is EventKind.HANDED_OVER:
                    handover = first.handover(event.request_id)
                    second.take_over(handover, int(cached * handover.context_tokens))
                    assert first.release(event.request_id)
        while reserved:
            second.unreserve(reserved.pop())  # nothing is left where it did not come to the move
        while moves and moves[0][0] <= at:
            request_id = moves.pop(0)[1] % len(requests)
            _, _, prompt, output, *_ = requests[request_id]
            if request_id not in reserved and first.hand_over(request_id):
                reserved.append(request_id)
                second.reserve(request_id, (prompt + output) * (1 + request_id % 2) // 2)
    return seen
