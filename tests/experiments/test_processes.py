"""Runs on processes: order, resumption, and workers that die."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.experiments.outcomes import Outcome, OutcomeFolder
from simulator.experiments.processes import TRIES, on_processes
from simulator.experiments.runs import Run, runs_of
from simulator.experiments.working import work_of

WORKS = "tests.experiments.works"


class Bench:
    """A folder for outcomes, and one in which each run notes that it ran."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "notes"
        self.notes.mkdir()
        self.scenario = str(self.notes).encode()
        self.outcomes = OutcomeFolder(folder / "outcomes", self.scenario)
        self.heard: list[Outcome] = []

    def run(self, work: str, runs: list[Run], workers: int = 2) -> list[Outcome]:
        return on_processes(f"{WORKS}:{work}", self.scenario, runs, self.outcomes, workers, self.heard.append)

    def begun(self, run: Run) -> int:
        file = self.notes / f"{run.point}-{run.seed}".replace("=", "_")
        return file.stat().st_size if file.exists() else 0


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_outcomes_come_in_the_order_of_the_runs(bench: Bench) -> None:
    runs = runs_of({"x": (3, 1, 2)}, (5, 6))
    found = bench.run("square", runs)
    assert [outcome.run for outcome in found] == runs
    assert [outcome.figures["square"] for outcome in found] == [9.0, 9.0, 1.0, 1.0, 4.0, 4.0]
    assert [outcome.series for outcome in found][:2] == [{"x": (3.0,)}] * 2
    assert sorted(map(str, bench.heard)) == sorted(map(str, found))


def test_what_was_computed_once_is_not_computed_again(bench: Bench) -> None:
    runs = runs_of({"x": (1, 2)}, (5,))
    first = bench.run("square", runs[:1])
    assert bench.run("square", runs)[0] == first[0]
    assert [bench.begun(run) for run in runs] == [1, 1]


def test_a_killed_worker_loses_no_result(bench: Bench) -> None:
    runs = runs_of({}, (1, 2, 3, 4, 5))
    assert [outcome.figures for outcome in bench.run("dies_once", runs)] == [
        {"seed": float(n)} for n in range(1, 6)
    ]
    assert bench.begun(Run((), 3)) == 2


def test_a_run_that_always_kills_its_worker_is_given_up_and_the_others_go_on(bench: Bench) -> None:
    runs = runs_of({}, (1, 2, 3, 4))
    found = bench.run("always_dies", runs)
    assert [outcome.figures.get("seed") for outcome in found] == [1.0, 2.0, None, 4.0]
    assert f"died {TRIES} times" in found[2].error
    assert bench.begun(Run((), 3)) == TRIES


def test_a_run_that_fails_says_why_and_the_others_go_on(bench: Bench) -> None:
    found = bench.run("raises", runs_of({}, (1, 2, 3)))
    assert [outcome.error for outcome in found] == ["", "ValueError: two is no seed", ""]


@pytest.mark.parametrize("target", ["no.such:thing", f"{WORKS}:nothing", "words"])
def test_work_that_does_not_exist_is_an_outcome_with_a_sentence(target: str) -> None:
    with pytest.raises(ValueError, match="names no function"):
        work_of(target)


def test_no_workers_are_refused(bench: Bench) -> None:
    with pytest.raises(ValueError, match="use at least 1"):
        bench.run("square", [Run((), 1)], workers=0)


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"run": {"settings": [], "seed": 9}}'], ids=["empty", "cut", "another's"]
)
def test_a_file_that_is_no_outcome_of_the_run_is_computed_again(content: bytes, bench: Bench) -> None:
    run = Run((), 1)
    bench.outcomes.path(run).write_bytes(content)
    assert bench.outcomes.load(run) is None
    assert bench.run("square", [run])[0].figures == {"square": 0.0, "seed": 1.0}
    assert bench.outcomes.load(run) is not None
