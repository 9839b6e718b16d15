"""Replay of a corpus: every decision of these stories, with its reasons and numbers, is what it was.

A change that is meant is taken over by `python -m tests.policies.stories`, and its difference read before it is kept.
"""

from __future__ import annotations

import pytest

from tests.policies.stories import FOLDER, SEEDS, rounded, story


@pytest.mark.parametrize("seed", SEEDS)
def test_every_decision_of_a_story_is_what_it_was(seed: int) -> None:
    kept = (FOLDER / f"seed-{seed:02}.txt").read_text(encoding="utf-8").splitlines()
    now = story(seed).splitlines()
    for number, (before, after) in enumerate(zip(kept, now, strict=False), start=1):
        assert after == before, f"line {number} of seed-{seed:02}.txt is decided differently"
    assert len(now) == len(kept)


def test_the_corpus_holds_these_stories_and_no_others() -> None:
    assert sorted(path.name for path in FOLDER.iterdir()) == [f"seed-{seed:02}.txt" for seed in SEEDS]


def test_numbers_are_kept_to_seven_figures() -> None:
    assert rounded({"a": [1.23456789e3, -0.0, 1e-12, True, 3], "b": "x"}) == {
        "a": [1234.568, 0.0, 0.0, True, 3],
        "b": "x",
    }
