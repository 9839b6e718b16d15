"""Measured step times: exactly the published fits, in both engines, and never without a source."""

from __future__ import annotations

import math

import msgspec
import pytest

from simulator.physics.engine import EngineInstance
from simulator.physics.measured import (
    KNOWN,
    LLAMA_7B_A10_LLUMNIX,
    OPT_13B_A100_DISTSERVE,
    MeasuredCost,
    lines,
    with_large_batches,
)
from simulator.physics.reference import PerTokenEngine
from simulator.physics.roofline import kv_capacity_tokens, prefill_seconds, step_cost
from simulator.physics.specs import EngineSpec
from tests.physics.worlds import A100, LLAMA_7B

# (tokens of the prompt, ms): 5.6 + 0.203 n + 5.1e-6 n²; Llumnix fig. 10 itself has 58, 110, 220, 436, 940, 1995.
PROMPTS = [(256, 57.9), (512, 110.9), (1_024, 218.8), (2_048, 442.7), (4_096, 922.7), (8_192, 2_010.8)]


@pytest.mark.parametrize(("tokens", "milliseconds"), PROMPTS)
def test_a_prompt_on_the_a10_takes_what_the_fit_says(tokens: int, milliseconds: float) -> None:
    found = LLAMA_7B_A10_LLUMNIX.cost.seconds(0, tokens, 0, tokens * tokens / 2)
    assert found * 1e3 == pytest.approx(milliseconds, rel=0.002)


@pytest.mark.parametrize(("batch", "milliseconds"), [(1, 43.3), (2, 43.57), (32, 51.67)])
def test_a_decode_step_on_the_a10_takes_what_the_fit_says(batch: int, milliseconds: float) -> None:
    assert LLAMA_7B_A10_LLUMNIX.cost.seconds(batch, 0, 8_192, 0.0) * 1e3 == pytest.approx(
        milliseconds, rel=1e-6
    )


@pytest.mark.parametrize(
    ("batch", "context", "milliseconds"),
    [
        pytest.param(1, 1_000, 19.93 + 0.6269 + 0.03851, id="one sequence"),
        pytest.param(94, 50_000, 19.93 + 31.345 + 0.03851 * 94, id="just below the other kernels"),
        pytest.param(95, 50_000, 7.166 + 28.99 + 0.1583 * 95, id="with them"),
        pytest.param(200, 50_000, 7.166 + 28.99 + 31.66, id="far above"),
    ],
)
def test_distserves_decode_has_two_lines(batch: int, context: int, milliseconds: float) -> None:
    found = OPT_13B_A100_DISTSERVE.cost.at(batch).seconds(batch, 0, context, 0.0)
    assert found * 1e3 == pytest.approx(milliseconds, rel=1e-6)


def test_distserves_prompt_is_its_parabola() -> None:
    found = OPT_13B_A100_DISTSERVE.cost.seconds(0, 1_000, 0, 500_000.0)
    assert found * 1e3 == pytest.approx(18.10 + 101.9 + 7.122, rel=1e-6)


@pytest.mark.parametrize("cost", KNOWN.values(), ids=lambda cost: cost.name)
def test_an_idle_engine_gives_the_first_token_after_the_prompts_time(cost: MeasuredCost) -> None:
    spec = EngineSpec(measured=cost, chunk_tokens=512)
    engine = EngineInstance(A100, LLAMA_7B, spec)
    engine.submit(1, 2_000, 3, 0.0)
    first = engine.advance_to(1e6)[0]
    assert first.at_seconds == pytest.approx(prefill_seconds(cost.cost, 2_000, 512), rel=1e-9)


@pytest.mark.parametrize("admission", ["reserve", "grow"])
def test_both_engines_agree_where_the_batch_crosses_into_the_other_line(admission: str) -> None:
    cost = MeasuredCost(
        name="bent",
        source="made up for this test",
        cost=with_large_batches(
            lines((0.02, 1e-4, 1e-8), (0.03, 1e-6, 1e-4)), lines((0.02, 1e-4, 1e-8), (0.01, 2e-6, 3e-4)), 6
        ),
        kv_tokens=8_000,
    )
    spec = EngineSpec(measured=cost, max_num_seqs=12, chunk_tokens=256, admission=admission)  # type: ignore[arg-type]
    told = []
    for make in (EngineInstance, PerTokenEngine):
        engine = make(A100, LLAMA_7B, spec)
        for number in range(30):
            engine.submit(number, 100 + 37 * (number % 7), 5 + 11 * (number % 9), 0.05 * number)
        events = engine.advance_to(1e6)
        told.append({(event.kind, event.request_id): event.at_seconds for event in events})
    assert told[0] == pytest.approx(told[1], rel=1e-9)
    assert len(told[0]) >= 60


def test_a_slower_clock_stretches_arithmetic_fully_and_bandwidth_weakly() -> None:
    spec = EngineSpec(measured=LLAMA_7B_A10_LLUMNIX)
    full, half = (step_cost(A100, LLAMA_7B, spec, clock) for clock in (1.0, 0.5))
    assert half.matmul == pytest.approx(2.0 * full.matmul)
    assert half.kv == pytest.approx(full.kv * 2.0**0.1)
    assert half.fixed == full.fixed
    slow = step_cost(A100, LLAMA_7B, EngineSpec(measured=OPT_13B_A100_DISTSERVE), speed=0.5)
    assert slow.at(200).seconds(200, 9, 9_999, 5.0) == pytest.approx(
        2.0 * OPT_13B_A100_DISTSERVE.cost.at(200).seconds(200, 9, 9_999, 5.0)
    )


def test_the_measured_kv_capacity_holds_in_whole_blocks() -> None:
    spec = EngineSpec(measured=OPT_13B_A100_DISTSERVE, block_tokens=100)
    assert kv_capacity_tokens(A100, LLAMA_7B, spec) == 66_100


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        pytest.param({"source": " "}, "does not say where its numbers come from", id="no source"),
        pytest.param(
            {"cost": lines((0.1, -1.0, 0.0), (0.1, 0.0, 0.0))},
            "matmul of cost model x is -1.0",
            id="negative",
        ),
        pytest.param(
            {"cost": lines((0.1, math.nan, 0.0), (0.1, 0.0, 0.0))},
            "matmul of cost model x is nan",
            id="no number",
        ),
        pytest.param(
            {"cost": lines((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))}, "takes no time", id="a step for nothing"
        ),
        pytest.param(
            {
                "cost": with_large_batches(
                    lines((0.1, 0, 0), (0.1, 0, 0)), lines((0.1, 0, 0), (0.1, math.inf, 0)), 9
                )
            },
            "kv of cost model x is inf",
            id="a bad second line",
        ),
    ],
)
def test_a_cost_model_that_cannot_be_is_refused(changed: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        msgspec.structs.replace(
            MeasuredCost(name="x", source="here", cost=lines((0.1, 0, 0), (0.1, 0, 0))), **changed
        )
