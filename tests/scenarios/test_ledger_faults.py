"""The ledger locked, full or gone while the operator works: decisions go on, nothing is lost, one line says so."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import msgspec
import pytest

from tests.ledger.outages import FolderGone, Full, Locked, Unwritable
from tests.ledger.places import SqlitePlace
from tests.scenarios.plays_serving import settled
from tests.scenarios.props import fleet, manifests, service
from tests.scenarios.soundness import assert_sound
from tests.scenarios.stage import Stage
from tests.scenarios.tiers import WALL_SECONDS

CHAT = "shop/chat"
Fault = Locked | Full | FolderGone | Unwritable


@pytest.mark.parametrize(
    "fault", [Locked(), Full(), FolderGone(), Unwritable()], ids=lambda f: type(f).__name__
)
def test_the_operator_works_on_without_its_ledger(
    fault: Fault, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async with asyncio.timeout(WALL_SECONDS), Stage(fleet(l4=2), folder(tmp_path)) as stage:
            ledger = stage.cluster.ledger
            assert ledger is not None
            await stage.apply(manifests(service("chat", "replicas: 1")))
            await stage.until(lambda _: settled(stage, CHAT, 1), 30, "one replica ready")
            assert ledger.flush(force=True)
            place = SqlitePlace(stage.ledger_path)
            fault.begin(place, ledger)
            caplog.clear()
            await stage.scale(CHAT, 3)
            await stage.until(lambda _: settled(stage, CHAT, 3), 60, "three replicas, ledger or not")
            assert not ledger.flush(force=True)
            await stage.seconds(5)
            assert not ledger.flush(force=True)
            said = [r.getMessage() for r in caplog.records if r.name == "plimsoll.ledger"]
            assert len(said) == 1, said
            assert fault.says in said[0]
            assert "0 lost so far" in said[0]
            fault.end(place, ledger)
            assert ledger.flush(force=True)
            await assert_sound(stage)
            rows = [msgspec.json.decode(line) for line in ledger.reader.decision_log()]
            made = [r for r in rows if r["table"] == "actuations" and r["kind"] == "CreateReplica"]
            assert [r["outcome"] for r in made] == ["done"] * 3, "those made without the ledger are in it too"
            assert not ledger.reader.gaps()

    with caplog.at_level(logging.WARNING, "plimsoll.ledger"):
        asyncio.run(story())


def test_an_operator_that_dies_without_its_ledger_is_followed_by_one_that_works(tmp_path: Path) -> None:
    """Nothing that safety depends on is in the ledger: the epoch is on the lease and with the agents."""

    async def story() -> None:
        async with asyncio.timeout(WALL_SECONDS), Stage(fleet(l4=2), folder(tmp_path)) as stage:
            await stage.apply(manifests(service("chat", "replicas: 2")))
            await stage.until(lambda _: settled(stage, CHAT, 2), 30, "two replicas ready")
            before = stage.operator.epoch
            pods = {pod["metadata"]["uid"] for pod in stage.seen.pods(CHAT)}
            await stage.halt()
            for file in stage.ledger_path.parent.glob("*"):
                file.unlink()
            await stage.resume()
            assert stage.operator.epoch > before
            await stage.seconds(10)
            assert {pod["metadata"]["uid"] for pod in stage.seen.pods(CHAT)} == pods
            await stage.scale(CHAT, 3)
            await stage.until(lambda _: settled(stage, CHAT, 3), 60, "three replicas")
            await assert_sound(stage)

    asyncio.run(story())


def folder(tmp_path: Path) -> Path:
    made = tmp_path / "ledger"
    made.mkdir()
    return made
