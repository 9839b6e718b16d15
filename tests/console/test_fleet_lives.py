"""A fleet on a store of another process: it waits for it, works on it, and outlives it."""

from __future__ import annotations

import asyncio

import pytest

from console.commands import fleet as command
from console.commands.fleet import FleetOptions, fleet_spec
from controller.resources.core import LEASE, NODE, POD
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.embedded.lives import begin_life
from runtime.authority import Role
from runtime.keyring import Keyring
from simulator.fleet.fleet import Fleet
from tests.store.objects import pinned_pod
from tests.store.served import CLOCK, Served, scene, served


def _spec() -> FleetOptions:
    return FleetOptions(operator="", pki=None, nodes="3", gpu="L4", gpus=2, start_seconds=0.5)  # type: ignore[arg-type]


async def _names(store: EmbeddedStore, kind: object = NODE) -> set[str]:
    return {each["metadata"]["name"] for each in (await store.list(kind)).items}  # type: ignore[arg-type]


async def _registered(made: Served, count: int) -> None:
    while len(await _names(made.store)) < count or len(await _names(made.store, LEASE)) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def test_nodes_register_anew_when_the_operators_store_began_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "WATCH_LIFE_SECONDS", 0.05)

    async def play() -> None:
        async with served() as made:
            begin_life(made.store, CLOCK.now())
            store = await made.reach(Role.FLEET, deadline_seconds=2.0)
            fleet = Fleet(fleet_spec(_spec()), store, CLOCK, made.authority, plane=store, real_time=True)
            await fleet.start()
            stop = asyncio.Event()
            work = [
                asyncio.create_task(fleet.run(stop, 0.02)),
                asyncio.create_task(command._follow_lives(fleet, store, stop)),
            ]
            await _registered(made, 3)
            await made.store.create(POD, pinned_pod("p", "node-0001"), field_manager="t")
            while (await made.store.get(POD, "p", "default"))["status"]["phase"] != "Running":  # noqa: ASYNC110
                await asyncio.sleep(0.02)

            await made.shut()
            made.store = open_store(CLOCK)
            begin_life(made.store, CLOCK.now())
            await made.open()
            await _registered(made, 3)
            assert await _names(made.store, POD) == set(), "pods of the former life are not brought back"
            stop.set()
            await asyncio.gather(*work)
            await fleet.stop()
            await store.close()

    scene(play)


def test_a_fleet_that_comes_first_waits_and_ends_when_told(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "RETRY_SECONDS", 0.05)
    folder = tmp_path_factory.mktemp("pki")

    async def play() -> None:
        async with served() as made:
            made.authority.write(folder / "authority")
            await made.shut()
            options = FleetOptions(operator=f"127.0.0.1:{made.port}", pki=folder, nodes="1")
            stop = asyncio.Event()
            reaching = asyncio.create_task(command._reach(options, Keyring(folder, CLOCK), stop))
            await asyncio.sleep(0.2)
            assert not reaching.done()
            await made.open()
            store = await reaching
            assert store is not None
            await store.close()
            await made.shut()
            given_up = asyncio.create_task(command._reach(options, Keyring(folder, CLOCK), stop))
            stop.set()
            assert await given_up is None

    scene(play)
