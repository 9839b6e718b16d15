"""An elector in real time: it beats while all is well, also while the store is away, and not when it hangs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from controller.health import Pulse
from controller.leadership import Elector, LeaseSettings
from controller.leadership.campaign import Campaign
from controller.store.embedded import open_store
from controller.store.interface import Store
from controller.store.interposed import InterposedStore, Request
from runtime.clock import VirtualClock, WallClock

T = TypeVar("T")
PATIENT = LeaseSettings(
    lease_seconds=0.5, renew_deadline_seconds=0.4, retry_seconds=0.02, request_seconds=600.0
)
QUICK = msgspec.structs.replace(PATIENT, request_seconds=0.02)


class Silent(InterposedStore):
    """Takes requests and does not answer."""

    asked = 0

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        self.asked += 1
        await asyncio.Event().wait()
        return await answer()


def candidate(store: Store, settings: LeaseSettings) -> Campaign:
    clock = WallClock()
    elector = Elector(store, clock, settings, namespace="space", identity="p", rng=random.Random(1))
    return Campaign(elector, store, clock, namespace="space", seed=1)


def play(scene: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await scene()

    asyncio.run(limited())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - the scene has a limit
        await asyncio.sleep(0.01)


def test_an_elector_that_hangs_beats_no_more() -> None:
    async def scene() -> None:
        store = Silent(open_store(WallClock()))
        campaign = candidate(store, PATIENT)
        clock = VirtualClock(1e9)
        pulse = Pulse("The elector", 15.0, clock.monotonic)
        campaign.beat = pulse.beat
        campaign.start()
        await until(lambda: store.asked > 0)
        clock.advance_to(1e9 + 20.0)
        assert pulse() == "The elector last ran 20.0 s ago; 15 s is the limit."
        await campaign.stop()

    play(scene)


def test_a_store_that_does_not_answer_is_no_hanging_elector() -> None:
    async def scene() -> None:
        store, beats = Silent(open_store(WallClock())), 0
        campaign = candidate(store, QUICK)

        def beat() -> None:
            nonlocal beats
            beats += 1

        campaign.beat = beat
        campaign.start()
        await until(lambda: beats > 5)
        assert store.asked > 1
        assert "no answer in 0.02 s" in campaign.elector.told()
        await campaign.stop()
        assert not campaign.elector.leads

    play(scene)


def test_a_leader_whose_store_falls_silent_is_over_and_says_so() -> None:
    async def scene() -> None:
        store = open_store(WallClock())
        campaign = candidate(store, QUICK)
        campaign.start()
        await until(lambda: campaign.elector.leads)
        campaign.elector._store = Silent(store)
        await campaign.over.wait()
        assert not campaign.elector.leads
        assert "was not renewed in time" in campaign.elector.lost

    play(scene)


def test_an_elector_without_a_task_leads_no_more() -> None:
    """A defect that ends the task must not leave a leader that nobody renews and nobody stops."""

    async def scene() -> None:
        campaign = candidate(open_store(WallClock()), PATIENT)
        campaign.start()
        await until(lambda: campaign.elector.leads)
        await campaign.stop()
        assert not campaign.elector.leads
        assert campaign.over.is_set()

    play(scene)
