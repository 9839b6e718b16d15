"""A store behind a real door on loopback, in a thread of its own, so that tests written for a store in their own
process can be put to it unchanged: each call, and each look at a watch, goes over the wire and back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from controller.hub.server import HubServer
from controller.hub.service import Hub
from controller.resources.core import CORE_RESOURCES
from controller.resources.kinds import KINDS
from controller.store.embedded import EmbeddedStore
from controller.store.errors import StoreError
from controller.store.remote import RemoteStore, StoreServicer
from runtime.authority import Authority, Credentials, Identity, Role
from runtime.clock import WallClock

HUB = Identity(Role.OPERATOR, "hub")
ALL_KINDS = (*CORE_RESOURCES, *(kind.resource for kind in KINDS))
QUIET_SECONDS = 0.002


class Door:
    """Authority, hub and servicer on one event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="store-door", daemon=True)
        self._thread.start()
        self.authority = Authority.create(WallClock())
        self._server: HubServer | None = None
        self.servicer: StoreServicer | None = None

    def now(self, work: Coroutine[Any, Any, Any], timeout_seconds: float = 20.0) -> Any:
        """Run on the door's loop, wait for the end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_seconds)

    def credentials(self, role: Role, name: str = "tester") -> Credentials:
        return self.authority.issue(Identity(role, name))

    def serve(self, store: EmbeddedStore, **options: Any) -> str:
        """Let the door stand in front of a store, opening it if it is shut; its endpoint."""
        held = self.authority.issue(HUB)

        async def start() -> HubServer:
            self.servicer = StoreServicer(store, ALL_KINDS, plane=store, pause_seconds=0.01, **options)
            server = HubServer(Hub(WallClock(), epoch=1), lambda: held, hosted=[self.servicer.hosted()])
            await server.start()
            return server

        async def turn() -> None:
            assert self.servicer is not None
            self.servicer._store = self.servicer._plane = store

        if self._server is None:
            self._server = self.now(start())
        else:
            self.now(turn())
        return self._server.endpoint

    def shut(self) -> None:
        if self._server is not None:
            self.now(self._server.stop())
            self._server = None

    def close(self) -> None:
        self.shut()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


class FarWatch:
    """A remote watch looked at from another thread: `drain` waits for what the server has already sent."""

    def __init__(self, door: Door, inner: Any) -> None:
        self._door = door
        self._inner = inner

    @property
    def ended(self) -> bool:
        return bool(self._inner.ended)

    def drain(self) -> list[Any]:
        async def look() -> list[Any]:
            found: list[Any] = []
            until = time.monotonic() + 0.06
            while time.monotonic() < until:
                await asyncio.sleep(QUIET_SECONDS)
                try:
                    more = self._inner.drain()
                except StoreError as error:
                    if not found:
                        raise
                    self._inner._error = error  # told at the next look, as the seam has it
                    break
                if more:
                    found += more
                    until = time.monotonic() + 0.02
            return found

        return list(self._door.now(look()))

    async def wait(self) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._inner.wait(), self._door.loop))

    def close(self) -> None:
        async def end() -> None:
            self._inner.close()

        self._door.now(end())


class FarStore:
    """A `RemoteStore` used from another event loop. What tests look at behind the seam is the served store's."""

    def __init__(self, door: Door, remote: RemoteStore, served: EmbeddedStore) -> None:
        self._door = door
        self._remote = remote
        self.objects = served.objects
        self.requests = served.requests
        self.capabilities = remote.capabilities

    async def watch(self, *args: Any, **options: Any) -> FarWatch:
        return FarWatch(self._door, await self._far(self._remote.watch, *args, **options))

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        method = getattr(self._remote, verb)

        async def call(*args: Any, **options: Any) -> Any:
            return await self._far(method, *args, **options)

        return call

    async def _far(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        future = asyncio.run_coroutine_threadsafe(method(*args, **options), self._door.loop)
        return await asyncio.wrap_future(future)


@contextmanager
def far_store(door: Door, store: EmbeddedStore, role: Role = Role.ADMIN) -> Iterator[FarStore]:
    """The store as an admin reaches it."""
    endpoint = door.serve(store)
    remote = door.now(RemoteStore.connect(endpoint, door.credentials(role)))
    try:
        yield FarStore(door, remote, store)
    finally:
        door.now(remote.close())
