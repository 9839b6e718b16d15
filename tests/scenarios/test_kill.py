"""The operator killed before and after every mutating call: whoever takes over ends where it would have ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.store.faults import CrashPoint
from tests.scenarios import plays_serving
from tests.scenarios.scenario import Scenario, play

KILLED = [*plays_serving.ALL]


@pytest.mark.slow
@pytest.mark.parametrize("scenario", KILLED, ids=lambda each: each.name)
def test_every_kill(scenario: Scenario, tmp_path: Path) -> None:
    whole = play(scenario, folder(tmp_path, "whole"))
    calls = len(whole.mutating_calls)
    print(f"{scenario.name}: K = {calls}")
    for call in range(1, calls + 1):
        for when in ("before", "after"):
            kill(scenario, tmp_path, CrashPoint(call, when), whole.final, whole.mutating_calls[call - 1])


def folder(tmp_path: Path, name: str) -> Path:
    made = tmp_path / name
    made.mkdir()
    return made


def kill(scenario: Scenario, tmp_path: Path, crash: CrashPoint, expected: dict, what: str) -> None:
    try:
        ended = play(scenario, folder(tmp_path, f"{crash.when}-{crash.call}"), crash=crash, expected=expected)
        assert ended.kills == 1
    except AssertionError as error:
        raise AssertionError(
            f"{scenario.name}, killed {crash.when} call {crash.call} ({what}): {error}"
        ) from error
