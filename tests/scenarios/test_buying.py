"""Nodes bought and given back on a whole cluster, and by an operator that dies of it: ordered once."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.store.faults import CrashPoint
from tests.scenarios import plays_buying
from tests.scenarios.scenario import Scenario, play
from tests.scenarios.test_kill import kills, whole


@pytest.mark.parametrize("scenario", plays_buying.ALL, ids=lambda each: each.name)
def test_it_ends_as_it_should(scenario: Scenario, tmp_path: Path) -> None:
    play(scenario, tmp_path)


def test_an_operator_that_dies_while_it_orders_orders_once(tmp_path: Path) -> None:
    """Before the order, after it, and with the order still on its way when a successor orders the same."""
    undisturbed = whole(plays_buying.STAYS, tmp_path)
    (call,) = [
        n for n, text in enumerate(undisturbed.mutating_calls, 1) if text.startswith("create NodeClaim")
    ]
    crashes = [CrashPoint(call, when) for when in ("before", "after", "late")]
    wrong = kills(plays_buying.STAYS, tmp_path, undisturbed, crashes)
    assert not wrong, "\n".join(wrong)
