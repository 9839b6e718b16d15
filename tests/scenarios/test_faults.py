"""Scenarios in which something breaks, or cannot be, each on a whole cluster."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.scenarios import plays_faults
from tests.scenarios.scenario import Scenario, play


@pytest.mark.parametrize("scenario", plays_faults.ALL, ids=lambda each: each.name)
def test_it_ends_as_it_should(scenario: Scenario, tmp_path: Path) -> None:
    play(scenario, tmp_path)


def test_an_outage_is_told_once_and_not_each_second(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        play(plays_faults.OUTAGE, tmp_path)
    told = [
        r.getMessage()
        for r in caplog.records
        if r.name in ("controller.store.cache", "plimsoll.status", "plimsoll.events")
    ]
    lost = [line for line in told if "of pods failed (503" in line]
    assert 1 <= len(lost) <= 2, lost
    assert "what is known stays in force" in lost[0]
    assert [line for line in told if line.startswith("pods are followed again after")]
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) < 30, "\n".join(told)
