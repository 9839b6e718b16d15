"""A TCP proxy on loopback that can cut a connection in the middle of whatever passes, or stop passing anything."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """`cut_after` bytes from the client (of all its connections) the connection is reset, inside a TLS record."""

    port: int = 0
    target: int = 0
    cut_after: int | None = None
    passed: int = 0
    stalled: bool = False
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except ConnectionError:
            writer.transport.abort()
            return
        self.writers += [writer, up_writer]
        back = asyncio.create_task(self.copy(up_reader, writer))
        await self.copy(reader, up_writer, counted=True)
        back.cancel()

    async def copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool = False
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if counted and self.cut_after is not None and self.passed + len(data) > self.cut_after:
                    writer.write(data[: self.cut_after - self.passed])
                    await writer.drain()
                    self.cut()
                    return
                self.passed += len(data) if counted else 0
                while self.stalled:  # noqa: ASYNC110 - a network that is down has no event
                    await asyncio.sleep(0.01)
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    def cut(self) -> None:
        """Resets every connection that passes here."""
        for each in self.writers:
            each.transport.abort()
        self.writers.clear()


@asynccontextmanager
async def proxy(target: int) -> AsyncIterator[Proxy]:
    """A proxy in front of a port on loopback."""
    made = Proxy(target=target)
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        made.stalled = False
        made.cut()
        server.close()
