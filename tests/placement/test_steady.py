"""The mean step: prompts as work of the steps that carry them, and the terms of a step that add up to it."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.profiles.steady import STEADY_TERMS, running, steady_seconds, steady_terms
from placement.profiles.steptime import MODERN, OPEN, TERMS, GpuFigures, ModelFigures, StepTime

H100 = GpuFigures("H100", 80 * 2**30, 3350e9, 989e12, 1978e12, 450e9, "nvlink")
B200 = GpuFigures("B200", 180 * 2**30, 7700e9, 2250e12, 4500e12, 900e9, "nvlink", 9000e12)
EIGHT_B = ModelFigures("llama-3.1-8b", 8.03e9, 131_072, 4096, 32)
MIXTURE = ModelFigures(
    "gpt-oss-120b", 116.8e9, 73_728, 2880, 36, 5.1e9, 128, 4, 114.7e9, "bf16", 128, 0.5, 4096
)  # fmt: skip


REPLAYED = msgspec.structs.replace(OPEN, launch_layer_seconds=0.0)
"""Launching takes no time, with a prompt or without."""


def of(value):
    return np.array([float(value)])


def test_a_prompt_costs_what_its_step_takes_longer_once_in_as_many_steps_as_it_has_outputs():
    step = StepTime(H100, EIGHT_B, 1, "bf16", REPLAYED)
    alone = step.seconds(8, 0, 8 * 1280)
    carrying = step.seconds(8, 1024, 8 * 1280, prompt_tokens=1024)
    mean = steady_seconds(step, of(8), of(1024), of(512))
    assert mean == pytest.approx(alone + 8 / 512 * (carrying - alone), rel=1e-12)
    spread = step.seconds(8, 8 * 1024 / 512, 8 * 1280, prompt_tokens=1024)
    assert mean > 1.02 * spread, "spread over all steps its arithmetic would hide behind the weights"


def test_contexts_that_nobody_counted_are_steps_of_empty_ones():
    step, none = StepTime(H100, EIGHT_B), of(0)
    for outputs in (np.inf, 64):
        assert steady_seconds(step, of(8), none, of(np.inf)) == pytest.approx(step.seconds(8, 0, 0))
        terms = steady_terms(step, running(step, of(8), none, of(outputs)), none, of(outputs))
        assert np.isfinite(sum(terms.values()))


def test_when_every_step_carries_prompts_the_mean_is_that_step():
    step = StepTime(H100, EIGHT_B, 1, "bf16", REPLAYED)
    found = steady_seconds(step, of(64), of(4000), of(20))
    assert found == pytest.approx(step.seconds(64, 64 * 200, 64 * 4010, prompt_tokens=4000), rel=1e-12)


def test_a_request_waits_for_the_prompts_of_others_and_its_own_is_not_among_them():
    step = StepTime(H100, EIGHT_B, 1, "bf16", REPLAYED)
    alone = step.seconds(8, 0, 8 * 1280)
    carrying = step.seconds(8, 1024, 8 * 1280, prompt_tokens=1024)
    seen = steady_seconds(step, of(8), of(1024), of(512), own=False)
    assert seen == pytest.approx(alone + 7 / 511 * (carrying - alone), rel=1e-12)
    single = steady_seconds(step, of(1), of(4000), of(20), own=False)
    assert single == pytest.approx(step.seconds(1, 0, 4010), rel=1e-12)


@pytest.mark.parametrize(
    ("told", "prompt", "launch", "longest"),
    [("launching hides behind computing", 8000, 1e-4, "compute"), ("computing hides behind launching", 16, 1e-2, "launch")],
)  # fmt: skip
def test_a_step_with_a_prompt_takes_the_longer_of_computing_and_launching(told, prompt, launch, longest):
    step = StepTime(H100, EIGHT_B, 1, "bf16", msgspec.structs.replace(OPEN, launch_layer_seconds=launch))
    without = StepTime(H100, EIGHT_B, 1, "bf16", REPLAYED)
    loads = of(4), of(prompt), of(4)
    terms = steady_terms(step, *loads)
    computing, launching = steady_seconds(without, *loads)[0], 32 * launch
    assert tuple(terms) == STEADY_TERMS, told
    assert max(terms, key=lambda name: terms[name][0]) == longest, told
    assert sum(terms.values())[0] == pytest.approx(max(computing, launching), rel=0.01), told


def test_the_addends_of_a_mean_step_are_its_gradient():
    step = StepTime(H100, EIGHT_B, 4, "bf16", msgspec.structs.replace(OPEN, launch_layer_seconds=3e-4))
    loads = of(64), of(1024), of(256)
    slope = steady_terms(step, *loads)["launch"][0]
    more = StepTime(
        H100, EIGHT_B, 4, "bf16", msgspec.structs.replace(OPEN, launch_layer_seconds=3e-4 * 1.0001)
    )
    moved = steady_seconds(more, *loads)[0] - steady_seconds(step, *loads)[0]
    assert moved / 1e-4 == pytest.approx(slope, rel=1e-3)
    assert slope > 0.0


@given(
    batch=st.floats(1, 500), prefill=st.floats(0, 8000), context=st.floats(0, 1e6), prompt=st.floats(0, 8000),
    tensor=st.sampled_from([1, 2, 8]), data=st.sampled_from([1, 4]), precision=st.sampled_from(["bf16", "fp8", "fp4"]),
    model=st.sampled_from([EIGHT_B, MIXTURE]), constants=st.sampled_from([MODERN, OPEN]),
)  # fmt: skip
def test_terms_add_up_to_the_step(  # noqa: PLR0917 - one value of each
    batch, prefill, context, prompt, tensor, data, precision, model, constants
):
    step = StepTime(B200, model, tensor, precision, constants, data)
    terms = step.terms(of(batch), of(prefill), of(context), of(prompt))
    assert tuple(terms) == TERMS
    assert sum(terms.values()) == pytest.approx(
        step.seconds(batch, prefill, context, prompt_tokens=prompt), rel=1e-9
    )


@given(batch=st.floats(1, 200), inputs=st.floats(1, 16_000), outputs=st.floats(1, 4000), more=st.floats(1, 2))
def test_more_requests_or_longer_prompts_never_make_a_token_faster(batch, inputs, outputs, more):
    step = StepTime(H100, EIGHT_B, 2, "fp8", OPEN)
    now = steady_seconds(step, of(batch), of(inputs), of(outputs))
    assert steady_seconds(step, of(batch * more), of(inputs), of(outputs)) >= now * (1 - 1e-9)
    assert all(
        (value >= 0).all() for value in steady_terms(step, of(batch), of(inputs), of(outputs)).values()
    )


@given(
    batch=st.floats(1, 500), inputs=st.floats(1, 16_000), outputs=st.floats(1, 4000), own=st.booleans(),
    model=st.sampled_from([EIGHT_B, MIXTURE]), constants=st.sampled_from([MODERN, OPEN]),
)  # fmt: skip
def test_the_mean_step_is_the_sum_of_its_terms(batch, inputs, outputs, own, model, constants):
    step = StepTime(B200, model, 2, "fp8", constants)
    terms = steady_terms(step, of(batch), of(inputs), of(outputs), own)
    assert steady_seconds(step, of(batch), of(inputs), of(outputs), own) == pytest.approx(
        sum(terms.values()), rel=1e-9
    )


def test_few_tokens_read_few_experts_and_many_read_all():
    step = StepTime(B200, MIXTURE, 1, "fp4", OPEN)
    every = step.weights_seconds(1e6)
    dense = 2 * 2.1e9 / (7700e9 * 0.875)
    assert every == pytest.approx(dense + 114.7e9 * 0.5625 / (7700e9 * 0.8))
    assert step.weights_seconds(1) - dense == pytest.approx((every - dense) * 4 / 128)
    wide = StepTime(B200, MIXTURE, 1, "fp4", OPEN, data=4)
    assert wide.weights_seconds(1e6) - dense == pytest.approx((every - dense) / 4)


def test_a_window_bounds_what_is_read_of_a_long_context():
    step = StepTime(B200, MIXTURE, 1, "fp4", OPEN)
    slope = [step.seconds(1, 0, c + 1) - step.seconds(1, 0, c) for c in (50, 5000)]
    assert slope[0] == pytest.approx(2 * slope[1], rel=1e-6)
    found = step.decode(16)
    assert found.fixed + 16 * found.per_sequence + 50_000 * found.per_token == pytest.approx(
        step.seconds(16, 0, 50_000)
    )


@pytest.mark.parametrize(
    ("concurrency", "want"),
    [pytest.param(10, 10.0, id="all fit"), pytest.param(1e5, None, id="the cache holds fewer")],
)
def test_what_runs_is_what_the_cache_holds(concurrency, want):
    step = StepTime(H100, EIGHT_B, 1, "bf16", OPEN)
    found = running(step, of(concurrency), of(1000), of(200))
    assert found == pytest.approx(want or step.kv_capacity_tokens() / 1100)


def test_more_experts_a_token_than_there_are_is_refused():
    with pytest.raises(ValueError, match="has 9 of 8 experts"):
        StepTime(H100, msgspec.structs.replace(MIXTURE, experts=8, experts_per_token=9))
