"""The operator in real time: a planner that fails or is slow, a planned end, a successor."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from controller.config import OperatorConfig
from controller.hub.service import Hub
from controller.leadership import LEASE_NAME, NotLeading
from controller.ledger import Ledger, LedgerReader
from controller.observe.labels import EPOCH
from controller.operator import Operator
from controller.resources.core import LEASE
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.errors import Unavailable
from controller.store.faults import FaultyStore
from runtime.clock import WallClock

CLOCK = WallClock()
CONFIG = OperatorConfig(threaded=True, plan_seconds=0.2, debounce_seconds=0.0)
TICK = 0.02


def scene(play: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(15):
            await play()

    asyncio.run(limited())


async def led(store: EmbeddedStore, **config: Any) -> dict[str, Any]:
    """The lease as it stands."""
    found = await store.get(LEASE, LEASE_NAME, CONFIG.namespace)
    return {**found["spec"], "epoch": found["metadata"]["annotations"]}


def test_a_planner_that_fails_is_told_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def play() -> None:
        operator = Operator(open_store(CLOCK), CLOCK, CONFIG)
        await operator.start()
        decide, calls, stop = operator.planner.decide, 0, asyncio.Event()

        def failing(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise RuntimeError("a policy's defect")
            if calls == 3:
                loop.call_soon_threadsafe(stop.set)
            return decide(*args)

        loop = asyncio.get_running_loop()
        operator.planner.decide = failing  # type: ignore[method-assign]
        await operator.run(stop, TICK)
        assert calls == 3
        await operator.stop()

    with caplog.at_level(logging.ERROR):
        scene(play)
    assert "the planner failed" in caplog.text
    assert "a policy's defect" in caplog.text


def test_a_slow_planner_does_not_keep_the_loop_from_coming_round() -> None:
    async def play() -> None:
        operator = Operator(open_store(CLOCK), CLOCK, CONFIG)
        await operator.start()
        decide, solving, done, stop = (
            operator.planner.decide,
            threading.Event(),
            threading.Event(),
            asyncio.Event(),
        )
        rounds = 0

        def slow(*args: Any) -> Any:
            solving.set()
            done.wait(10)
            return decide(*args)

        def beat() -> None:
            nonlocal rounds
            rounds += solving.is_set()
            if rounds == 20:
                done.set()
                stop.set()

        operator.planner.decide = slow  # type: ignore[method-assign]
        await operator.run(stop, TICK, beat)
        assert rounds >= 20, "twenty rounds while one solve went on"
        await operator.stop()

    scene(play)


def test_a_planned_end_gives_the_lease_back_and_closes_the_epoch(tmp_path: Path) -> None:
    async def play() -> None:
        store = open_store(CLOCK)
        ledger = Ledger(str(tmp_path / "ledger.db"), now=CLOCK.now)
        operator = Operator(store, CLOCK, CONFIG, ledger=ledger)
        await operator.start()
        assert (await led(store))["holderIdentity"] == operator.elector.identity
        await operator.stop()
        assert (await led(store))["holderIdentity"] == ""
        successor = Operator(store, CLOCK, CONFIG, ledger=ledger)
        await successor.start()
        assert successor.epoch == operator.epoch + 1
        await successor.stop()
        ledger.close()

    scene(play)
    reader = LedgerReader(str(tmp_path / "ledger.db"))
    assert reader.highest_epoch() == 2
    reader.close()


def test_a_lease_of_another_is_left_alone_and_a_silent_store_is_no_fault_at_the_end(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "ledger.db")

    async def play() -> None:
        store, ledger = open_store(CLOCK), Ledger(path, now=CLOCK.now)
        operator = Operator(store, CLOCK, CONFIG, ledger=ledger)
        await operator.start()
        other = Operator(store, CLOCK, CONFIG)
        with pytest.raises(NotLeading, match=f"{operator.elector.identity} holds the Lease under epoch 1"):
            await other.start()
        assert not await other.elector.release()
        assert (await led(store))["holderIdentity"] == operator.elector.identity
        await other.stop()
        await operator.stop()

        faulty = FaultyStore(store, CLOCK)
        last = Operator(faulty, CLOCK, CONFIG, ledger=ledger)
        await last.start()
        faulty.outage(60.0)
        with pytest.raises(Unavailable):
            await faulty.get(LEASE, LEASE_NAME, CONFIG.namespace)
        await last.stop()
        assert (await led(store))["holderIdentity"] == last.elector.identity, "it runs out by itself"
        ledger.close()

    scene(play)
    reader = LedgerReader(path)
    assert [row.epoch for row in reader.epochs() if row.ended_seconds is not None] == [2, 1]
    reader.close()


def test_agents_that_obeyed_a_later_epoch_are_led_above_it_once_the_lease_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "ledger.db")

    async def play() -> None:
        store, hub, ledger = open_store(CLOCK), Hub(CLOCK), Ledger(path, now=CLOCK.now)
        faulty = FaultyStore(store, CLOCK)
        operator = Operator(faulty, CLOCK, CONFIG, hub=hub, ledger=ledger)
        await operator.start()
        assert operator.epoch == hub.epoch == 1
        monkeypatch.setattr(Hub, "highest_epoch_seen", 7)
        faulty.outage(60.0)
        await operator.step()
        assert operator.epoch == hub.epoch == 1, "the lease could not say it"
        faulty.outage(0.0)
        await operator.step()
        assert operator.epoch == hub.epoch == 8
        assert (await led(store))["epoch"][EPOCH] == "8"
        await operator.stop()
        ledger.close()

    scene(play)
    reader = LedgerReader(path)
    assert reader.highest_epoch() == 8
    reader.close()
