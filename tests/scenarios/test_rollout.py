"""Rollouts of a service, on a whole simulated cluster."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.scenarios import plays_rollout
from tests.scenarios.scenario import Scenario, play


@pytest.mark.parametrize("scenario", plays_rollout.ALL, ids=lambda each: each.name)
def test_it_ends_as_it_should(scenario: Scenario, tmp_path: Path) -> None:
    play(scenario, tmp_path)


def test_the_ledger_has_the_history(tmp_path: Path) -> None:
    """Each revision with what it was, since when, and what became of it."""
    rows = [msgspec.json.decode(line) for line in play(plays_rollout.CRASHES, tmp_path).decision_log]
    settled = [row for row in rows if row["table"] == "actuations" and row["kind"] == "SettleRevision"]
    told = [msgspec.json.decode(row["payload"]) for row in settled]
    assert [each["summary"] for each in told] == ["llama-3.1-8b, engine:1", "llama-3.1-8b, engine:crash"]
    assert [(each["number"], each["complete"]) for each in told] == [(1, True), (2, False)]
    assert told[1]["code"] == "RolloutFaulty"
    assert all(
        row["issued_seconds"] > each["began_seconds"] > 1e9 for row, each in zip(settled, told, strict=True)
    )
    assert {row["subject_name"] for row in settled} == {"shop/chat"}
