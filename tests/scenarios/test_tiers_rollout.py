"""Rollout scenarios on the embedded store and on a real control plane: the same course, the same end, field by field."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios import plays_rollout
from tests.scenarios.comparing import alike
from tests.scenarios.kube_tier import KubeTier
from tests.scenarios.scenario import Scenario


@pytest.mark.parametrize("scenario", plays_rollout.ALL, ids=lambda each: each.name)
def test_both_tiers_end_alike(scenario: Scenario, tmp_path: Path, kube_tier: KubeTier) -> None:
    alike(scenario, tmp_path, kube_tier)
