"""The cache over real HTTP against a server that misbehaves, and that the figures would show a defect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import kube_faults
from benchmarks.base import Arguments, BenchmarkError
from benchmarks.fault_runs import Bench, Outcome
from benchmarks.listwatch import Answer
from controller.store.cache import SOUND, Defects

RUNS = 60


def play(folder: Path, runs: int, defects: Defects = SOUND) -> tuple[list[Outcome], dict[str, int]]:
    async def all_of_them() -> tuple[list[Outcome], dict[str, int]]:
        bench = await Bench.start(folder)
        try:
            return [await bench.play(seed, defects) for seed in range(runs)], dict(bench.server.happened)
        finally:
            await bench.stop()

    return asyncio.run(all_of_them())


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Each fault has its line in the log: thousands of them."""
    with caplog.at_level("CRITICAL"):
        yield


def test_after_any_sequence_of_faults_the_cache_is_equal_and_follows(tmp_path: Path) -> None:
    outcomes, happened = play(tmp_path, RUNS)
    assert [each for each in outcomes if each.problem] == []
    kinds = {kind for kind, count in happened.items() if count}
    assert {
        "stream swap",
        "stream cut_event",
        "stream silence",
        "stream duplicate",
        "list stale",
        "list slow",
    } <= kinds
    assert {"list 410", "list 429", "list 500", "list silent", "watch gone_inside", "watch ends"} <= kinds
    assert happened["lines"] > 5 * RUNS


@pytest.mark.parametrize(("plant", "words"), [
    pytest.param("drop-delete", "the cache holds", id="a dropped delete"),
    pytest.param("stale-relist", "the cache holds", id="a list that forgets nothing"),
    pytest.param("lost-bookmark", "bookmarks did not move", id="a lost bookmark"),
])  # fmt: skip
def test_a_planted_defect_is_seen_again_and_again(tmp_path: Path, plant: str, words: str) -> None:
    outcomes, _ = play(tmp_path, 20, kube_faults.PLANTS[plant])
    diverged = [each.problem for each in outcomes if each.problem]
    assert len(diverged) > 5
    assert any(words in problem for problem in diverged)


def test_the_same_seed_plays_the_same_sequence(tmp_path: Path) -> None:
    assert play(tmp_path, 5) == play(tmp_path, 5)


@pytest.mark.parametrize(("verb", "answer"), list(kube_faults.STORMS.values()), ids=list(kube_faults.STORMS))
def test_no_trouble_of_the_server_becomes_a_storm_of_lists(tmp_path: Path, verb: str, answer: Answer) -> None:
    async def storm() -> tuple[Outcome, int]:
        bench = await Bench.start(tmp_path)
        try:
            return await bench.storm(verb, answer), sum(bench.server.asked.values())
        finally:
            await bench.stop()

    outcome, asked = asyncio.run(storm())
    assert outcome.problem == ""
    assert outcome.most_lists_per_second <= kube_faults.GOAL_LISTS_PER_SECOND
    assert asked < 120, "five minutes, at last one attempt each half minute"


def test_the_figures_are_those_of_the_issue(tmp_path: Path) -> None:
    result = kube_faults.run(Arguments(runs=5, seed=3))
    assert list(result.figures) == ["sequences", "events", "faults", "divergences", "max_lists_per_s"]
    assert result.figures["sequences"] == 5
    assert result.figures["divergences"] == 0
    planted = kube_faults.run(Arguments(runs=5, seed=3, plant="lost-bookmark"))
    assert planted.figures["divergences"] == 5
    assert "bookmarks did not move" in planted.remark
    assert [row.met for row in planted.rows if row.name == "divergences"] == [True]


@pytest.mark.parametrize(("args", "sentence"), [
    pytest.param(Arguments(plant="typo"), "choose one of drop-delete", id="an unknown defect"),
    pytest.param(Arguments(runs=0), "give at least 1", id="nothing to play"),
])  # fmt: skip
def test_what_cannot_be_played_says_why(args: Arguments, sentence: str) -> None:
    with pytest.raises(BenchmarkError, match=sentence):
        kube_faults.run(args)
