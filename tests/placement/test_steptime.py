"""The step-time formula: every input moves the output as the formula says."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.profiles.steptime import EARLY_VLLM, MODERN, GpuFigures, ModelFigures, StepConstants, StepTime

L4 = GpuFigures("L4", 24 * 2**30, 300e9, 121e12, 242e12)
A100 = GpuFigures("A100-80", 80 * 2**30, 2039e9, 312e12, 0.0, 300e9, "nvlink")
H100 = GpuFigures("H100", 80 * 2**30, 3350e9, 989e12, 1978e12, 450e9, "nvlink")
SEVEN_B = ModelFigures("llama-2-7b", 6.738e9, 524_288, 4096, 32)
PLAIN = StepConstants(bandwidth_fraction=1.0, compute_fraction=1.0, fixed_seconds=0.0)


def test_a_lone_decode_step_reads_the_weights_once():
    step = StepTime(L4, SEVEN_B, 1, "fp16", PLAIN)
    assert step.seconds(1, 0, 0) == pytest.approx(6.738e9 * 2 / 300e9)
    assert step.floor_seconds() == pytest.approx(0.04492)


def test_a_large_step_is_bound_by_arithmetic():
    step = StepTime(L4, SEVEN_B, 1, "fp16", PLAIN)
    assert step.seconds(0, 2048, 0) == pytest.approx(2 * 6.738e9 * 2048 / 121e12)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"context_tokens": 1000}, 1000 * 524_288 / 300e9, id="context reads the cache"),
        pytest.param({"prefill_tokens": 100}, 0.0, id="a small prefill hides behind the weights"),
        pytest.param(
            {"prefill_tokens": 100, "prompt_tokens": 400}, 2 * 100 * 400 * 4096 * 32 / 121e12, id="attention"
        ),
    ],
)
def test_each_term_adds_what_the_formula_says(change, expected):
    step = StepTime(L4, SEVEN_B, 1, "fp16", PLAIN)
    base = {"batch": 1, "prefill_tokens": 0, "context_tokens": 0}
    assert step.seconds(**{**base, **change}) - step.seconds(**base) == pytest.approx(expected, abs=1e-12)


def test_a_slower_clock_stretches_arithmetic_only():
    step = StepTime(L4, SEVEN_B, 1, "fp16", PLAIN)
    assert step.seconds(1, 0, 500, compute_scale=0.5) == step.seconds(1, 0, 500)
    assert step.seconds(0, 2048, 0, compute_scale=0.5) == pytest.approx(2 * step.seconds(0, 2048, 0))
    with_prompt = step.seconds(0, 2048, 0, compute_scale=0.5, prompt_tokens=4000)
    assert with_prompt == pytest.approx(2 * step.seconds(0, 2048, 0, prompt_tokens=4000))


def test_overheads_are_per_step_and_per_sequence():
    step = StepTime(L4, SEVEN_B, 1, "fp16", EARLY_VLLM)
    more = StepTime(L4, SEVEN_B, 1, "fp16", msgspec.structs.replace(EARLY_VLLM, fixed_seconds=0.011))
    assert more.seconds(3, 0, 0) - step.seconds(3, 0, 0) == pytest.approx(0.001)
    assert step.seconds(5, 0, 0) - step.seconds(4, 0, 0) == pytest.approx(0.0005)


def test_tensor_parallel_splits_work_and_pays_for_two_all_reduces_a_layer():
    constants = msgspec.structs.replace(
        PLAIN, nvlink_fraction=1.0, compute_fraction_parallel_16bit=1.0, nvlink_latency_seconds=1e-5
    )
    two = StepTime(A100, SEVEN_B, 2, "fp16", constants)
    communication = 2 * 32 * (1e-5 + 4 * 8 * 4096 * 1 / (2 * 300e9))
    assert two.seconds(8, 0, 0) == pytest.approx(6.738e9 * 2 / (2039e9 * 2) + communication)
    assert two.kv_capacity_tokens() == pytest.approx((0.9 * 2 * 80 * 2**30 - 6.738e9 * 2) / 524_288)


def test_pcie_all_reduces_cost_more_than_nvlink():
    pcie = msgspec.structs.replace(H100, fabric="pcie", link_bytes_per_second=32e9)
    assert StepTime(pcie, SEVEN_B, 2).seconds(64, 512, 0) > 2 * StepTime(H100, SEVEN_B, 2).seconds(64, 512, 0)


@pytest.mark.parametrize(
    ("gpu", "tensor", "ratio"),
    [
        pytest.param(H100, 1, 2.0, id="8-bit cores double the rate"),
        pytest.param(H100, 2, 2.0 * 0.47 / 0.77, id="but less so in parallel"),
        pytest.param(A100, 1, 1.0, id="without 8-bit cores nothing is gained"),
    ],
)
def test_precision_changes_the_arithmetic_rate(gpu, tensor, ratio):
    wide, narrow = StepTime(gpu, SEVEN_B, tensor, "bf16"), StepTime(gpu, SEVEN_B, tensor, "fp8")
    slope = [
        step.seconds(1e6 + 1, 0, 0) - step.seconds(1e6, 0, 0) - (step.decode(1).per_sequence)
        for step in (wide, narrow)
    ]
    assert slope[0] / slope[1] == pytest.approx(ratio, rel=1e-4)
    assert narrow.floor_seconds() * 2 == wide.floor_seconds()


def test_a_mixture_of_experts_computes_with_its_active_parameters():
    sparse = msgspec.structs.replace(SEVEN_B, active_parameters=SEVEN_B.parameters / 4)
    step, dense = StepTime(L4, sparse, 1, "fp16", PLAIN), StepTime(L4, SEVEN_B, 1, "fp16", PLAIN)
    assert step.seconds(0, 10_000, 0) == pytest.approx(dense.seconds(0, 10_000, 0) / 4)
    assert step.seconds(1, 0, 0) == dense.seconds(1, 0, 0)


@given(
    batch=st.integers(1, 2000),
    context=st.floats(0, 1e6),
    scale=st.floats(0.2, 1.0),
    tensor=st.sampled_from([1, 2, 4]),
)
def test_decode_coefficients_give_the_same_time(batch, context, scale, tensor):
    step = StepTime(H100, SEVEN_B, tensor, "fp16", MODERN)
    found = step.decode(batch, scale)
    closed = found.fixed + found.per_sequence * batch + found.per_token * context
    assert closed == pytest.approx(step.seconds(batch, 0, context, scale), rel=1e-12)


@given(
    sizes=st.lists(
        st.tuples(st.floats(0, 500), st.floats(0, 5000), st.floats(0, 1e6), st.floats(0, 8000)), min_size=1
    )
)
def test_arrays_and_scalars_agree(sizes):
    step = StepTime(A100, SEVEN_B, 2, "bf16", EARLY_VLLM)
    columns = [np.array(column, dtype=np.float64) for column in zip(*sizes, strict=True)]
    scalars = [step.seconds(b, p, c, prompt_tokens=i) for b, p, c, i in sizes]
    assert step.seconds_array(*columns) == pytest.approx(scalars, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param({"tensor": 0}, "tensor degree of llama-2-7b on L4 is 0", id="no GPU"),
        pytest.param(
            {"precision": "fp12"}, "precision 'fp12' of model llama-2-7b is unknown", id="unknown precision"
        ),
        pytest.param(
            {"gpu": msgspec.structs.replace(L4, bandwidth_bytes_per_second=0.0)},
            "bandwidth.*of L4 is 0",
            id="no bandwidth",
        ),
        pytest.param(
            {"gpu": msgspec.structs.replace(L4, flops_16bit_per_second=math.nan)},
            "flops.*of L4 is nan",
            id="NaN",
        ),
        pytest.param(
            {"model": msgspec.structs.replace(SEVEN_B, layers=-1)}, "layers.*is -1", id="negative layers"
        ),
    ],
)
def test_impossible_figures_are_refused_with_a_sentence(change, text):
    arguments = {"gpu": L4, "model": SEVEN_B, "tensor": 1, "precision": "fp16", **change}
    with pytest.raises(ValueError, match=text):
        StepTime(**arguments)


@pytest.mark.parametrize(("ways", "latencies"), [(2, 1.0), (4, 2.0), (8, 3.0)])
def test_an_all_reduce_takes_longer_with_each_doubling_of_its_gpus(ways, latencies):
    quick, slow = (
        StepTime(H100, SEVEN_B, ways, "bf16", msgspec.structs.replace(PLAIN, nvlink_latency_seconds=each, latency_growth=1.0))
        for each in (0.0, 1e-5)
    )  # fmt: skip
    loads = 4.0, 0.0, 4000.0
    assert slow.seconds(*loads) - quick.seconds(*loads) == pytest.approx(2 * 32 * 1e-5 * latencies)
    flat = StepTime(H100, SEVEN_B, ways, "bf16", msgspec.structs.replace(PLAIN, nvlink_latency_seconds=1e-5))
    assert flat.seconds(*loads) - quick.seconds(*loads) == pytest.approx(2 * 32 * 1e-5)
