"""The store on the real control plane, on an event loop in a thread of its own, so that tests written for a store in
their own process can be put to it: each `asyncio.run` of theirs asks over there."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controller.resources.core import LEASE, NAMESPACE, NODE, POD
from controller.resources.crds import install
from controller.resources.kinds import KINDS
from controller.store.errors import NotFound, StoreError
from controller.store.interface import Resource
from controller.store.kube import KubeStore

TESTED = (POD, LEASE, *(kind.resource for kind in KINDS))
SETTLED_SECONDS = 30.0


async def sweep(store: KubeStore) -> None:
    """Everything that the store's tests make is gone when this returns."""
    for resource in (*TESTED, NODE):
        for obj in (await store.list(resource)).items:
            meta = obj["metadata"]
            if resource is POD or meta.get("namespace", "default") == "default":
                await _remove(store, resource, meta["name"], meta.get("namespace", ""), meta)
    for name in ("shop", "other"):
        try:
            await store.delete(NAMESPACE, name)
        except NotFound:
            continue
        async with asyncio.timeout(SETTLED_SECONDS):
            while await _there(store, name):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def _there(store: KubeStore, name: str) -> bool:
    try:
        await store.get(NAMESPACE, name)
    except NotFound:
        return False
    return True


async def _remove(store: KubeStore, resource: Resource, name: str, namespace: str, meta: Any) -> None:
    try:
        if meta.get("finalizers"):
            none = {"metadata": {"finalizers": None}}
            await store.patch(resource, name, none, namespace, field_manager="tests")
        await store.delete(resource, name, namespace, grace_seconds=0)
    except NotFound:
        return


class Loop:
    """An event loop in a thread, and what runs there."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="kube-store", daemon=True)
        self._thread.start()

    def now(self, work: Coroutine[Any, Any, Any], timeout_seconds: float = 60.0) -> Any:
        """Run over there, wait for the end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_seconds)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


class FarWatch:
    """A watch looked at from another thread: `drain` waits for what the server has on its way."""

    def __init__(self, far: Loop, inner: Any) -> None:
        self._far = far
        self._inner = inner

    @property
    def ended(self) -> bool:
        return bool(self._inner.ended)

    def drain(self) -> list[Any]:
        async def look() -> list[Any]:
            found: list[Any] = []
            until = time.monotonic() + 0.25
            while time.monotonic() < until:
                await asyncio.sleep(0.005)
                try:
                    more = self._inner.drain()
                except StoreError as error:
                    if not found:
                        raise
                    self._inner._error = error  # told at the next look, as the seam has it
                    break
                if more:
                    found += more
                    until = time.monotonic() + 0.1
            return found

        return list(self._far.now(look()))

    async def wait(self) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._inner.wait(), self._far.loop))

    def close(self) -> None:
        async def end() -> None:
            self._inner.close()

        self._far.now(end())


class FarKube:
    """A `KubeStore` used from another event loop."""

    def __init__(self, far: Loop, inner: KubeStore) -> None:
        self._far = far
        self._inner = inner
        self.requests = inner.requests
        self.capabilities = inner.capabilities
        self.objects = self

    @property
    def version(self) -> int:
        """Of everything there is: a watch from it sees what comes."""
        return int(self._far.now(self._inner.list(POD, limit=1)).resource_version)

    async def create(self, resource: Resource, obj: Any, **options: Any) -> Any:
        """As the store's; pods wait for a scheduler that does not come, so that nobody else writes to them."""
        if resource is POD and obj["kind"] == "Pod":
            obj = {**obj, "spec": {"schedulerName": "nobody", **obj["spec"]}}
        return await self._ask(self._inner.create, resource, obj, **options)

    async def watch(self, *args: Any, **options: Any) -> FarWatch:
        return FarWatch(self._far, await self._ask(self._inner.watch, *args, **options))

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        method = getattr(self._inner, verb)

        async def call(*args: Any, **options: Any) -> Any:
            return await self._ask(method, *args, **options)

        return call

    async def _ask(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(method(*args, **options), self._far.loop)
        )


@contextmanager
def far_kube(kubeconfig: Path) -> Iterator[tuple[Loop, KubeStore]]:
    """A store on the control plane of a kubeconfig, with our kinds."""
    far = Loop()
    try:
        store = far.now(KubeStore.connect(kubeconfig, agent="plimsoll/tests"))
        try:
            far.now(install(store))
            yield far, store
        finally:
            far.now(store.close())
    finally:
        far.close()
