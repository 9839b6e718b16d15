"""Rollouts of a service, on a whole simulated cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios import plays_rollout
from tests.scenarios.scenario import Scenario, play


@pytest.mark.parametrize("scenario", plays_rollout.ALL, ids=lambda each: each.name)
def test_it_ends_as_it_should(scenario: Scenario, tmp_path: Path) -> None:
    play(scenario, tmp_path)
