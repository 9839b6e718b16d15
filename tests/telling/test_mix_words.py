"""A mix in words, which never outgrows what its field may hold."""

from __future__ import annotations

import pytest

from controller.telling.statuses import MIX_LIMIT, mix_words

LONG = {f"accelerator-number-{i:02}x8-bf16": 100 for i in range(40)}


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        pytest.param({}, "", id="nothing"),
        pytest.param({"L4x1-bf16": 2, "A100x2-bf16": 1}, "1 A100x2-bf16 + 2 L4x1-bf16", id="two parts"),
        pytest.param({"y" * 300: 1, "x" * 300: 1}, f"1 {'x' * 300} + 1 more", id="one part too much"),
        pytest.param({"x" * 600: 3}, "1 more", id="a part that alone is too long"),
    ],
)
def test_a_mix_in_words(counts: dict[str, int], words: str) -> None:
    assert mix_words(counts) == words


def test_of_a_long_mix_the_parts_left_out_are_counted() -> None:
    text = mix_words(LONG)
    told = text.split(" + ")
    assert len(text) <= MIX_LIMIT
    assert told[-1] == f"{len(LONG) - len(told) + 1} more"
