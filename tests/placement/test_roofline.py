"""Throughput under an objective: feasibility with its numbers, and the largest batch that keeps it."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.profiles.grid import DEFAULT_GRID, Grid
from placement.profiles.roofline import Limits, throughput_grid
from placement.profiles.steady import steady_seconds
from placement.profiles.steptime import EARLY_VLLM, GpuFigures, ModelFigures, StepConstants, StepTime

T4 = GpuFigures("T4", 16 * 2**30, 320e9, 65e12)
L4 = GpuFigures("L4", 24 * 2**30, 300e9, 121e12, 242e12)
A100 = GpuFigures("A100-80", 80 * 2**30, 2039e9, 312e12, 0.0, 300e9, "nvlink")
H100 = GpuFigures("H100", 80 * 2**30, 3350e9, 989e12, 1978e12, 450e9, "nvlink")
SEVEN_B = ModelFigures("llama-2-7b", 6.738e9, 524_288, 4096, 32)
SEVENTY_B = ModelFigures("llama-3.1-70b", 70.6e9, 327_680, 8192, 80)


def mean_step(step, batch, inputs, outputs):
    return float(steady_seconds(step, *(np.array([float(each)]) for each in (batch, inputs, outputs)))[0])


@pytest.mark.parametrize(
    ("gpu", "model", "limits", "code", "need", "have", "text"),
    [
        pytest.param(
            L4,
            SEVEN_B,
            Limits(0.040),
            "TpotFloor",
            40.0,
            44.92,
            "45 ms a token, 40 ms are asked",
            id="fp16 7B at 40 ms on L4",
        ),
        pytest.param(
            L4,
            SEVEN_B,
            Limits(0.046),
            "TpotFloor",
            46.0,
            54.85,
            "55 ms a token for one request alone",
            id="overheads count too",
        ),
        pytest.param(
            H100,
            SEVENTY_B,
            Limits(0.2),
            "MemoryTooSmall",
            141.2e9,
            77.31e9,
            "needs 141.2 GB",
            id="70B on one H100",
        ),
        pytest.param(
            A100,
            SEVEN_B,
            Limits(0.1, 0.005),
            "TtftFloor",
            5.0,
            22.0,
            "to the first token",
            id="first token in 5 ms",
        ),
    ],
)
def test_a_variant_that_serves_nothing_says_why_with_numbers(gpu, model, limits, code, need, have, text):
    found = throughput_grid(StepTime(gpu, model), DEFAULT_GRID, limits)
    assert not found.requests_per_second.any()
    assert found.infeasible is not None
    assert found.infeasible.code == code
    assert found.infeasible.need == pytest.approx(need, rel=0.01)
    assert found.infeasible.have == pytest.approx(have, rel=0.05)
    assert text in found.infeasible.sentence


@pytest.mark.parametrize(
    ("gpu", "published"),
    [
        pytest.param((2039, 312, 80), ((0.12, 1000, 250, 2.6158),), id="A100-80"),
        pytest.param((3350, 989, 80), ((0.12, 1000, 250, 5.1),), id="H100"),
    ],
)
def test_throughput_is_littles_law_at_the_limit(gpu, published):
    bandwidth, flops, memory = gpu
    figures = GpuFigures("any", memory * 2**30, bandwidth * 1e9, flops * 1e12)
    step = StepTime(figures, SEVEN_B, 1, "fp16", EARLY_VLLM)
    for tpot, inputs, outputs, _ in published:
        found = throughput_grid(step, Grid((inputs,), (outputs,)), Limits(tpot))
        running = float(found.concurrency[0, 0])
        seconds = mean_step(step, running, inputs, outputs)
        assert found.requests_per_second[0, 0] == pytest.approx(running / (outputs * seconds))
        assert seconds <= tpot * (1 + 1e-9)


limits = st.builds(Limits, st.floats(0.005, 0.5), st.one_of(st.just(math.inf), st.floats(0.05, 20)))


@settings(max_examples=60)
@given(limits=limits, gpu=st.sampled_from([T4, L4, A100, H100]), tensor=st.sampled_from([1, 2]))
def test_the_batch_is_the_largest_that_keeps_every_limit(limits, gpu, tensor):
    step = StepTime(gpu, SEVEN_B, tensor, "fp16", EARLY_VLLM)
    found = throughput_grid(step, DEFAULT_GRID, limits)

    def kept(batch, inputs, outputs):
        context = batch * (inputs + outputs / 2)
        steady = mean_step(step, batch, inputs, outputs)
        prefill = max(batch * inputs / outputs, min(inputs, 2048))
        first = steady + math.ceil(inputs / 2048) * step.seconds(
            batch, prefill, context, prompt_tokens=inputs
        )
        memory = batch * (inputs + outputs) <= step.kv_capacity_tokens() * (1 + 1e-9)
        slow = 1 + 1e-6
        return (
            memory
            and batch <= 256 * slow
            and steady <= limits.tpot_seconds * slow
            and first <= limits.ttft_seconds * slow
        )

    for i, inputs in enumerate(DEFAULT_GRID.input_edges):
        for j, outputs in enumerate(DEFAULT_GRID.output_edges):
            batch = float(found.concurrency[i, j])
            if batch > 0:
                assert kept(batch, inputs, outputs)
                assert not kept(batch * 1.001 + 1e-3, inputs, outputs)
            else:
                assert found.requests_per_second[i, j] == 0
                assert not kept(1.001, inputs, outputs)


def test_looser_objectives_and_more_memory_never_carry_less():
    step = StepTime(L4, SEVEN_B, 1, "fp16", EARLY_VLLM)
    roomy = StepTime(msgspec.structs.replace(L4, memory_bytes=48 * 2**30), SEVEN_B, 1, "fp16", EARLY_VLLM)
    tight = throughput_grid(step, DEFAULT_GRID, Limits(0.12, 2.0)).requests_per_second
    assert (throughput_grid(step, DEFAULT_GRID, Limits(0.2, 4.0)).requests_per_second >= tight - 1e-12).all()
    assert (
        throughput_grid(roomy, DEFAULT_GRID, Limits(0.12, 2.0)).requests_per_second >= tight - 1e-12
    ).all()


def test_a_smaller_chunk_needs_more_steps_to_the_first_token_and_hides_more_arithmetic():
    small = StepConstants(chunk_tokens=256)
    grid = Grid((4000,), (250,))
    for ttft, better in ((0.4, False), (5.0, True)):
        wide = throughput_grid(StepTime(A100, SEVEN_B), grid, Limits(0.2, ttft))
        narrow = throughput_grid(StepTime(A100, SEVEN_B, 1, "fp16", small), grid, Limits(0.2, ttft))
        assert (narrow.requests_per_second[0, 0] > wide.requests_per_second[0, 0]) == better


def test_the_largest_batch_of_a_mixture_is_found_where_a_step_is_concave_in_it():
    mixture = ModelFigures("gpt-oss-20b", 20.9e9, 49_152, 2880, 24, 3.6e9, 32, 4, 19.1e9, "bf16", 128, 0.5)
    step = StepTime(L4, mixture, 1, "fp4")
    found = throughput_grid(step, DEFAULT_GRID, Limits(0.03))
    bound = (found.concurrency > 1.0) & (found.concurrency < 255.0)
    assert bound.sum() >= 20
    for i, j in np.argwhere(bound).tolist():
        sizes = DEFAULT_GRID.input_edges[i], DEFAULT_GRID.output_edges[j]
        batch = float(found.concurrency[i, j])
        full = batch * sum(sizes) >= step.kv_capacity_tokens() * (1 - 1e-9)
        assert mean_step(step, batch, *sizes) <= 0.03 * (1 + 1e-9)
        assert full or mean_step(step, batch * 1.001, *sizes) > 0.03


@pytest.mark.parametrize(
    "bad", [Limits(0.0), Limits(-1.0), Limits(math.nan), Limits(math.inf), Limits(0.1, 0.0)]
)
def test_a_limit_that_is_no_positive_time_is_refused(bad):
    with pytest.raises(ValueError, match="positive time"):
        throughput_grid(StepTime(L4, SEVEN_B), DEFAULT_GRID, bad)


def test_memory_bounds_concurrency_exactly():
    step = StepTime(L4, SEVEN_B, 1, "fp16")
    found = throughput_grid(step, Grid((1000,), (1000,)), Limits(10.0))
    assert found.concurrency[0, 0] == pytest.approx(step.kv_capacity_tokens() / 2000)
    assert np.isfinite(found.requests_per_second).all()
