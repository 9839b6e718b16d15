"""The API-server store and the cache over it while the real server is killed, paused, compacted and cut off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from console.controlplane import ControlPlane
from controller.resources.core import POD
from controller.resources.kinds import MODEL_SERVICE
from controller.resources.modelservice import ModelService
from controller.store import cache as caching
from controller.store.cache import Reflector
from controller.store.errors import Conflict, Gone, NotFound, TooManyRequests, Unavailable
from controller.store.kube import KubeStore
from runtime.clock import WallClock
from tests.hub.proxy import Proxy, proxy
from tests.store.kube import install
from tests.store.objects import condition, service

T = TypeVar("T")

WRITER = "tests"
QUICK = WallClock(monotonic=lambda: time.monotonic() * 5)
"""The cache's pauses are of a cluster; here they are a fifth of that."""

LONG_SECONDS = 60.0


class Stage:
    """A store, and a cache of the ModelServices of one namespace over it."""

    def __init__(self, plane: ControlPlane, namespace: str, store: KubeStore) -> None:
        self.plane = plane
        self.namespace = namespace
        self.store = store
        self.cache: Reflector[ModelService] = Reflector(
            store, MODEL_SERVICE, ModelService, QUICK, namespace=namespace
        )

    def new(self, name: str, **spec: Any) -> Any:
        made = service(name, **spec)
        made["metadata"]["namespace"] = self.namespace
        return made

    async def make(self, *names: str) -> list[Any]:
        return [await self.store.create(MODEL_SERVICE, self.new(n), field_manager=WRITER) for n in names]

    async def mode(self, name: str, mode: str) -> Any:
        patch = {"spec": {"mode": mode}}
        return await self.store.patch(MODEL_SERVICE, name, patch, self.namespace, field_manager=WRITER)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG_SECONDS):
            while not holds():
                await self.cache.pump()
                await asyncio.sleep(0.02)

    async def equal(self) -> None:
        """Returns when the cache holds what the server holds."""
        async with asyncio.timeout(LONG_SECONDS):
            while True:
                await self.cache.pump()
                try:
                    listed = (await self.store.list(MODEL_SERVICE, self.namespace)).items
                except (TooManyRequests, Unavailable):
                    await asyncio.sleep(0.1)
                    continue
                there = {o["metadata"]["name"]: o["metadata"]["resourceVersion"] for o in listed}
                held = {o.metadata.name: o.metadata.resource_version for o in self.cache.objects.values()}
                if there == held:
                    return
                await asyncio.sleep(0.02)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer of a server that has just begun: it says 429 for a while (storage is initializing)."""
    async with asyncio.timeout(LONG_SECONDS):
        while True:
            try:
                return await ask()
            except TooManyRequests:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def staged(
    plane: ControlPlane, namespace: str, kubeconfig: Path | None = None, **options: Any
) -> AsyncIterator[Stage]:
    store = await KubeStore.connect(kubeconfig or plane.kubeconfig, **options)
    stage = Stage(plane, namespace, store)
    try:
        yield stage
    finally:
        stage.cache.close()
        await store.close()
    assert store._watches == set()
    assert stage.cache._asking is None


@pytest.fixture(scope="module", autouse=True)
def _kinds(control_plane: ControlPlane) -> None:
    async def play() -> None:
        store = await KubeStore.connect(control_plane.kubeconfig)
        await install(store)
        await store.close()

    asyncio.run(play())


def play(work: Awaitable[None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(2 * LONG_SECONDS):
            await work

    asyncio.run(limited())


def test_a_cache_syncs_by_one_stream_and_sees_what_comes(control_plane: ControlPlane, namespace: str) -> None:
    async def act() -> None:
        async with staged(control_plane, namespace) as stage:
            await stage.make("a", "b")
            await stage.until(lambda: len(stage.cache.objects) == 2)
            assert stage.store.requests["list", "ModelService"] == 0
            assert stage.store.requests["watch", "ModelService"] == 1
            await stage.mode("a", "Off")
            await stage.store.delete(MODEL_SERVICE, "b", namespace)
            await stage.equal()
            assert stage.cache.objects[f"{namespace}/a"].spec.mode == "Off"
            assert stage.store.requests["watch", "ModelService"] == 1

    play(act())


def test_pages_and_streams_tell_the_same(control_plane: ControlPlane, namespace: str) -> None:
    async def act() -> None:
        async with staged(control_plane, namespace) as stage:
            await stage.make(*(f"s{n}" for n in range(7)))
            await stage.until(lambda: stage.cache.has_synced)
            paged: Reflector[ModelService] = Reflector(
                stage.store, MODEL_SERVICE, ModelService, WallClock(), namespace=namespace, page=3
            )
            paged._streams = False
            while not paged.has_synced:
                await paged.pump()
            assert paged.objects == stage.cache.objects
            assert stage.store.requests["list", "ModelService"] == 3
            paged.close()

    play(act())


def test_an_own_write_is_fresh_when_its_event_is_there(control_plane: ControlPlane, namespace: str) -> None:
    async def act() -> None:
        async with staged(control_plane, namespace) as stage:
            await stage.make("a")
            await stage.until(lambda: len(stage.cache.objects) == 1)
            key = f"{namespace}/a"
            stage.cache.wrote(await stage.mode("a", "Off"))
            assert not stage.cache.fresh(key)
            await stage.until(lambda: stage.cache.fresh(key))
            assert stage.cache.objects[key].spec.mode == "Off"
            stage.cache.wrote(await stage.mode("a", "Off"))  # changes nothing: no new version, no event
            assert stage.cache.fresh(key)

    play(act())


def test_a_server_that_is_killed_and_comes_back_loses_nothing(
    control_plane: ControlPlane, namespace: str
) -> None:
    async def act() -> None:
        async with staged(control_plane, namespace) as stage:
            await stage.make("a", "b")
            await stage.until(lambda: len(stage.cache.objects) == 2)
            await asyncio.to_thread(control_plane.kill, "kube-apiserver")
            with pytest.raises(Unavailable):
                await stage.make("c")
            before = stage.store.transport.sent
            await stage.until(lambda: stage.cache.faults >= 3)
            assert len(stage.cache.objects) == 2, "what is known stays"
            assert stage.store.transport.sent - before <= 4, "a server that is down is not hammered"
            control_plane.spawn("kube-apiserver")
            await asyncio.to_thread(control_plane.wait_ready, "kube-apiserver")
            await patiently(lambda: stage.make("d"))
            await stage.until(lambda: f"{namespace}/d" in stage.cache.objects)
            await stage.equal()
            assert stage.cache.lists <= 2

    play(act())


def test_a_server_that_is_paused_costs_each_call_its_deadline_and_holds_no_pump(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caching, "PATIENCE_SECONDS", 0.01)

    async def act() -> None:
        async with staged(control_plane, namespace, deadline_seconds=1.0, silence_seconds=1.5) as stage:
            await stage.make("a")
            await stage.until(lambda: len(stage.cache.objects) == 1)
            control_plane.pause("kube-apiserver")
            try:
                with pytest.raises(Unavailable, match="no answer in time"):
                    await stage.mode("a", "Off")
                turns = 0
                while stage.cache.faults < 2:
                    assert await stage.cache.pump() == []
                    turns += 1
                    await asyncio.sleep(0.02)
                assert turns > 20, "the silent stream was noticed while the loop went round"
            finally:
                control_plane.resume("kube-apiserver")
            await stage.equal()
            assert stage.cache.objects[f"{namespace}/a"].metadata.name == "a"

    play(act())


def test_after_a_compaction_a_watch_is_gone_and_the_cache_lists_once(
    control_plane: ControlPlane, namespace: str
) -> None:
    async def act() -> None:
        async with staged(control_plane, namespace) as stage:
            first, *_ = await stage.make("a", "b", "c")
            start = first["metadata"]["resourceVersion"]
            await stage.until(lambda: len(stage.cache.objects) == 3)
            page = await stage.store.list(MODEL_SERVICE, namespace, limit=1)
            await stage.mode("a", "Off")
            await stage.store.delete(MODEL_SERVICE, "b", namespace)
            await asyncio.to_thread(control_plane.compact)
            await asyncio.to_thread(control_plane.restart, "kube-apiserver")
            watch = await patiently(
                lambda: stage.store.watch(MODEL_SERVICE, namespace, resource_version=start)
            )
            await watch.wait()
            with pytest.raises(Gone):
                watch.drain()
            with pytest.raises(Gone):
                await stage.store.list(MODEL_SERVICE, namespace, limit=1, continue_token=page.continue_token)
            await stage.equal()
            assert stage.cache.objects[f"{namespace}/a"].spec.mode == "Off"
            assert stage.cache.lists <= 3

    play(act())


def test_a_connection_that_is_half_open_is_noticed_and_replaced(
    control_plane: ControlPlane, namespace: str, tmp_path: Path
) -> None:
    async def act() -> None:
        port = int(control_plane.server.rpartition(":")[2])
        async with proxy(port) as between:
            kubeconfig = _through(control_plane, between, tmp_path)
            async with (
                staged(
                    control_plane, namespace, kubeconfig, deadline_seconds=1.0, silence_seconds=1.0
                ) as stage,
                staged(control_plane, namespace) as other,
            ):
                await other.make("a")
                await stage.until(lambda: len(stage.cache.objects) == 1)
                between.stalled = True
                await other.make("b")
                await stage.until(lambda: stage.cache.faults >= 1)
                assert len(stage.cache.objects) == 1
                between.cut()
                between.stalled = False
                await stage.until(lambda: len(stage.cache.objects) == 2)
                assert stage.cache.lists == 1, "it goes on from where it was"

    play(act())


def _through(plane: ControlPlane, between: Proxy, folder: Path) -> Path:
    config = yaml.safe_load(plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{between.port}"
    made = folder / "kubeconfig"
    made.write_text(yaml.safe_dump(config))
    return made


class TestStatus:
    def test_told_again_unchanged_gives_no_new_version(
        self, control_plane: ControlPlane, namespace: str
    ) -> None:
        async def act() -> None:
            async with staged(control_plane, namespace) as stage:
                (made,) = await stage.make("a")
                told = {"phase": "Serving", "ready": 1, "conditions": [condition("Ready")]}
                versions = set()
                for _ in range(3):
                    after = await self.tell(stage, told, made["metadata"]["uid"])
                    versions.add(after["metadata"]["resourceVersion"])
                assert len(versions) == 1
                assert after["metadata"]["generation"] == made["metadata"]["generation"]

        play(act())

    def test_of_an_object_made_anew_is_refused(self, control_plane: ControlPlane, namespace: str) -> None:
        async def act() -> None:
            async with staged(control_plane, namespace) as stage:
                (made,) = await stage.make("a")
                await stage.store.delete(MODEL_SERVICE, "a", namespace)
                with pytest.raises(NotFound):
                    await self.tell(stage, {"phase": "Serving"}, made["metadata"]["uid"])
                await stage.make("a")
                with pytest.raises(Conflict, match="UID in precondition"):
                    await self.tell(stage, {"phase": "Serving"}, made["metadata"]["uid"])
                assert "status" not in await stage.store.get(MODEL_SERVICE, "a", namespace)

        play(act())

    def test_gets_through_a_storm_of_other_writes_or_says_conflict(
        self, control_plane: ControlPlane, namespace: str
    ) -> None:
        async def act() -> None:
            async with staged(control_plane, namespace) as stage:
                (made,) = await stage.make("a")

                async def storm() -> None:
                    for turn in range(60):
                        await stage.mode("a", ("Off", "Auto")[turn % 2])

                storming = asyncio.create_task(storm())
                refused = 0
                for turn in range(10):
                    try:
                        await self.tell(
                            stage,
                            {"phase": ("Serving", "Starting")[turn % 2], "ready": turn},
                            made["metadata"]["uid"],
                        )
                    except Conflict:
                        refused += 1
                await storming
                assert refused <= 10
                assert stage.store.transport.sent <= 1 + 60 + 10 * 6, (
                    "a refused status is tried three times at most"
                )
                after = await self.tell(stage, {"phase": "AtZero"}, made["metadata"]["uid"])
                assert after["status"]["phase"] == "AtZero"

        play(act())

    @staticmethod
    async def tell(stage: Stage, status: Any, uid: str) -> Any:
        obj = {"metadata": {"name": "a", "namespace": stage.namespace, "uid": uid}, "status": status}
        return await stage.store.apply(
            MODEL_SERVICE, obj, field_manager="plimsoll", force=True, subresource="status"
        )


@pytest.mark.slow
def test_a_watch_that_the_server_ends_by_time_says_its_version_before(
    control_plane: ControlPlane, namespace: str
) -> None:
    """A bookmark comes shortly before the end, so that a quiet watch is resumed from where the world is by then."""

    async def act() -> None:
        async with staged(control_plane, namespace) as stage:
            start = (await stage.store.list(POD, namespace)).resource_version
            parameters = {
                "watch": True,
                "allowWatchBookmarks": True,
                "resourceVersion": start,
                "timeoutSeconds": 10,
            }
            path = f"/api/v1/namespaces/{namespace}/pods"
            response = await stage.store.transport.stream(path, parameters, "watch pods")
            body = await response.read()
            assert b'"BOOKMARK"' in body

    play(act())
