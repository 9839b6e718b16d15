"""At the start: definitions that are missing, of another version or older, on a scripted and on the real server."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from console.controlplane import ControlPlane
from controller.resources.crds import CRD, definitions, install
from controller.resources.kinds import KINDS
from controller.resources.schema import schema_of
from controller.store.errors import NotFound
from controller.store.kube import KubeStore
from controller.store.kube.discovery import missing, wait_until_served
from runtime.clock import WallClock
from tests.store.loopback import loopback, scene, status

Json = dict[str, Any]
QUICK = WallClock(monotonic=lambda: time.monotonic() * 10)


class Served:
    """What a scripted server says it serves."""

    def __init__(self) -> None:
        self.resources: list[Json] = []
        self.schemas: Json = {}
        self.versions = ["v1alpha1"]
        for kind in KINDS:
            named = {"namespaced": kind.resource.namespaced, "kind": kind.resource.kind}
            parts = ["", "/status"] if kind.resource.has_status else [""]
            parts += ["/scale"] if kind.resource.scale else []
            self.resources += [{"name": kind.resource.plural + part, **named} for part in parts]
            group = [{"group": "plimsoll.dev", "version": "v1alpha1", "kind": kind.resource.kind}]
            schema = copy.deepcopy(schema_of(kind.resource.kind))
            self.schemas[kind.resource.kind] = schema | {"x-kubernetes-group-version-kind": group}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if not self.versions:
            return web.Response(status=404, text="404 page not found\n")
        if request.path == "/apis/plimsoll.dev":
            return web.json_response({"versions": [{"version": each} for each in self.versions]})
        if "v1alpha1" not in self.versions:
            return web.Response(status=404, text="404 page not found\n")
        if request.path.startswith("/openapi/v3"):
            return web.json_response({"components": {"schemas": self.schemas}})
        return web.json_response({"resources": self.resources})


def nothing(served: Served) -> None:
    served.versions = []


def other_version(served: Served) -> None:
    served.versions = ["v1", "v1beta1"]


def one_kind_missing(served: Served) -> None:
    served.resources = [each for each in served.resources if not each["name"].startswith("powerdomains")]


def no_scale(served: Served) -> None:
    served.resources = [each for each in served.resources if not each["name"].endswith("/scale")]


def cluster_scoped(served: Served) -> None:
    for each in served.resources:
        each["namespaced"] = False


def older_field(served: Served) -> None:
    del served.schemas["ModelService"]["properties"]["spec"]["properties"]["drainSeconds"]


def older_item(served: Served) -> None:
    objectives = served.schemas["ModelService"]["properties"]["spec"]["properties"]["objectives"]
    del objectives["items"]["properties"]["ttftSeconds"]


def much_older(served: Served) -> None:
    served.schemas["TrainingJob"]["properties"]["status"]["properties"] = {}


def unpublished(served: Served) -> None:
    served.schemas = {}


def newer(served: Served) -> None:
    served.schemas["ModelService"]["properties"]["spec"]["properties"]["more"] = {"type": "string"}
    served.versions = ["v1", "v1alpha1"]


@pytest.mark.parametrize(("spoil", "words"), [
    pytest.param(nothing, ["ModelService: not there, as nothing of plimsoll.dev is"], id="nothing installed"),
    pytest.param(other_version, ["served in another version (v1, v1beta1), needed is v1alpha1"], id="another version"),
    pytest.param(one_kind_missing, ["PowerDomain: not there in plimsoll.dev/v1alpha1"], id="one kind missing"),
    pytest.param(no_scale, ["ModelService: without the scale subresource"], id="no scale"),
    pytest.param(cluster_scoped, ["ModelService: not namespaced", "TrainingJob: not namespaced"], id="another scope"),
    pytest.param(older_field, ["ModelService: of an older definition, without spec.drainSeconds"], id="older"),
    pytest.param(older_item, ["without spec.objectives[].ttftSeconds"], id="older inside a list"),
    pytest.param(much_older, ["TrainingJob: of an older definition, without status.", " more"], id="much older"),
    pytest.param(unpublished, ["ModelService: without a published schema yet"], id="schema not published yet"),
    pytest.param(newer, [], id="newer definitions do"),
    pytest.param(lambda _: None, [], id="the right ones do"),
])  # fmt: skip
def test_what_is_missing_is_named(spoil: Callable[[Served], None], words: list[str]) -> None:
    served = Served()
    spoil(served)

    async def play() -> None:
        async with loopback(served.answer) as server:
            store = server.store()
            found = "; ".join(map(str, await missing(store)))
            assert bool(found) == bool(words)
            for each in words:
                assert each in found
            await store.close()

    scene(play)


def test_waits_until_it_is_mended_and_says_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    served = Served()
    nothing(served)
    told: list[str] = []
    beats: list[int] = []

    def hear(sentence: str) -> None:
        told.append(sentence)
        if len(told) == 3:
            served.versions = ["v1alpha1"]

    async def play() -> None:
        async with loopback(served.answer) as server:
            store = server.store()
            stop = asyncio.Event()
            assert await wait_until_served(
                store, QUICK, stop, told=hear, beat=lambda: beats.append(1), seed=1
            )
            await store.close()

    scene(play)
    assert told[-1] == ""
    assert "ModelService, TrainingJob, AcceleratorClass" in told[0]
    assert "kubectl apply --server-side -f helm/plimsoll/files/crds" in told[0]
    assert beats
    assert sum("does not serve" in each.message for each in caplog.records) == 1, (
        "the same is not said each time"
    )


def test_a_server_that_does_not_answer_is_asked_ever_more_rarely() -> None:
    async def refuse(_: web.Request) -> web.StreamResponse:
        return status(500, "InternalError", "no")

    async def play() -> None:
        async with loopback(refuse) as server:
            store = server.store()
            stop = asyncio.Event()
            told: list[str] = []
            waiting = asyncio.create_task(
                wait_until_served(store, WallClock(), stop, told=told.append, beat=lambda: None, seed=1)
            )
            await asyncio.sleep(1.5)
            stop.set()
            assert await waiting is False
            assert 1 <= len(server.seen) <= 3
            assert "does not say which kinds it serves" in told[0]
            await store.close()

    scene(play)


class TestOnTheRealServer:
    @pytest.fixture(autouse=True)
    def _mended(self, control_plane: ControlPlane) -> Iterator[None]:
        yield
        self.on(control_plane, install)

    @staticmethod
    def on(control_plane: ControlPlane, work: Callable[[KubeStore], Any]) -> None:
        async def act() -> None:
            store = await KubeStore.connect(control_plane.kubeconfig)
            try:
                async with asyncio.timeout(60):
                    await work(store)
            finally:
                await store.close()

        asyncio.run(act())

    def test_missing_then_installed_then_older(self, control_plane: ControlPlane) -> None:
        async def act(store: KubeStore) -> None:
            for each in definitions():
                try:
                    await store.delete(CRD, each["metadata"]["name"])
                except NotFound:
                    continue
            await self.says(store, "not there")
            await install(store)
            await self.says(store, "")
            older = copy.deepcopy(definitions()[0])
            version = older["spec"]["versions"][0]
            del version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["drainSeconds"]
            await store.apply(CRD, older, field_manager="plimsoll-crds", force=True)
            await self.says(store, "of an older definition, without spec.drainSeconds")

        self.on(control_plane, act)

    @staticmethod
    async def says(store: KubeStore, words: str) -> None:
        """Returns when the server serves (and has published) what is expected."""
        while True:
            found = "; ".join(map(str, await missing(store)))
            if (words in found) if words else not found:
                return
            await asyncio.sleep(0.1)
