"""The roofline as an estimator: one answer a question, kept while the question stands."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster.beliefs import Beliefs
from cluster.codec import from_json, to_json
from cluster.hardware import AcceleratorClass
from cluster.serving import LoadHistogram, Objective, Variant
from placement.catalogue import load
from placement.models import model_spec
from placement.profiles.belief import roofline_belief
from placement.profiles.estimator import (
    CapacityQuestion,
    RooflineCapacity,
    RooflineConfig,
    RooflineState,
    gpu_figures,
)
from placement.profiles.grid import DEFAULT_GRID
from placement.profiles.steptime import GpuFigures

L4 = load().find("L4").accelerator_class()
CHAT = Objective(ttft_seconds=2.0, tpot_seconds=0.1)


def question(**more: Any) -> CapacityQuestion:
    given = {
        "model": model_spec("llama-3.2-3b", {}),
        "variant": Variant(accelerator="L4"),
        "objective": CHAT,
        "accelerator": L4,
    }
    return CapacityQuestion(**{**given, **more})


def product(**more: Any) -> AcceleratorClass:
    return msgspec.structs.replace(L4, **more)


@pytest.mark.parametrize(
    ("flops", "wide", "narrow"),
    [
        ({"bf16": 5.0, "fp16": 4.0, "fp8": 9.0, "int8": 8.0}, 5.0, 9.0),
        ({"fp16": 4.0, "int8": 8.0}, 4.0, 8.0),
        ({"bf16": 0.0, "fp16": 4.0}, 4.0, 0.0),
        ({}, 0.0, 0.0),
    ],
    ids=["bf16 and fp8 first", "fp16 and int8 else", "nothing is nothing", "no figures at all"],
)
def test_a_product_as_the_formula_reads_it(flops: dict[str, float], wide: float, narrow: float) -> None:
    figures = gpu_figures(product(flops=flops, link_bytes_per_second=7, fabric="nvlink"))
    assert figures == GpuFigures(
        name="L4", memory_bytes=24 * 2**30, bandwidth_bytes_per_second=300e9, flops_16bit_per_second=wide,
        flops_8bit_per_second=narrow, link_bytes_per_second=7.0, fabric="nvlink",
    )  # fmt: skip


def test_a_share_of_a_product_has_its_part_of_everything() -> None:
    four_bit = msgspec.structs.replace(L4, flops={**L4.flops, "fp4": 4e14})
    whole, part = gpu_figures(four_bit), gpu_figures(four_bit, 250)
    for name in (
        "memory_bytes",
        "bandwidth_bytes_per_second",
        "flops_16bit_per_second",
        "flops_8bit_per_second",
        "flops_4bit_per_second",
    ):
        assert getattr(part, name) * 4 == getattr(whole, name), name
    asked = question()
    shared = msgspec.structs.replace(asked, variant=msgspec.structs.replace(asked.variant, milli=500))
    state = RooflineCapacity().fold(shared, RooflineCapacity().fold(asked, RooflineCapacity().initial()))
    beliefs = [state.beliefs[each.key] for each in (asked, shared)]
    assert 0.0 <= sum(beliefs[1].grid) < sum(beliefs[0].grid)


def test_a_question_is_answered_by_the_roofline_under_its_own_key() -> None:
    estimator = RooflineCapacity(RooflineConfig(error=0.1))
    asked = question()
    state = estimator.fold(asked, estimator.initial())
    key = Beliefs.capacity_key("llama-3.2-3b", "L4x1-bf16", CHAT.key)
    assert asked.key == key
    answer = estimator.believe(state, 77.0)
    assert list(answer) == [key]
    plain = roofline_belief(gpu_figures(L4), asked.model, asked.variant, CHAT, None)
    assert answer[key] == msgspec.structs.replace(
        plain, request_class=CHAT.key, error=0.1, as_of_seconds=77.0
    )
    assert max(answer[key].grid) > 0.0
    assert RooflineCapacity()._answer(asked).error == 0.0


def test_a_question_that_stands_is_not_answered_again() -> None:
    estimator = RooflineCapacity()
    state = estimator.fold(question(), estimator.initial())
    assert estimator.fold(question(), state) is state
    assert estimator.initial() == RooflineState()


def test_a_changed_question_replaces_the_answer_of_its_key_and_no_other() -> None:
    estimator = RooflineCapacity()
    strict = Objective(ttft_seconds=1.0, tpot_seconds=0.05)
    state = estimator.fold(question(objective=strict), estimator.fold(question(), estimator.initial()))
    assert len(state.beliefs) == 2
    faster = estimator.fold(question(accelerator=product(bandwidth_bytes_per_second=10**12)), state)
    assert len(faster.beliefs) == 2
    assert faster.beliefs[question(objective=strict).key] is state.beliefs[question(objective=strict).key]
    assert max(faster.beliefs[question().key].grid) > max(state.beliefs[question().key].grid)
    assert list(estimator.believe(state, 0.0)) == sorted(state.beliefs)


def test_the_grid_is_that_of_the_measured_load() -> None:
    measured = LoadHistogram(
        service="s",
        input_edges=(50, 500),
        output_edges=(20, 100),
        cells=(1.0, 0.5, 0.25, 0.0),
        window_seconds=60.0,
    )
    belief = RooflineCapacity()._answer(question(load=measured))
    assert (belief.input_edges, belief.output_edges, len(belief.grid)) == ((50, 500), (20, 100), 4)


def test_what_cannot_be_answered_serves_nothing_and_says_so() -> None:
    belief = RooflineCapacity(RooflineConfig(error=0.2))._answer(question(accelerator=product(flops={})))
    assert (belief.excluded, belief.need, belief.have, belief.unit) == ("ProfileHole", 1.0, 0.0, "cells")
    assert belief.grid == (0.0,) * DEFAULT_GRID.size
    assert (belief.input_edges, belief.output_edges) == (DEFAULT_GRID.input_edges, DEFAULT_GRID.output_edges)
    assert (belief.model, belief.variant, belief.request_class, belief.error) == (
        "llama-3.2-3b",
        "L4x1-bf16",
        CHAT.key,
        0.2,
    )


def test_the_state_survives_json() -> None:
    estimator = RooflineCapacity()
    state = estimator.fold(question(), estimator.initial())
    assert from_json(to_json(state), RooflineState) == state
