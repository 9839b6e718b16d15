"""Streams from the gateway to the nodes: one for each node that the routes name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from gateway.codec import engine_report
from gateway.messages import EngineReport
from runtime.authority import Credentials, Identity, Role
from runtime.channels import EOF, REQUEST_PLANE, Limits, dial
from wire import engine_pb2 as pb
from wire import engine_pb2_grpc

logger = logging.getLogger(__name__)

NODE_KEY = "x-plimsoll-node"
OUTBOX_FRAMES = 1_024
"""Frames waiting for one node; a node that takes none for so long is as good as dead."""
INBOX_REPORTS = 1_024
"""Reports of one node that the core has not folded; reading stops there, and the node's own queue fills."""


class NodeLink:
    """One stream to one node. Made by `connect`; when it breaks it stays broken, and another is made.

    `reports` are those not taken yet, oldest first; `changed` is called after each, and when the stream breaks.
    """

    def __init__(
        self, node: str, endpoint: str, channel: Any, call: Any, changed: Callable[[], None]
    ) -> None:
        self.node = node
        self.endpoint = endpoint
        self.broken: str | None = None
        self.reports: deque[EngineReport] = deque()
        self.frames_sent = 0
        self._channel = channel
        self._call = call
        self._changed = changed
        self._outbox: deque[pb.GatewayFrame] = deque()
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._tasks = (asyncio.create_task(self._read()), asyncio.create_task(self._write()))

    @classmethod
    async def connect(
        cls,
        node: str,
        endpoint: str,
        credentials: Credentials,
        changed: Callable[[], None],
        limits: Limits = REQUEST_PLANE,
    ) -> NodeLink | str:
        """Dial and wait until the node has accepted the stream; or the sentence that says why it is not there."""
        channel = dial(endpoint, credentials, Identity(Role.NODE, node), limits)
        stub: Any = engine_pb2_grpc.EnginesStub(channel)
        call: Any = None
        try:
            async with asyncio.timeout(limits.connect_seconds):
                call = stub.Serve(metadata=((NODE_KEY, node),))
                await call.initial_metadata()
                if not call.done():
                    return cls(node, endpoint, channel, call, changed)
                problem = f"{(await call.code()).name}: {await call.details()}"
        except (TimeoutError, grpc.RpcError, asyncio.InvalidStateError) as error:
            problem = _told(error)
        except BaseException:
            await _discard(channel, call)
            raise
        await _discard(channel, call)
        return f"Node {node} at {endpoint} cannot be reached ({problem})."

    def send(self, frame: pb.GatewayFrame) -> None:
        """Queue a frame; what is queued on a stream that breaks is lost with it."""
        if self.broken is not None:
            return
        if len(self._outbox) >= OUTBOX_FRAMES:
            self.fail(f"the node takes no frames: {len(self._outbox)} are waiting")
            return
        self._outbox.append(frame)
        self._wake.set()

    def take(self) -> list[EngineReport]:
        """The reports that came in since the last call."""
        taken = list(self.reports)
        self.reports.clear()
        self._room.set()
        return taken

    def fail(self, why: str) -> None:
        """Give the stream up."""
        if self.broken is None:
            self.broken = why
            self._changed()

    async def close(self) -> None:
        """Let go of the connection; the node drops what it has of ours."""
        self.fail("closed by this gateway")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await _discard(self._channel, self._call)

    async def _read(self) -> None:
        with self._breaks():
            while True:
                while len(self.reports) >= INBOX_REPORTS:
                    self._room.clear()
                    await self._room.wait()
                message = await self._call.read()
                if message is EOF:
                    status, details = await self._call.code(), await self._call.details()
                    self.fail(f"{status.name}: {details or 'the node ended the stream'}")
                    return
                self.reports.append(engine_report(message, self.node))
                self._changed()

    async def _write(self) -> None:
        with self._breaks():
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._outbox:
                    await self._call.write(self._outbox.popleft())
                    self.frames_sent += 1

    @contextlib.contextmanager
    def _breaks(self) -> Any:
        try:
            yield
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            self.fail(_told(error))


def _told(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details() or 'no details'}"
    return f"{type(error).__name__} {error}".strip()


async def _discard(channel: Any, call: Any) -> None:
    if call is not None:
        call.cancel()
    await channel.close()
