"""Gangs in trouble on a whole cluster, and requests of a dead operator that arrive late."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.store.faults import CrashPoint
from tests.scenarios import plays_gangs, plays_training
from tests.scenarios.scenario import Ending, Scenario, play
from tests.scenarios.test_kill import Recorder, kills, told, whole

LATE = [plays_training.GANG, plays_training.NODE_LOSS, plays_training.EVICTED]
WRITES_OF_GANGS = ("create Pod", "delete Pod", "patch TrainingJob")
SAMPLE = 3


@pytest.mark.parametrize("scenario", plays_gangs.ALL, ids=lambda each: each.name)
def test_it_ends_as_it_should(scenario: Scenario, tmp_path: Path) -> None:
    play(scenario, tmp_path)


def late(undisturbed: Ending) -> list[CrashPoint]:
    """Every call that makes or unmakes an attempt, sent by an operator that dies of it, and arriving when others lead."""
    calls = enumerate(undisturbed.mutating_calls, 1)
    return [CrashPoint(number, "late") for number, call in calls if call.startswith(WRITES_OF_GANGS)]


@pytest.mark.parametrize("scenario", LATE, ids=lambda each: each.name)
def test_the_last_request_of_a_dead_operator_arrives_late(
    scenario: Scenario, tmp_path: Path, record_property: Recorder
) -> None:
    """Two operators write to one gang then: the successor, and what its predecessor had sent."""
    undisturbed = whole(scenario, tmp_path)
    crashes = late(undisturbed)
    crashes = crashes[:: max(1, len(crashes) // SAMPLE)]
    record_property(*told(scenario, undisturbed, crashes, "and its last request late"))
    wrong = kills(scenario, tmp_path, undisturbed, crashes)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", LATE, ids=lambda each: each.name)
def test_any_request_of_a_dead_operator_arrives_late(scenario: Scenario, tmp_path: Path) -> None:
    undisturbed = whole(scenario, tmp_path)
    wrong = kills(scenario, tmp_path, undisturbed, late(undisturbed))
    assert not wrong, "\n".join(wrong)
