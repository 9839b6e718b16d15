"""Two runs with one seed decide the same, word for word; and what was recorded decides the same again."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.records import differences, read_record, replay
from tests.scenarios import plays_faults, plays_power, plays_serving, plays_training
from tests.scenarios.plays_mini import MINI
from tests.scenarios.scenario import Ending, Scenario, play

TWICE = [
    plays_serving.GROW,
    plays_serving.ZERO,
    plays_training.NODE_LOSS,
    plays_power.CLAMP,
    plays_faults.NODE_FAILS,
    plays_faults.DISTURBED[-1],
    MINI,
]


def runs(scenario: Scenario, tmp_path: Path, *seeds: int) -> list[Ending]:
    endings = []
    for index, seed in enumerate(seeds):
        folder = tmp_path / str(index)
        folder.mkdir()
        endings.append(play(scenario, folder, seed=seed))
    return endings


@pytest.mark.parametrize("scenario", TWICE, ids=lambda each: each.name)
def test_one_seed_gives_one_decision_log(scenario: Scenario, tmp_path: Path) -> None:
    one, other = runs(scenario, tmp_path, 5, 5)
    assert one.diary == other.diary
    assert len(one.decision_log) > 10
    assert one.decision_log == other.decision_log
    assert one.mutating_calls == other.mutating_calls
    assert one.final == other.final


def test_the_logs_can_differ(tmp_path: Path) -> None:
    """What two seeds decide differs somewhere: equal logs are no matter of course."""
    one, other = runs(MINI, tmp_path, 5, 6)
    assert one.decision_log != other.decision_log


def test_every_record_of_a_run_replays_to_the_same_plans(tmp_path: Path) -> None:
    [ending] = runs(MINI, tmp_path, 5)
    assert len(ending.records) > 10
    for body in ending.records:
        record = read_record(body)
        assert not differences(record, replay(record)), (
            f"tick {record.tick}: {differences(record, replay(record))}"
        )
