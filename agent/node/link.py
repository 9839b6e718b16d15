"""The agent's stream to the hub: dialled, written, read and lost in one place."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from runtime.authority import Credentials, Identity
from runtime.channels import EOF, NODE_PLANE, Limits, dial
from wire import agent_pb2 as pb
from wire import agent_pb2_grpc

logger = logging.getLogger(__name__)

ACCEPTED = "x-plimsoll-accepted"
"""Metadata key of a hub's answer to a hello. A refusal is a status and has it not."""

Receiver = Callable[[pb.HubMessage], None]


class LinkError(Exception):
    """The hub cannot be reached or refused the stream; the text says which and why, but where it went `unsaid`."""

    unsaid = False


class HubLink:
    """One stream. Made by `open`; when it breaks it stays broken, and another is opened."""

    def __init__(self, channel: Any, call: Any, receiver: Receiver) -> None:
        self._channel = channel
        self._call = call
        self._receiver = receiver
        self._reading = asyncio.create_task(self._read())
        self.broken: str | None = None
        """Why the stream ended; None while it lives."""
        self.on_break: Callable[[], None] = lambda: None
        """Called once, when it broke."""

    @classmethod
    async def open(
        cls,
        endpoint: str,
        hub: Identity,
        credentials: Credentials,
        hello: pb.AgentMessage,
        receiver: Receiver,
        limits: Limits = NODE_PLANE,
    ) -> HubLink:
        """Dials, says hello, and returns once the hub has accepted it.

        `receiver` is called for each message of the hub, in order, on the event loop. Raises: LinkError.
        """
        asked = (endpoint, hub, credentials, hello, receiver, limits)
        try:
            return await cls._dialled(*asked)
        except LinkError as error:
            if not error.unsaid:
                raise
        # The hello met the refusal on its way: once more, for the hub's own words.
        return await cls._dialled(*asked)

    @classmethod
    async def _dialled(
        cls,
        endpoint: str,
        hub: Identity,
        credentials: Credentials,
        hello: pb.AgentMessage,
        receiver: Receiver,
        limits: Limits,
    ) -> HubLink:
        channel = dial(endpoint, credentials, hub, limits)
        stub: Any = agent_pb2_grpc.HubStub(channel)
        call: Any = None
        try:
            async with asyncio.timeout(limits.connect_seconds):
                call = stub.Connect()
                await call.write(hello)
                if ACCEPTED not in ((await call.initial_metadata()) or ()):
                    raise _failure(endpoint, await call.code(), await call.details())
        except (TimeoutError, grpc.RpcError, asyncio.InvalidStateError) as error:
            code, details = await _status(call, error)
            await _discard(channel, call)
            raise _failure(endpoint, code, details) from error
        except BaseException:
            await _discard(channel, call)
            raise
        return cls(channel, call, receiver)

    async def send(self, message: pb.AgentMessage) -> bool:
        """Writes a message; False when the stream is, or thereby turns out to be, broken."""
        if self.broken is not None:
            return False
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            self._break(*await _status(self._call, error))
            return False
        return True

    async def close(self, farewell: pb.AgentMessage | None = None, timeout_seconds: float = 1.0) -> None:
        """Says goodbye where there is still somebody to hear it, and lets go of the connection."""
        if farewell is not None and await self.send(farewell):
            with contextlib.suppress(TimeoutError, grpc.RpcError, asyncio.InvalidStateError):
                async with asyncio.timeout(timeout_seconds):
                    await self._call.done_writing()
                    await self._reading
        self.broken = self.broken or "closed by this agent"
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        await _discard(self._channel, self._call)

    async def _read(self) -> None:
        while True:
            try:
                message = await self._call.read()
            except (grpc.RpcError, asyncio.InvalidStateError) as error:
                self._break(*await _status(self._call, error))
                return
            if message is EOF:
                self._break(await self._call.code(), await self._call.details())
                return
            self._receiver(message)

    def _break(self, code: grpc.StatusCode | None, details: str | None) -> None:
        if self.broken is None:
            self.broken = f"{code.name if code else 'UNKNOWN'}: {details or 'the hub ended the stream'}"
            self.on_break()


async def _status(call: Any, error: BaseException) -> tuple[grpc.StatusCode | None, str | None]:
    """Code and details of a call that failed; of the error where the call has none yet."""
    if call is not None and call.done():
        return await call.code(), await call.details()
    if isinstance(error, grpc.aio.AioRpcError):
        return error.code(), error.details()
    return None, f"{type(error).__name__} {error}".strip()


async def _discard(channel: Any, call: Any) -> None:
    if call is not None:
        call.cancel()
    await channel.close()


def _failure(endpoint: str, code: grpc.StatusCode | None, details: str | None) -> LinkError:
    failed = LinkError(
        f"The hub at {endpoint} cannot be used ({code.name if code else 'no answer'}): {details or 'no details'}."
    )
    # grpc.aio puts an INTERNAL of its own where a write fails before the status is read.
    failed.unsaid = code is grpc.StatusCode.INTERNAL
    return failed
