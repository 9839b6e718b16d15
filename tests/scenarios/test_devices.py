"""Scenarios of devices that are not what somebody says, each on a whole cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios import plays_devices
from tests.scenarios.scenario import Scenario, play


@pytest.mark.parametrize("scenario", plays_devices.ALL, ids=lambda each: each.name)
def test_it_ends_as_it_should(scenario: Scenario, tmp_path: Path) -> None:
    play(scenario, tmp_path)
