"""Gangs in trouble on the embedded store and on a real control plane; requests of a dead operator that arrive late."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios import plays_gangs, plays_training
from tests.scenarios.comparing import alike
from tests.scenarios.kube_tier import KubeTier
from tests.scenarios.scenario import Scenario
from tests.scenarios.test_gangs import SAMPLE, late
from tests.scenarios.test_kill import Recorder, kills, told, whole


@pytest.mark.parametrize("scenario", plays_gangs.ALL, ids=lambda each: each.name)
def test_both_tiers_end_alike(scenario: Scenario, tmp_path: Path, kube_tier: KubeTier) -> None:
    alike(scenario, tmp_path, kube_tier)


@pytest.mark.parametrize(
    "scenario", [plays_training.GANG, plays_training.EVICTED], ids=lambda each: each.name
)
def test_the_last_request_of_a_dead_operator_arrives_late(
    scenario: Scenario, tmp_path: Path, kube_tier: KubeTier, record_property: Recorder
) -> None:
    undisturbed = whole(scenario, tmp_path)
    crashes = late(undisturbed)
    crashes = crashes[:: max(1, len(crashes) // SAMPLE)]
    record_property(*told(scenario, undisturbed, crashes, "and its last request late, on kube"))
    wrong = kills(scenario, tmp_path, undisturbed, crashes, kube_tier)
    assert not wrong, "\n".join(wrong)
