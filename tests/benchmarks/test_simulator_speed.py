"""The parts of simulator-speed on a small made-up trace: what it feeds, and what it says of a case."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmarks.base import Arguments, BenchmarkError
from benchmarks.simulator_speed import (
    AGREEMENT,
    AZURE,
    AZURE_8,
    BLOCK,
    COMMON,
    disagreement,
    in_a_process,
    many,
    simulate,
    told,
    with_prompts,
)
from simulator.traces.requests import TraceRequest

ROOT = Path(__file__).parents[2]


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


def test_each_part_is_a_process_of_its_own_on_data_of_the_same_layout(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    file = tmp_path / AZURE
    file.parent.mkdir()
    lines = [f"2023-11-16 18:15:{at:02d}.5000000,{100 + at},{10 + at}" for at in range(40)]
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(lines) + "\n")
    agreed = in_a_process(AGREEMENT, Arguments(data=tmp_path, quick=True))
    assert 0.0 <= agreed.difference < 1e-3
    assert not agreed.machine_code
    case = in_a_process(AZURE_8.name, Arguments(data=tmp_path, seed=3))
    assert case.figures["completed"] == 40
    assert case.peak_rss_mb > 10.0


def test_a_trace_that_is_not_there_is_said_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(BenchmarkError, match=r"Give the folder that has .*azure2023_conv.csv with --data"):
        in_a_process(AZURE_8.name, Arguments(data=tmp_path))
