"""An API server on loopback that answers what a test tells it to: plain HTTP, each request counted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from kubernetes.aio.client import Configuration

from controller.store.kube import Access, KubeStore, Transport
from controller.store.kube.access import client_of
from runtime.clock import Clock, WallClock

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Loopback:
    """`handler` answers; `seen` lists (method, path with query) in order."""

    handler: Handler
    seen: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs))
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.read())
        return await self.handler(request)

    def store(self, *, clock: Clock | None = None, **options: Any) -> KubeStore:
        """A store that reaches this server."""
        access = Access(client_of(Configuration(host=self.url), "plimsoll/test"), "the test")
        rng = random.Random(1)
        return KubeStore(Transport(access, clock or WallClock(), rng, **options), rng)


@asynccontextmanager
async def loopback(handler: Handler) -> AsyncIterator[Loopback]:
    made = Loopback(handler)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server: Any = site._server
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        await runner.cleanup()


def status(code: int, reason: str, message: str, **details: Any) -> web.Response:
    """A metav1.Status as the API server sends it."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason,
            "details": details, "code": code}  # fmt: skip
    return web.json_response(body, status=code)


def scene(play: Callable[[], Awaitable[None]]) -> None:
    """One test's event loop, with an end that it must reach."""

    async def limited() -> None:
        async with asyncio.timeout(30):
            await play()
        ours = [task for task in asyncio.all_tasks() if "RequestHandler" not in str(task.get_coro())]
        assert ours == [asyncio.current_task()], f"tasks left behind: {ours}"

    asyncio.run(limited())
