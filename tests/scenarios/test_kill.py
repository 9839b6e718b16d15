"""The operator killed before and after every mutating call: whoever takes over ends where it would have ended.

K, the number of mutating calls of a scenario's undisturbed run, is in the summary. A sample of them runs in the ordinary
suite, all of them with the slow tests.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from controller.store.faults import CrashPoint
from tests.scenarios import (
    plays_faults,
    plays_power,
    plays_restraint,
    plays_rollout,
    plays_serving,
    plays_training,
)
from tests.scenarios.scenario import Ending, Scenario, play
from tests.scenarios.tiers import EMBEDDED, Tier

Recorder = Callable[[str, object], None]
PLAYS = (
    *plays_serving.ALL,
    *plays_training.ALL,
    *plays_power.ALL,
    *plays_faults.ALL,
    *plays_restraint.ALL,
    *plays_rollout.ALL,
)
KILLED = [scenario for scenario in PLAYS if scenario.converges]
SAMPLED = [
    plays_serving.SERVE,
    plays_serving.USER_SCALE,
    plays_serving.NEW_IMAGE,
    plays_rollout.NEVER_PULLS,
    plays_rollout.NO_ROOM,
    plays_serving.DELETE,
    plays_serving.ZERO,
    plays_training.GANG,
    plays_training.NODE_LOSS,
    plays_training.SUSPENDED,
    plays_power.CLAMP,
    plays_faults.NODE_FAILS,
    plays_restraint.GUARDED,
]
SAMPLE = 2
"""Calls of a scenario at which the operator is killed in the ordinary suite, once before and once after."""


def whole(scenario: Scenario, tmp_path: Path) -> Ending:
    """The undisturbed run: its number of mutating calls is K."""
    return play(scenario, folder(tmp_path, "whole"))


def told(
    scenario: Scenario, undisturbed: Ending, crashes: list[CrashPoint], where: str = ""
) -> tuple[str, str]:
    """What the summary of the test run says of the scenario (see conftest)."""
    calls = len(undisturbed.mutating_calls)
    return "kills", f"{scenario.name}: K = {calls}, killed {len(crashes)} times {where}".rstrip()


def sampled(scenario: Scenario, undisturbed: Ending) -> list[CrashPoint]:
    """One kill before and one after a call, the same ones each time."""
    calls = random.Random(scenario.name).sample(range(1, len(undisturbed.mutating_calls) + 1), SAMPLE)
    return [CrashPoint(call, when) for call, when in zip(calls, ("before", "after"), strict=True)]


def folder(tmp_path: Path, name: str) -> Path:
    made = tmp_path / name
    made.mkdir()
    return made


def kills(
    scenario: Scenario,
    tmp_path: Path,
    undisturbed: Ending,
    crashes: Iterable[CrashPoint],
    tier: Tier = EMBEDDED,
) -> list[str]:
    """What went wrong in runs with a kill, one entry a run that did not end as it should."""
    wrong = []
    for crash in crashes:
        made = folder(tmp_path, f"{crash.when}-{crash.call}")
        what = undisturbed.mutating_calls[crash.call - 1]
        try:
            ended = play(scenario, made, crash=crash, expected=undisturbed.final, tier=tier)
            assert ended.kills == 1, "the call was never made"
        except AssertionError as error:
            wrong.append(f"killed {crash.when} call {crash.call} ({what}): {error}")
        shutil.rmtree(made)
    return wrong


@pytest.mark.parametrize("scenario", SAMPLED, ids=lambda each: each.name)
def test_a_kill_at_some_calls(scenario: Scenario, tmp_path: Path, record_property: Recorder) -> None:
    undisturbed = whole(scenario, tmp_path)
    crashes = sampled(scenario, undisturbed)
    record_property(*told(scenario, undisturbed, crashes))
    wrong = kills(scenario, tmp_path, undisturbed, crashes)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", KILLED, ids=lambda each: each.name)
def test_a_kill_at_every_call(scenario: Scenario, tmp_path: Path, record_property: Recorder) -> None:
    undisturbed = whole(scenario, tmp_path)
    every = range(1, len(undisturbed.mutating_calls) + 1)
    crashes = [CrashPoint(call, when) for call in every for when in ("before", "after")]
    record_property(*told(scenario, undisturbed, crashes))
    wrong = kills(scenario, tmp_path, undisturbed, crashes)
    assert not wrong, f"{len(wrong)} of {len(crashes)} kills:\n" + "\n".join(wrong)
