"""The list/watch server of the benchmarks: in its good moments it says what a real API server says.

Fakes drift from what they stand for, so this one is small, and what it says is compared here, shape by shape.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.fault_runs import write_kubeconfig
from benchmarks.listwatch import Collection, ListWatchServer, World
from console.controlplane import ControlPlane
from controller.resources.core import LEASE
from controller.store.errors import NotFound
from controller.store.interface import EventType
from controller.store.kube import KubeStore

PATH = "/apis/coordination.k8s.io/v1/leases"
NAMES = [f"shape-{number}" for number in range(5)]


class Said(msgspec.Struct, frozen=True):
    """What a server says, without what is its own: members of answers, types of events."""

    pages: tuple[tuple[str, ...], ...]
    item: bool
    events: tuple[tuple[str, str, str], ...]
    whole: tuple[tuple[str, str], ...]
    mark: str


async def said(store: KubeStore, change: Any) -> Said:
    """Ask a server for pages, a watch and a streaming list of leases."""
    pages, token, version = [], "", ""
    while not pages or token:
        body = await store.transport.read(PATH, {"limit": 4, "continue": token}, "list", page=True)
        page = msgspec.json.decode(body)
        pages.append(page)
        token, version = page["metadata"].get("continue", ""), page["metadata"]["resourceVersion"]
    watch = await store.watch(LEASE, resource_version=version)
    await change(NAMES[0])
    event = (await _events(watch, 1))[0]
    watch.close()
    stream = await store.watch(LEASE, resource_version="")
    found = []
    while not any(each.type is EventType.BOOKMARK for each in found):
        found += await _events(stream, 1)
    stream.close()
    objects = [each.object for each in found]
    return Said(
        pages=tuple(
            tuple(sorted(f"{name}" for name in (*page, *page["metadata"]))) for page in (pages[0], pages[-1])
        ),
        item="kind" in pages[0]["items"][0],
        events=((event.type, event.object["kind"], event.object["apiVersion"]),),
        whole=tuple(sorted({(each.type, obj["kind"]) for each, obj in zip(found, objects, strict=True)})),
        mark=objects[-1]["metadata"]["annotations"]["k8s.io/initial-events-end"],
    )


async def _events(watch: Any, least: int) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(20):
        while len(found) < least:
            await watch.wait()
            found += watch.drain()
    return found


async def the_real_one(kubeconfig: Path) -> Said:
    store = await KubeStore.connect(kubeconfig)

    async def change(name: str) -> None:
        await store.patch(LEASE, name, {"metadata": {"labels": {"a": "b"}}}, "default", field_manager="tests")

    try:
        for name in NAMES:
            lease = {"metadata": {"name": name, "namespace": "default"}, "spec": {}}
            await store.create(LEASE, lease, field_manager="tests")
        return await said(store, change)
    finally:
        for name in NAMES:
            try:
                await store.delete(LEASE, name, "default")
            except NotFound:
                continue
        await store.close()


async def ours() -> Said:
    leases = Collection(World(), PATH, "Lease", "coordination.k8s.io/v1")
    server = ListWatchServer([leases])

    def lease(name: str, version: int) -> bytes:
        meta = {"name": name, "namespace": "default", "uid": name, "resourceVersion": str(version)}
        return msgspec.json.encode({"metadata": meta, "spec": {}})

    leases.fill((f"default/{name}", lease(name, leases.world.version)) for name in NAMES)

    async def change(name: str) -> None:
        version = leases.world.next()
        server.tell(leases, leases.put(f"default/{name}", lease(name, version), version))

    with tempfile.TemporaryDirectory() as folder:
        store = await KubeStore.connect(write_kubeconfig(Path(folder), await server.start()))
        try:
            return await said(store, change)
        finally:
            await store.close()
            await server.stop()


def test_says_what_a_real_server_says(control_plane: ControlPlane) -> None:
    assert asyncio.run(ours()) == asyncio.run(the_real_one(control_plane.kubeconfig))


def test_a_kind_that_it_does_not_have_is_not_found() -> None:
    async def ask() -> None:
        server = ListWatchServer([])
        with tempfile.TemporaryDirectory() as folder:
            store = await KubeStore.connect(write_kubeconfig(Path(folder), await server.start()))
            try:
                with pytest.raises(NotFound, match="the server could not find the requested resource"):
                    await store.list(LEASE)
            finally:
                await store.close()
                await server.stop()

    asyncio.run(ask())
