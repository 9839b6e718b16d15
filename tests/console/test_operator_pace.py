"""In real time nobody waits for a slow store: leases are renewed meanwhile, and many writes are on their way at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from controller.config import OperatorConfig
from controller.operator import Operator
from controller.resources.core import LEASE
from controller.resources.kinds import POWER_DOMAIN
from controller.store.embedded import open_store
from controller.store.interposed import InterposedStore, Request
from runtime.clock import WallClock
from tests.scenarios import plays_serving
from tests.scenarios.scenario import CONFIG, Scenario, play, replace
from tests.scenarios.stage import Plug

T = TypeVar("T")
CLOCK = WallClock()


class Slow(InterposedStore):
    """Answers a status write only when it is let to."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        if request.subresource == "status":
            self.asked.set()
            await self.let.wait()
        return await answer()


def test_a_store_that_is_slow_to_answer_does_not_keep_leases_from_being_renewed() -> None:
    async def scene() -> None:
        inner = open_store(CLOCK)
        store = Slow(inner)
        config = OperatorConfig(threaded=True, plan_seconds=0.1, debounce_seconds=0.0, power_seconds=0.02)
        operator = Operator(store, CLOCK, config)
        await operator.start()
        domain = {
            "apiVersion": POWER_DOMAIN.api_version,
            "kind": "PowerDomain",
            "metadata": {"name": "row-1"},
        }
        await inner.create(POWER_DOMAIN, {**domain, "spec": {"ratingWatts": 10_000}}, field_manager="user")
        stop, renewed = asyncio.Event(), asyncio.Event()
        decide, during = operator.power.decide, 0

        def counted(*args: Any) -> Any:
            nonlocal during
            during += store.asked.is_set()
            if during == 10:
                renewed.set()
            return decide(*args)

        operator.power.decide = counted  # type: ignore[method-assign]
        running = asyncio.create_task(operator.run(stop, 0.01))
        await renewed.wait()
        assert not store.let.is_set(), "ten rounds of power while one status write hung"
        store.let.set()
        stop.set()
        await running
        await operator.stop()
        assert await inner.get(LEASE, "plimsoll-operator", config.namespace)

    async def limited() -> None:
        async with asyncio.timeout(20):
            await scene()

    asyncio.run(limited())


class Crowd(Plug):
    """Counts how many creations of pods are on their way together."""

    now = most = 0

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        if request.verb != "create" or request.resource.kind != "Pod":
            return await answer()
        Crowd.now += 1
        Crowd.most = max(Crowd.most, Crowd.now)
        try:
            for _ in range(5):
                await asyncio.sleep(0)
            return await answer()
        finally:
            Crowd.now -= 1


@pytest.mark.parametrize(("at_once", "most"), [(1, 1), (8, 2)], ids=["one by one", "both together"])
def test_as_many_writes_are_on_their_way_as_allowed_and_the_end_is_the_same(
    at_once: int, most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Crowd.now = Crowd.most = 0
    monkeypatch.setattr("tests.scenarios.stage.Plug", Crowd)
    config = msgspec.structs.replace(CONFIG, writes_at_once=at_once)
    scenario: Scenario = replace(plays_serving.USER_SCALE, config=config)
    play(scenario, tmp_path)
    assert Crowd.most == most
