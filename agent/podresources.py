"""Asks the node's kubelet which pod has which GPU: the pod-resources API, v1, over its socket.

The socket is a file on the node that only root may open; nothing goes over a network, so there is no TLS to speak.
The API reads: no pod can be changed through it. It is asked anew every few seconds over a connection of its own,
because a kubelet that restarts makes a new socket. Pods of everybody are in the answer, not only ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec

from agent.node.drivers.base import Device
from agent.node.holders import DeviceNames, Holders, holders_of, offered_of
from runtime.channels import MIB
from runtime.clock import Clock
from wire import podresources_pb2 as pb
from wire import podresources_pb2_grpc

logger = logging.getLogger(__name__)

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
MOST_BYTES = 4 * MIB
"""110 pods have some 50 kB. A larger answer is refused before it is read."""


class PodResourcesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the kubelet is asked. What it last said counts for `keep_seconds` more when it does not answer."""

    socket: Path = SOCKET
    period_seconds: float = 10.0
    deadline_seconds: float = 5.0
    keep_seconds: float = 60.0


class PodResources:
    """Who holds each GPU of this node, as last heard. Belongs to one event loop."""

    def __init__(
        self,
        devices: Callable[[], tuple[Device, ...]],
        clock: Clock,
        config: PodResourcesConfig = PodResourcesConfig(),  # noqa: B008 - frozen
    ) -> None:
        """`devices()` gives the devices of the inventory as they are now."""
        self._devices = devices
        self._clock = clock
        self._config = config
        self._held = Holders(fault="The kubelet has not been asked yet.")
        self._heard_monotonic = float("-inf")
        self.failures = 0
        """Questions that were not answered."""

    def holders(self) -> Holders:
        """What the kubelet last said, or why nobody knows."""
        return self._held

    async def run(self, stop: asyncio.Event) -> None:
        """Asks every few seconds until `stop` is set; never ends by itself."""
        while not stop.is_set():
            await self.refresh()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.period_seconds):
                    await stop.wait()

    async def refresh(self) -> Holders:
        """Asks once. Never raises: an unanswered question is a fault in the result."""
        try:
            found = await self._ask()
        except _Unanswered as error:
            self.failures += 1
            found = self._without(str(error))
        else:
            self._heard_monotonic = self._clock.monotonic()
        if found.fault and found.fault != self._held.fault:
            logger.warning("who holds this node's GPUs: %s", found.fault)
        self._held = found
        return found

    def _without(self, fault: str) -> Holders:
        """What was last heard while it is fresh enough; else that nobody knows."""
        age = self._clock.monotonic() - self._heard_monotonic
        if self._held.known and age <= self._config.keep_seconds:
            return msgspec.structs.replace(self._held, fault=fault)
        return Holders(fault=fault)

    async def _ask(self) -> Holders:
        socket = self._config.socket
        await asyncio.to_thread(_require_socket, socket)
        names = DeviceNames(self._devices())
        async with grpc.aio.insecure_channel(  # a file on this node, not a network
            f"unix:{socket}",
            options=(
                ("grpc.max_receive_message_length", MOST_BYTES),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.enable_retries", 0),
            ),
        ) as channel:
            stub: Any = podresources_pb2_grpc.PodResourcesListerStub(channel)
            try:
                listed = await stub.List(pb.ListPodResourcesRequest(), timeout=self._config.deadline_seconds)
            except grpc.aio.AioRpcError as error:
                raise _Unanswered(_sentence(socket, error)) from None
            if listed is None:  # what gRPC gives for bytes that are no message
                raise _Unanswered(f"The kubelet's answer at {socket} cannot be read.")
            offered = await self._offered(stub, names)
        rows, more = holders_of(listed, names)
        fault = f"{more} more holders than can be told are left out." if more else ""
        return Holders(rows=rows, known=True, fault=fault, offered=offered)

    async def _offered(self, stub: Any, names: DeviceNames) -> tuple[int, ...] | None:
        """What the kubelet could give out; an older one does not say."""
        try:
            answer = await stub.GetAllocatableResources(
                pb.AllocatableResourcesRequest(), timeout=self._config.deadline_seconds
            )
        except grpc.aio.AioRpcError:
            return None
        return None if answer is None else offered_of(answer, names)


class _Unanswered(Exception):
    """The kubelet did not answer; the text is a sentence."""


def _require_socket(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _Unanswered(
            f"The kubelet's socket {path} cannot be used ({error.strerror or error}): mount the folder it is in from "
            "the node."
        ) from None
    if not stat.S_ISSOCK(mode):
        raise _Unanswered(f"{path} is no socket: mount the kubelet's folder pod-resources, not a file of it.")


def _sentence(socket: Path, error: grpc.aio.AioRpcError) -> str:
    code = error.code()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return f"The kubelet's answer at {socket} is refused: {error.details() or 'too large, or asked too often'}."
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"What listens at {socket} does not speak the pod-resources API v1: is it a kubelet of 1.20 or later?"
    return f"The kubelet at {socket} does not answer ({code.name}: {error.details() or 'no details'})."
