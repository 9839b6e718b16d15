"""Refusals by a quota on both tiers: the embedded store refuses in the words of the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios import plays_refusals
from tests.scenarios.comparing import same_end
from tests.scenarios.kube_tier import KubeTier
from tests.scenarios.scenario import Scenario


@pytest.mark.parametrize("scenario", plays_refusals.ALL, ids=lambda each: each.name)
def test_both_tiers_come_to_the_same_end(scenario: Scenario, tmp_path: Path, kube_tier: KubeTier) -> None:
    same_end(scenario, tmp_path, kube_tier)
