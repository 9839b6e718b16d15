"""Stable hashing: golden values, so that no build, process or Python version draws other ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.plan import Context
from cluster.seeds import stable_hash


@pytest.mark.parametrize(
    ("parts", "golden"),
    [
        pytest.param((), 0xE4A6A0577479B2B4, id="nothing"),
        pytest.param(("a",), 0x40F89E395B66422F, id="one letter"),
        pytest.param(("a", "b"), 0xF84C4D669FE0D410, id="two parts"),
        pytest.param((0, "planner", "", 17), 0xD99F24C66D92A42E, id="a seed, a loop, no scope, a tick"),
        pytest.param(("größe", 1.5, None), 0xCB838D982EB0638F, id="anything with a text"),
    ],
)
def test_the_hash_of_these_parts_never_changes(parts: tuple[object, ...], golden: int) -> None:
    assert stable_hash(*parts) == golden


def test_where_one_part_ends_matters() -> None:
    assert (
        len({stable_hash("ab", "c"), stable_hash("a", "bc"), stable_hash("abc"), stable_hash("a", "b", "c")})
        == 4
    )


def test_a_number_and_its_text_are_the_same_part() -> None:
    assert stable_hash(1, "x") == stable_hash("1", "x")


@given(st.lists(st.text()))
def test_the_hash_fits_sixty_four_bits(parts: list[str]) -> None:
    assert 0 <= stable_hash(*parts) < 2**64


def context(**more: object) -> Context:
    return Context(**{"now_seconds": 0.0, "tick": 3, "seed": 7, "loop": "power", "scope": ("row",), **more})  # type: ignore[arg-type]


def test_a_context_draws_the_same_numbers_every_time_it_is_asked() -> None:
    assert np.array_equal(context().rng("demand").random(4), context().rng("demand").random(4))


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(context(seed=8), id="another seed"),
        pytest.param(context(loop="planner"), id="another loop"),
        pytest.param(context(scope=("row", "hall")), id="another scope"),
        pytest.param(context(tick=4), id="the next tick"),
    ],
)
def test_another_question_draws_other_numbers(other: Context) -> None:
    assert context().rng("demand").random() != other.rng("demand").random()


def test_a_substream_is_its_own_and_does_not_depend_on_time_or_epoch() -> None:
    assert context().rng("a").random() != context().rng("b").random()
    assert context().rng("a").random() != context().rng().random()
    assert context().rng("a").random() == context(now_seconds=99.0, epoch=5, units=1).rng("a").random()


def test_the_first_draw_of_a_context_is_golden() -> None:
    assert context().rng("demand").integers(0, 2**32, 3).tolist() == [827802584, 2247879287, 2954895227]
