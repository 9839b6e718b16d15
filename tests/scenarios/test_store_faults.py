"""A store that misbehaves in every way a real one does, while the operator works."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios import plays_faults
from tests.scenarios.scenario import Scenario, play


@pytest.mark.parametrize("scenario", plays_faults.DISTURBED, ids=lambda each: each.name)
def test_it_ends_as_it_should(scenario: Scenario, tmp_path: Path) -> None:
    play(scenario, tmp_path)
