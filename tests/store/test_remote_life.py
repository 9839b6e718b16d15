"""Watches over the wire, and what a store's clients live through: outages, hangs, restarts of the operator."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from controller.resources.core import LEASE, POD, Pod
from controller.store.cache import Reflector
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.embedded.lives import begin_life
from controller.store.errors import Gone, TooManyRequests, Unavailable
from controller.store.remote import watching
from runtime.clock import WallClock
from tests.hub.support import until
from tests.store.objects import pod
from tests.store.served import CLOCK, scene, served

QUICK = WallClock(monotonic=lambda: time.monotonic() * 30)


class TestWatches:
    def test_more_watches_than_the_operator_serves_are_told_to_come_later(self) -> None:
        async def play() -> None:
            async with served(most_watches=2) as made:
                far = await made.reach()
                kept = [await far.watch(POD, resource_version="") for _ in range(2)]
                with pytest.raises(TooManyRequests, match="serves 2 watches at once"):
                    await far.watch(POD, resource_version="")
                kept[0].close()
                assert made.servicer is not None
                await until(lambda: made.servicer is not None and made.servicer.watches == 1)
                await far.watch(POD, resource_version="")
                await far.close()
                await until(lambda: made.servicer is not None and made.servicer.watches == 0)

        scene(play)

    def test_a_reader_that_does_not_drain_is_not_read_for_further(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the client keeps is bounded; what is left waits at the server, and nothing is lost."""
        monkeypatch.setattr(watching, "MOST_EVENTS", 20)

        async def play() -> None:
            async with served() as made:
                far = await made.reach()
                watch = await far.watch(POD, resource_version=str(made.store.objects.version))
                names = [f"p{index:03d}" for index in range(300)]
                for name in names:
                    await made.store.create(
                        POD, pod(name, annotations={"a": "x" * 20_000}), field_manager="t"
                    )
                    await asyncio.sleep(0)
                await asyncio.sleep(0.3)
                assert 20 <= len(watch._queue) < 300
                seen: list[str] = []
                while len(seen) < 300:
                    await watch.wait()
                    seen += [event.object["metadata"]["name"] for event in watch.drain()]
                assert seen == names
                await far.close()

        scene(play)

    def test_a_broken_connection_is_told_once_after_what_came_before_it(self) -> None:
        async def play() -> None:
            async with served() as made:
                far = await made.reach()
                watch = await far.watch(POD, resource_version=str(made.store.objects.version))
                await made.store.create(POD, pod("a"), field_manager="t")
                await until(lambda: bool(watch._queue))
                await made.shut()
                await until(lambda: not watch._open)
                assert not watch.ended
                await asyncio.wait_for(watch.wait(), 1)
                assert [event.object["metadata"]["name"] for event in watch.drain()] == ["a"]
                with pytest.raises(Unavailable, match="watch pods"):
                    watch.drain()
                assert watch.ended
                assert watch.drain() == []
                await far.close()

        scene(play)

    def test_closed_by_its_reader_it_is_over(self) -> None:
        async def play() -> None:
            async with served() as made:
                far = await made.reach()
                watch = await far.watch(POD, resource_version="")
                watch.close()
                watch.close()
                assert watch.ended
                assert watch.drain() == []
                await asyncio.wait_for(watch.wait(), 1)
                await far.close()

        scene(play)


class TestLife:
    def test_nobody_there_is_unavailable_with_the_address(self) -> None:
        async def play() -> None:
            async with served() as made:
                await made.shut()
                with pytest.raises(Unavailable, match=rf"operator at 127.0.0.1:{made.port} gave no answer"):
                    await made.reach(deadline_seconds=2.0)

        scene(play)

    def test_a_store_that_hangs_is_given_up_at_the_deadline(self) -> None:
        async def play() -> None:
            async with served() as made:
                far = await made.reach(deadline_seconds=0.3)

                async def never(*args: Any, **options: Any) -> Any:
                    await asyncio.Event().wait()

                made.store.get = never  # type: ignore[method-assign]
                with pytest.raises(Unavailable, match="DEADLINE_EXCEEDED"):
                    await far.get(POD, "p", "default")
                made.store.watch = never  # type: ignore[method-assign]
                with pytest.raises(Unavailable):
                    await far.watch(POD, resource_version="")
                await far.close()

        scene(play)

    def test_the_same_store_found_again_after_an_outage(self) -> None:
        async def play() -> None:
            async with served() as made:
                far = await made.reach(deadline_seconds=2.0)
                await made.shut()
                with pytest.raises(Unavailable):
                    await far.create(LEASE, _lease("l"), field_manager="t")
                await made.open()
                async with asyncio.timeout(8):
                    while True:
                        try:
                            await far.create(LEASE, _lease("l"), field_manager="t")
                            break
                        except Unavailable:
                            await asyncio.sleep(0.05)
                await far.close()

        scene(play)

    def test_a_cache_follows_through_restarts_of_the_operator(self) -> None:
        """The embedded store dies with its process: whoever followed the old one must end equal to the new one."""

        async def play() -> None:
            async with served() as made:
                begin_life(made.store, CLOCK.now())
                far = await made.reach(deadline_seconds=2.0)
                cache: Reflector[Pod] = Reflector(far, POD, Pod, QUICK)  # its pauses are of a cluster
                for life in range(3):
                    for index in range(5 - life):
                        await made.store.create(POD, pod(f"p{life}-{index}"), field_manager="t")
                    await _equal(cache, made.store)
                    await made.shut()
                    await cache.pump()
                    made.store = open_store(CLOCK)
                    begin_life(made.store, CLOCK.now())
                    await made.open()
                await _equal(cache, made.store)
                assert cache.objects == {}
                await far.close()

        scene(play)


def test_versions_of_a_later_life_are_above_those_of_an_earlier_one() -> None:
    async def play() -> None:
        first, second = open_store(CLOCK), open_store(CLOCK)
        begin_life(first, 1_000_000.0)
        for index in range(50):
            await first.create(POD, pod(f"p{index}"), field_manager="t")
        begin_life(second, 1_000_000.5)
        assert second.objects.version > first.objects.version
        with pytest.raises(Gone):
            await second.watch(POD, resource_version=str(first.objects.version))
        watch = await second.watch(POD, resource_version=(await second.list(POD)).resource_version)
        await second.create(POD, pod("new"), field_manager="t")
        assert [event.object["metadata"]["name"] for event in watch.drain()] == ["new"]

    scene(play)


async def _equal(cache: Reflector[Pod], store: EmbeddedStore) -> None:
    """Pump until the cache holds what the store does."""

    async def truth() -> set[str]:
        return {f"default/{item['metadata']['name']}" for item in (await store.list(POD)).items}

    async with asyncio.timeout(15):
        while set(cache.objects) != await truth() or not cache.has_synced:
            await cache.pump()
            await asyncio.sleep(0.02)


def _lease(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "default"},
    }
