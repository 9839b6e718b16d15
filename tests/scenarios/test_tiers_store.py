"""A store that misbehaves, on both tiers; and the operator killed on the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.store.faults import CrashPoint
from tests.scenarios import plays_faults, plays_serving, plays_training
from tests.scenarios.comparing import alike, same_end
from tests.scenarios.kube_tier import KubeTier
from tests.scenarios.scenario import Scenario, play
from tests.scenarios.test_kill import KILLED, Recorder, folder, kills, sampled, told, whole

FEWER = 3
"""So many calls less a run on the real server may make: events and statuses of one moment are told together, or not."""

SAMPLED = [plays_serving.SERVE, plays_serving.DELETE, plays_training.GANG, plays_faults.NODE_FAILS]


@pytest.mark.parametrize("scenario", plays_faults.STAGED, ids=lambda each: each.name)
def test_both_tiers_end_alike(scenario: Scenario, tmp_path: Path, kube_tier: KubeTier) -> None:
    alike(scenario, tmp_path, kube_tier)


@pytest.mark.parametrize("scenario", plays_faults.DRAWN, ids=lambda each: each.name)
def test_both_tiers_come_to_the_same_end(scenario: Scenario, tmp_path: Path, kube_tier: KubeTier) -> None:
    same_end(scenario, tmp_path, kube_tier)


@pytest.mark.parametrize("scenario", SAMPLED, ids=lambda each: each.name)
def test_a_kill_at_some_calls(
    scenario: Scenario, tmp_path: Path, kube_tier: KubeTier, record_property: Recorder
) -> None:
    """Whoever takes over ends where the embedded store's undisturbed run ended."""
    undisturbed = whole(scenario, tmp_path)
    most = len(undisturbed.mutating_calls) - FEWER
    crashes = [CrashPoint(min(each.call, most), each.when) for each in sampled(scenario, undisturbed)]
    record_property(*told(scenario, undisturbed, crashes, "on kube"))
    wrong = kills(scenario, tmp_path, undisturbed, crashes, kube_tier)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", KILLED, ids=lambda each: each.name)
def test_a_kill_at_every_call(
    scenario: Scenario, tmp_path: Path, kube_tier: KubeTier, record_property: Recorder
) -> None:
    undisturbed = play(scenario, folder(tmp_path, "whole"), tier=kube_tier)
    every = range(1, len(undisturbed.mutating_calls) + 1)
    crashes = [CrashPoint(call, when) for call in every for when in ("before", "after")]
    record_property(*told(scenario, undisturbed, crashes, "on kube"))
    wrong = kills(scenario, tmp_path, undisturbed, crashes, kube_tier)
    assert not wrong, f"{len(wrong)} of {len(crashes)} kills:\n" + "\n".join(wrong)
