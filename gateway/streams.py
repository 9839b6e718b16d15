"""What all of the gateway's streams have in common: how one is known to be accepted, and why one ended."""

from __future__ import annotations

import contextlib
from typing import Any

import grpc
import grpc.aio

ACCEPTED_KEY = "x-plimsoll-accepted"
ACCEPTED = ((ACCEPTED_KEY, "1"),)
"""Said in the initial metadata. A refused stream has none, but may look open for a moment all the same."""


async def refusal(call: Any) -> str:
    """Wait for a dialled stream to be accepted; empty when it was, else why not.

    Raises: grpc.RpcError where there is no connection at all.
    """
    if ACCEPTED_KEY in dict(await call.initial_metadata()):
        return ""
    return await ending(call)


async def ending(call: Any) -> str:
    """Why a stream that has ended did: status and sentence."""
    return f"{(await call.code()).name}: {await call.details() or 'the other side ended the stream'}"


def told(error: BaseException) -> str:
    """Why an operation on a stream failed."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details() or 'no details'}"
    return f"{type(error).__name__} {error}".strip()


async def discard(channel: Any, call: Any) -> None:
    """Let go of a stream and its connection."""
    if call is not None:
        with contextlib.suppress(grpc.RpcError):
            call.cancel()
    await channel.close()
