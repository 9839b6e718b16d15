"""Slices of two sizes, and a replica that moves for another, on the embedded store and on a real control plane alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.comparing import alike
from tests.scenarios.kube_tier import KubeTier
from tests.scenarios.scenario import Scenario
from tests.scenarios.test_moving import MOVES
from tests.scenarios.test_slices import BOTH


@pytest.mark.parametrize("scenario", [BOTH, MOVES], ids=lambda each: each.name)
def test_both_tiers_end_alike(scenario: Scenario, tmp_path: Path, kube_tier: KubeTier) -> None:
    alike(scenario, tmp_path, kube_tier)
