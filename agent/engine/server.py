"""Serves a node's engines to gateways over mutual TLS 1.3: `plimsoll.v1.Engines`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from agent.engine.host import EngineHost, EngineStream
from runtime.authority import Role
from runtime.channels import EOF, REQUEST_PLANE, Limits, server_options
from runtime.clock import Clock
from runtime.doors import open_door
from runtime.tls import Guard, Source, caller
from wire import engine_pb2 as pb
from wire import engine_pb2_grpc

logger = logging.getLogger(__name__)

SERVICE = "plimsoll.v1.Engines"
NODE_KEY = "x-plimsoll-node"
ACCEPTED = (("x-plimsoll-accepted", "1"),)
"""Said in the initial metadata. A refused stream has none, but may look open for a moment all the same."""
INBOX_FRAMES = 64
"""Windows that one gateway may be ahead of the engines."""
OUTBOX_FRAMES = 256
"""Frames waiting for one gateway; one that takes none for so long is cut off, and replays elsewhere."""


class _Session:
    """A gateway's stream, the frames of windows that were not lived through yet, and those on their way to it."""

    def __init__(self, stream: EngineStream, context: Any, task: asyncio.Task[Any] | None) -> None:
        self.stream = stream
        self.inbox: deque[pb.GatewayFrame] = deque()
        self.outbox: deque[pb.EngineFrame] = deque()
        self.wake = asyncio.Event()
        self.ended = ""
        self._task = task
        self._context = context

    @property
    def until_seconds(self) -> float:
        """End of the newest window that is here."""
        return self.inbox[-1].until_seconds if self.inbox else self.stream.until_seconds

    def end(self, why: str) -> None:
        """End the stream from this side, with a sentence for the gateway."""
        self.ended = why
        if self._task is not None:
            self._task.cancel()

    async def write(self) -> None:
        """Write what is queued until cancelled."""
        while True:
            await self.wake.wait()
            self.wake.clear()
            while self.outbox:
                await self._context.write(self.outbox.popleft())


class EnginesService(engine_pb2_grpc.EnginesServicer):
    """The service for one node. All methods belong to one event loop.

    In accelerated time the owner calls `received` and then `advance` once per window. In real time `run` does
    both, as frames come.
    """

    def __init__(self, host: EngineHost) -> None:
        self.host = host
        self._sessions: dict[str, _Session] = {}
        self._arrived = asyncio.Event()
        self.cut_off = 0

    @property
    def gateways(self) -> tuple[str, ...]:
        """Names of the gateways that have a stream now, sorted."""
        return tuple(sorted(self._sessions))

    async def Serve(self, request_iterator: Any, context: Any) -> None:  # noqa: ARG002 - messages come by the context
        """One gateway's stream until its end; then all its requests are dropped."""
        gateway = caller(context.auth_context()).name
        named = dict(context.invocation_metadata() or ()).get(NODE_KEY, "")
        if named != self.host.node:
            why = f"This is node {self.host.node!r}, not {str(named)[:120]!r} ({NODE_KEY})."
            await context.abort(grpc.StatusCode.NOT_FOUND, why)
        former = self._sessions.get(gateway)
        if former is not None:
            former.end("A newer stream of this gateway replaced this one.")
            self._close(gateway, former)
        session = _Session(self.host.open_stream(gateway), context, asyncio.current_task())
        self._sessions[gateway] = session
        writing: asyncio.Task[None] | None = None
        try:
            # Only then the writer: a first frame sends initial metadata too, and gRPC breaks on two at once.
            await context.send_initial_metadata(ACCEPTED)
            writing = asyncio.create_task(session.write())
            await self._listen(session, context)
        except asyncio.CancelledError:
            if not session.ended:
                raise
            await context.abort(grpc.StatusCode.ABORTED, session.ended)
        finally:
            if writing is not None:
                writing.cancel()
            self._close(gateway, session)

    async def _listen(self, session: _Session, context: Any) -> None:
        while (frame := await _read(context)) is not EOF:
            if not frame.until_seconds:
                self.host.accept(session.stream, frame)
            elif len(session.inbox) < INBOX_FRAMES:
                session.inbox.append(frame)
            else:
                why = f"{len(session.inbox)} windows are waiting and none is advanced; send no more ahead."
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why)
            self._arrived.set()

    def _close(self, gateway: str, session: _Session) -> None:
        if self._sessions.get(gateway) is session:
            del self._sessions[gateway]
            self._arrived.set()  # nobody need wait for its frame any more
        dropped = self.host.close_stream(session.stream)
        if dropped:
            facts = {"node": self.host.node, "gateway": gateway, "dropped": dropped}
            logger.warning("a gateway's stream ended with requests open", extra={"facts": facts})

    async def received(self, until_seconds: float, timeout_seconds: float) -> frozenset[str]:
        """Wait (wall time) until each gateway's frame of the window that ends then is here; return who is late."""

        def late() -> frozenset[str]:
            return frozenset(
                name for name, each in self._sessions.items() if each.until_seconds < until_seconds
            )

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while late():
                    self._arrived.clear()
                    await self._arrived.wait()
        return late()

    def advance(self, until_seconds: float) -> None:
        """Let the engines live until then, and queue exactly one frame for each gateway.

        Frames of windows are taken in here, by name of the gateway, and not as they come: so which gateway was
        faster changes nothing.
        """
        for _, session in sorted(self._sessions.items()):
            while session.inbox and session.inbox[0].until_seconds <= until_seconds:
                self.host.accept(session.stream, session.inbox.popleft())
        self.host.advance_to(until_seconds)
        for session in list(self._sessions.values()):
            self._send(session, until_seconds)

    async def run(self, clock: Clock, period_seconds: float = 0.01, heartbeat_seconds: float = 1.0) -> None:
        """Real time until cancelled: a frame as soon as there is an event, and each `heartbeat_seconds` anyway."""
        beat = 0.0
        while True:
            self._arrived.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(period_seconds):
                    await self._arrived.wait()
            now = clock.now()
            self.host.advance_to(now)
            due = now >= beat
            beat = now + heartbeat_seconds if due else beat
            for session in list(self._sessions.values()):
                if due or session.stream.events:
                    self._send(session, now)

    def _send(self, session: _Session, now_seconds: float) -> None:
        if len(session.outbox) >= OUTBOX_FRAMES:
            self.cut_off += 1
            session.end(f"{len(session.outbox)} frames are waiting and none is read.")
            return
        session.outbox.append(self.host.frame(session.stream, now_seconds))
        session.wake.set()


async def _read(context: Any) -> Any:
    """The next frame. What cannot be parsed ends the stream with a status."""
    try:
        return await context.read()
    except DecodeError as error:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"A frame cannot be parsed: {error}.")


class EngineServer:
    """One node's port. `port` 0 takes a free one."""

    def __init__(
        self,
        service: EnginesService,
        credentials: Source,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: Limits = REQUEST_PLANE,
    ) -> None:
        self.service = service
        self._credentials = credentials
        self._host, self._port = host, port
        guard = Guard({SERVICE: frozenset({Role.GATEWAY})})
        self._server: Any = grpc.aio.server(interceptors=(guard,), options=server_options(limits))
        engine_pb2_grpc.add_EnginesServicer_to_server(service, self._server)

    @property
    def endpoint(self) -> str:
        """host:port, once started."""
        return f"{self._host}:{self._port}"

    async def start(self, *, prove: bool = True) -> None:
        """Listen. Raises: OSError when the port cannot be had, TransportUnsafe when TLS 1.2 would be spoken.

        `prove` False leaves out the handshake that shows the latter, for a process with many such servers.
        """
        self._port = await open_door(
            self._server, self._host, self._port, self._credentials, another="agent", prove=prove
        )

    async def stop(self, grace_seconds: float = 0.0) -> None:
        """Close the port and cut all streams."""
        await self._server.stop(grace_seconds)
