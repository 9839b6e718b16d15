"""What running engines taught is known to the next leader, and a row that is damaged or of another form costs only that."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from controller.ledger import PolicyStateRow
from placement.profiles.layers import LEAST_SAMPLES
from tests.scenarios.plays_serving import CHAT, SHORT_ASKS, settled
from tests.scenarios.props import fleet, manifests, service
from tests.scenarios.scenario import Scenario, play
from tests.scenarios.stage import Stage


def samples(stage: Stage) -> int:
    learned = stage.operator.beliefs.learned()
    return sum(learned.live.values()) if learned is not None else 0


async def _taught(stage: Stage) -> None:
    await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
    stage.load(CHAT, 6.0, 130)
    await stage.until(lambda _: samples(stage) >= LEAST_SAMPLES, 200, "enough is learned")
    (source,) = {each.source for each in stage.operator.observer.beliefs.capacity.values()}
    assert source == "online"
    await stage.until(lambda _: not stage.traffic.open, 120, "all served")


async def _restarted(stage: Stage) -> None:
    await _taught(stage)
    before = stage.operator.beliefs.learned()
    await stage.restart()
    await stage.seconds(5)
    after = stage.operator.beliefs.learned()
    assert after is not before
    assert after.live == before.live
    assert dict(zip(after.names, after.mean, strict=True)) == pytest.approx(
        dict(zip(before.names, before.mean, strict=True))
    )
    assert {each.source for each in stage.operator.observer.beliefs.capacity.values()} == {"online"}


def scenario(script, name: str) -> Scenario:
    asks = f"replicas: 2\nmaxReplicas: 2\n{SHORT_ASKS}"
    return Scenario(name=name, fleet=fleet(l4=1), manifests=manifests(service("chat", asks)), script=script)


def test_the_next_leader_knows_what_engines_taught(tmp_path: Path) -> None:
    play(scenario(_restarted, "what engines taught outlives a leader"), tmp_path)


@pytest.mark.parametrize(
    ("schema", "state", "told"),
    [
        pytest.param(1, "{", "stored state of profiles cannot be read", id="a damaged row"),
        pytest.param(99, "{}", "kept in form 99, this version reads form 1; it is learned anew", id="another version's"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_told_and_learned_anew(
    schema: int, state: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def script(stage: Stage) -> None:
        await stage.until(lambda _: settled(stage, CHAT, 2), 60, "two replicas ready")
        ledger = stage.operator._ledger
        ledger.policy_state(PolicyStateRow("profiles", "capacity", "profiles", schema, 1, stage.now, state))
        ledger.flush()
        await stage.restart()
        await stage.seconds(30)
        assert samples(stage) == 0
        assert settled(stage, CHAT, 2)

    with caplog.at_level(logging.WARNING):
        play(scenario(script, "a row of the ledger cannot be read"), tmp_path)
    assert told in caplog.text
