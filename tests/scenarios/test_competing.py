"""Scenarios in which services compete, each on a whole cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios import plays_competing
from tests.scenarios.scenario import Scenario, play


@pytest.mark.parametrize("scenario", plays_competing.ALL, ids=lambda each: each.name)
def test_it_ends_as_it_should(scenario: Scenario, tmp_path: Path) -> None:
    play(scenario, tmp_path)
