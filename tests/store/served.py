"""A store behind a door in the test's own event loop, which can be shut and opened again at the same port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from controller.hub.server import HubServer
from controller.hub.service import Hub
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.remote import RemoteStore, StoreServicer
from runtime.authority import Authority, Identity, Role
from runtime.clock import WallClock
from tests.store.remote import ALL_KINDS, HUB

CLOCK = WallClock()


@dataclass
class Served:
    """A store behind a door, which can be shut and opened again at the same port."""

    authority: Authority
    store: EmbeddedStore
    options: dict[str, Any]
    port: int = 0
    servicer: StoreServicer | None = None
    door: HubServer | None = None

    async def open(self) -> None:
        held = self.authority.issue(HUB)
        self.servicer = StoreServicer(self.store, ALL_KINDS, **({"plane": self.store} | self.options))
        hub = Hub(CLOCK, epoch=1)
        self.door = HubServer(hub, lambda: held, port=self.port, hosted=[self.servicer.hosted()])
        await self.door.start()
        self.port = self.door.port

    async def shut(self) -> None:
        if self.door is not None:
            await self.door.stop()
            self.door = None

    async def reach(self, role: Role = Role.ADMIN, **options: Any) -> RemoteStore:
        credentials = self.authority.issue(Identity(role, "tester"))
        return await RemoteStore.connect(f"127.0.0.1:{self.port}", credentials, **options)


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Served]:
    made = Served(Authority.create(CLOCK), open_store(CLOCK), {"pause_seconds": 0.02} | options)
    await made.open()
    try:
        yield made
    finally:
        await made.shut()


def scene(play: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await play()

    asyncio.run(limited())
