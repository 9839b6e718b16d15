"""The parts of simulator-speed on a small made-up trace: what it feeds, and what it says of a case."""

import itertools

import numpy as np

from benchmarks.simulator_speed import (
    AZURE_8,
    BLOCK,
    COMMON,
    disagreement,
    many,
    simulate,
    told,
    with_prompts,
)
from simulator.traces.requests import TraceRequest


def trace(count: int) -> list[TraceRequest]:
    rng = np.random.Generator(np.random.PCG64(3))
    at = np.cumsum(rng.exponential(0.2, count)).tolist()
    return [
        TraceRequest(i, at[i], int(rng.integers(20, 2000)), int(rng.integers(1, 300))) for i in range(count)
    ]


def test_skipping_agrees_with_every_token_over_the_percentiles_that_are_told():
    assert disagreement(trace(60)) < 1e-3


def test_a_prompt_without_hashes_begins_with_a_system_prompt_as_far_as_it_is_long_enough():
    for request, plain in zip(with_prompts(trace(40)), trace(40), strict=True):
        assert len(request.block_hashes) == min(COMMON, plain.input_tokens // BLOCK)
        assert (request.input_tokens, request.arrived_seconds) == (plain.input_tokens, plain.arrived_seconds)


def test_the_stream_of_a_million_is_one_and_has_the_rate_asked_for():
    stream = many(trace(50), 1_000_000, 100.0, 1)
    first = list(itertools.islice(stream, 2_000))
    assert [request.line for request in first] == list(range(2_000))
    assert 18.0 < first[-1].arrived_seconds < 22.0
    assert first[0].input_tokens == first[50].input_tokens


def test_a_case_tells_what_happened_in_it():
    outcome, cpu, wall = simulate(AZURE_8, list(with_prompts(trace(60))), 1)
    figures = told(outcome, cpu)
    assert figures["completed"] == 60
    assert figures["prefix_hit_tokens"] > 0
    assert figures["prefill_chunks"] >= 60
    assert cpu > 0.0
    assert wall > 0.0
