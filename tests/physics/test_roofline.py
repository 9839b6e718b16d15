"""Each input of the step time moved alone, and the output moving as the formula says."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.profiles.steptime import GpuFigures, ModelFigures, StepTime
from simulator.physics.catalogue import A100_80, GPU_SPECS, H100, L4
from simulator.physics.roofline import kv_capacity_tokens, prefill_seconds, step_cost
from simulator.physics.specs import EngineSpec, GpuSpec, ModelSpec
from tests.physics.worlds import LLAMA_7B

BANDWIDTH, FLOPS = 2039e9 * 0.875, 312e12 * 0.73
WEIGHTS, MATMUL, FIXED = 13.48e9 / BANDWIDTH, 2 * 6.74e9 / FLOPS, 0.0034
KV, PAIR = 524_288 / BANDWIDTH, 4 * 4096 * 32 / FLOPS
COST = step_cost(A100_80, LLAMA_7B, EngineSpec())


@pytest.mark.parametrize(
    ("batch", "prefill", "context", "pairs", "want"),
    [
        pytest.param(1, 0, 0, 0, WEIGHTS + FIXED, id="one decode reads the weights once"),
        pytest.param(32, 0, 0, 0, WEIGHTS + FIXED, id="a batch below the knee costs nothing more"),
        pytest.param(200, 0, 0, 0, 200 * MATMUL + FIXED, id="a batch above the knee is bound by arithmetic"),
        pytest.param(8, 0, 8000, 0, WEIGHTS + FIXED + 8000 * KV, id="each context token is read"),
        pytest.param(0, 2048, 0, 0, 2048 * MATMUL + FIXED, id="a chunk of prompt is arithmetic"),
        pytest.param(8, 1000, 0, 0, 1008 * MATMUL + FIXED, id="decodes ride along in a chunk"),
        pytest.param(0, 1000, 0, 5e5, 1000 * MATMUL + 5e5 * PAIR + FIXED, id="attention grows with pairs"),
    ],
)
def test_step_time_follows_load(batch, prefill, context, pairs, want):
    assert COST.seconds(batch, prefill, context, pairs) == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("clock", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("speed", [0.8, 1.0])
def test_compute_follows_the_clock_bandwidth_barely_and_the_node_stretches_all(clock, speed):
    cost = step_cost(A100_80, LLAMA_7B, EngineSpec(), clock, speed)
    compute = 2048 * MATMUL / clock + FIXED
    assert cost.seconds(0, 2048, 0, 0) == pytest.approx(compute / speed, rel=1e-12)
    memory = (WEIGHTS + 5000 * KV) / clock**0.10 + FIXED
    assert cost.seconds(8, 0, 5000, 0) == pytest.approx(memory / speed, rel=1e-12)


@pytest.mark.parametrize("ways", [2, 4, 8])
def test_tensor_parallelism_divides_work_and_adds_two_all_reduces_a_layer(ways):
    cost = step_cost(A100_80, LLAMA_7B, EngineSpec(tensor_parallel=ways))
    wire = 4 * 4 * 4096 * (ways - 1) / (ways * 300e9 * 0.77)
    want = WEIGHTS / ways + 100 * KV / ways + 2 * 32 * (9e-6 + wire) + FIXED
    assert cost.seconds(4, 0, 100, 0) == pytest.approx(want, rel=1e-12)


def test_tensor_parallelism_over_pcie_is_bad():
    small = msgspec.structs.replace(LLAMA_7B, weight_bytes=2_000_000_000)
    one, eight = (step_cost(GPU_SPECS["L40S"], small, EngineSpec(tensor_parallel=ways)) for ways in (1, 8))
    assert eight.seconds(64, 0, 0, 0) > one.seconds(64, 0, 0, 0)


def test_a_prompt_costs_the_same_arithmetic_however_it_is_chunked():
    whole, parts = prefill_seconds(COST, 4096, 4096), prefill_seconds(COST, 4096, 1024)
    assert parts - whole == pytest.approx(3 * FIXED, rel=1e-9)
    assert whole == pytest.approx(4096 * MATMUL + 4096**2 / 2 * PAIR + FIXED, rel=1e-12)


def test_a_run_of_decode_steps_is_the_sum_of_its_steps():
    one_by_one = math.fsum(COST.seconds(7, 0, 900 + 7 * step, 0) for step in range(50))
    assert COST.run_seconds(7, 900, 50) == pytest.approx(one_by_one, rel=1e-12)


def test_eight_bit_weights_run_on_eight_bit_cores_where_there_are_any():
    fp8 = msgspec.structs.replace(LLAMA_7B, precision="fp8")
    on_h100 = step_cost(H100, fp8, EngineSpec()).matmul / step_cost(H100, LLAMA_7B, EngineSpec()).matmul
    on_a100 = step_cost(A100_80, fp8, EngineSpec()).matmul / COST.matmul
    assert (on_h100, on_a100) == (pytest.approx(0.5), pytest.approx(1.0))


def test_the_floor_of_a_token_is_weights_over_bandwidth():
    floor = LLAMA_7B.weight_bytes / L4.bandwidth_bytes_per_second
    assert floor == pytest.approx(0.045, abs=0.001)  # why fp16 7B cannot do 40 ms on an L4
    assert step_cost(L4, LLAMA_7B, EngineSpec()).seconds(1, 0, 0, 0) > floor


def test_kv_cache_is_what_the_weights_leave_in_whole_blocks():
    tokens = kv_capacity_tokens(A100_80, LLAMA_7B, EngineSpec())
    assert tokens == (0.9 * 80 * 2**30 - 13.48e9) // 524_288 // 16 * 16
    big = msgspec.structs.replace(LLAMA_7B, weight_bytes=80 * 2**30)
    assert kv_capacity_tokens(A100_80, big, EngineSpec()) == 0


@given(
    product=st.sampled_from(sorted(GPU_SPECS)),
    ways=st.sampled_from([1, 2, 4, 8]),
    precision=st.sampled_from(["fp16", "bf16", "fp8", "int4"]),
    batch=st.integers(0, 300),
    prompt=st.integers(0, 4000),
    context=st.integers(0, 200_000),
)
def test_planner_and_simulator_have_the_same_step_time(product, ways, precision, batch, prompt, context):
    gpu = GPU_SPECS[product]
    figures = GpuFigures(
        product,
        gpu.memory_bytes,
        gpu.bandwidth_bytes_per_second,
        gpu.flops_per_second,
        gpu.flops_8bit_per_second,
        gpu.link_bytes_per_second,
        gpu.link,
    )
    planner = StepTime(figures, ModelFigures("m", 6.74e9, 524_288, 4096, 32), ways, precision)
    weight_bytes = round(planner.model.weight_bytes(precision))
    model = msgspec.structs.replace(LLAMA_7B, weight_bytes=weight_bytes, precision=precision)
    ours = step_cost(gpu, model, EngineSpec(tensor_parallel=ways))
    want = planner.seconds(batch, prompt, context, prompt_tokens=prompt)
    assert ours.seconds(batch, prompt, context, prompt * prompt / 2) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"memory_bytes": 0}, "memory_bytes of GPU A100-80 is 0", id="no memory"),
        pytest.param(
            {"bandwidth_bytes_per_second": math.inf}, "must be a positive finite", id="endless bandwidth"
        ),
        pytest.param({"tdp_watts": 500}, "must rise", id="board power above what it can draw"),
        pytest.param({"max_mhz": 1000}, "base_mhz 1275", id="clocks upside down"),
    ],
)
def test_an_impossible_gpu_is_refused_with_the_field(change, says):
    fields = {name: getattr(A100_80, name) for name in GpuSpec.__struct_fields__}
    with pytest.raises(ValueError, match=says):
        GpuSpec(**(fields | change))


@pytest.mark.parametrize(
    ("spec", "fields", "says"),
    [
        pytest.param(
            EngineSpec, {"chunk_tokens": 256}, "must exceed max_num_seqs", id="prompts would starve"
        ),
        pytest.param(EngineSpec, {"memory_fraction": 1.5}, "at most 1", id="more memory than there is"),
        pytest.param(EngineSpec, {"tensor_parallel": 0}, "tensor_parallel", id="no GPU"),
        pytest.param(
            ModelSpec,
            {
                "name": "x",
                "parameters": 1,
                "weight_bytes": 1,
                "layers": 0,
                "hidden": 1,
                "kv_bytes_per_token": 1,
            },
            "layers of model x",
            id="no layers",
        ),
    ],
)
def test_an_impossible_engine_or_model_is_refused_with_the_field(spec, fields, says):
    with pytest.raises(ValueError, match=says):
        spec(**fields)


@pytest.mark.parametrize(("clock", "speed"), [(0.0, 1.0), (1.0, 0.0), (-0.5, 1.0)])
def test_a_clock_or_speed_of_zero_is_refused(clock, speed):
    with pytest.raises(ValueError, match="must both be positive"):
        step_cost(A100_80, LLAMA_7B, EngineSpec(), clock, speed)
