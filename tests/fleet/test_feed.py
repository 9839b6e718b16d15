"""The fleet's cache of one kind: whatever a store does to its reader, in the end it holds what the store holds."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.resources.core import POD
from controller.store.embedded import open_store
from controller.store.errors import StoreError
from controller.store.faults import CALM, FaultRates, FaultyStore
from runtime.clock import VirtualClock
from simulator.fleet.feed import Feed
from simulator.fleet.objects import Meta, Pod, parse_quantity
from tests.fleet.worlds import ORIGIN, plain_pod, run

ROUGH = FaultRates(
    unavailable=0.1,
    throttled=0.05,
    gone=0.1,
    cut=0.1,
    delayed=0.1,
    duplicated=0.3,
    silent=0.02,
    delay_seconds=3.0,
)
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["create", "change", "delete", "pump", "wait", "outage", "expire", "silence"]),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=60,
)


async def move(kind: str, number: int, store: Any, faulty: FaultyStore, clock: VirtualClock) -> None:
    name = f"p{number}"
    try:
        if kind == "create":
            await store.create(POD, plain_pod(name, "", 1), field_manager="test")
        elif kind == "change":
            patch = {"metadata": {"labels": {"at": str(clock.now())}}}
            await store.patch(POD, name, patch, "default", field_manager="test")
        elif kind == "delete":
            await store.delete(POD, name, "default", grace_seconds=0)
    except StoreError:
        return
    if kind == "wait":
        clock.advance_to(clock.now() + number)
    elif kind == "outage":
        faulty.outage(2.0)
    elif kind == "expire":
        faulty.expire()
    elif kind == "silence":
        faulty.silence()


@given(moves=MOVES, seed=st.integers(0, 2**16))
def test_the_cache_ends_as_the_store_is_and_its_changes_add_up(
    moves: list[tuple[str, int]], seed: int
) -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        store = open_store(clock)
        faulty = FaultyStore(store, clock, seed=seed, rates=ROUGH)
        feed = Feed(faulty, clock, POD, Pod)
        followed: dict[str, str] = {}

        async def pump() -> None:
            for key, old, new in await feed.pump():
                assert (old.metadata.resource_version if old else None) == followed.get(key)
                if new is None:
                    followed.pop(key, None)
                else:
                    assert old is None or int(new.metadata.resource_version) != int(
                        old.metadata.resource_version
                    )
                    followed[key] = new.metadata.resource_version

        for kind, number in moves:
            await move(kind, number, store, faulty, clock)
            if kind == "pump":
                await pump()
        faulty.rates = CALM
        for _ in range(4):  # past outages, delays, and the silence after which a stream counts as half open
            clock.advance_to(clock.now() + 200.0)
            await pump()
        truth = {
            f"default/{i['metadata']['name']}": i["metadata"]["resourceVersion"]
            for i in (await store.list(POD)).items
        }
        assert {key: pod.metadata.resource_version for key, pod in feed.objects.items()} == truth == followed

    asyncio.run(scenario())


def test_one_list_and_one_watch_serve_the_whole_fleet() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        store = open_store(clock)
        feed = Feed(store, clock, POD, Pod)
        for number in range(100):
            await store.create(POD, plain_pod(f"p{number}", "", 1), field_manager="test")
            assert len(await feed.pump()) == 1
        assert (store.requests["list", "Pod"], store.requests["watch", "Pod"]) == (1, 1)

    run(scenario)


class Important(msgspec.Struct, frozen=True):
    """A reader's type that not every pod satisfies, as after an upgrade of one side."""

    class Spec(msgspec.Struct, frozen=True):
        priority: Annotated[int, msgspec.Meta(ge=5)]

    metadata: Meta
    spec: Spec


def test_an_object_that_cannot_be_read_costs_nobody_else_anything() -> None:
    async def scenario() -> None:
        clock = VirtualClock(ORIGIN)
        store = open_store(clock)
        feed = Feed(store, clock, POD, Important)
        for listed in ("before", "after"):
            await store.create(POD, plain_pod(f"{listed}-odd", "", 1), field_manager="test")
            await store.create(POD, plain_pod(listed, "", 1, priority=7), field_manager="test")
            await feed.pump()
        assert sorted(feed.objects) == ["default/after", "default/before"]

    run(scenario)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("8", 8.0, id="a plain number"),
        pytest.param("1500m", 1.5, id="milli"),
        pytest.param("512Gi", 512 * 2.0**30, id="binary"),
        pytest.param("2G", 2e9, id="decimal"),
        pytest.param("-", float("inf"), id="nonsense fits nowhere"),
        pytest.param("12Zi", float("inf"), id="an unknown suffix fits nowhere"),
        pytest.param("", float("inf"), id="nothing at all fits nowhere"),
    ],
)
def test_quantities(text: str, value: float) -> None:
    assert parse_quantity(text) == value
