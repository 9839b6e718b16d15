"""The gateway's stream to the operator: reports up, route tables down, dialled again whenever it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from gateway.codec import route_table
from gateway.messages import RouteTable
from gateway.streams import discard, ending, refusal, told
from runtime.authority import Credentials, Identity
from runtime.channels import EOF, NODE_PLANE, Backoff, Limits, dial
from wire import gateway_pb2 as pb
from wire import gateway_pb2_grpc

logger = logging.getLogger(__name__)

OUTBOX_REPORTS = 64
"""Reports kept for an operator that does not take them; each is whole in itself, so the oldest go first."""


class RouteLink:
    """Runs until cancelled. Losing the operator changes nothing: the routes in force stay in force.

    `changed` is called when a table came in.
    """

    def __init__(
        self,
        gateway: str,
        endpoint: str,
        operator: Identity,
        credentials: Callable[[], Credentials],
        backoff: Backoff,
        changed: Callable[[], None],
        limits: Limits = NODE_PLANE,
    ) -> None:
        self._gateway = gateway
        self._endpoint = endpoint
        self._operator = operator
        self._credentials = credentials
        self._backoff = backoff
        self._changed = changed
        self._limits = limits
        self.newest: RouteTable | None = None
        """The newest table that nobody took yet."""
        self._outbox: deque[pb.GatewayReport] = deque(maxlen=OUTBOX_REPORTS)
        self._wake = asyncio.Event()
        self.attached = False
        self.attachments = 0

    def take(self) -> RouteTable | None:
        """The newest table since the last call, None without one. Those in between are never needed."""
        newest, self.newest = self.newest, None
        return newest

    def send(self, report: pb.GatewayReport) -> None:
        """Queue a report."""
        self._outbox.append(report)
        self._wake.set()

    async def run(self) -> None:
        """Dial, attach, and again when the stream breaks, with jitter."""
        while True:
            why = await self._attach()
            if self.attached:
                self._backoff.reset()
            self.attached = False
            facts = {"operator": self._endpoint, "why": why}
            logger.warning("no stream to the operator; the last routes stay in force", extra={"facts": facts})
            await asyncio.sleep(self._backoff.next_seconds())

    async def _attach(self) -> str:
        """One stream from its begin to its end; returns why it ended."""
        channel: Any = dial(self._endpoint, self._credentials(), self._operator, self._limits)
        stub: Any = gateway_pb2_grpc.RoutesStub(channel)
        call: Any = stub.Attach()
        writing: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                problem = await refusal(call)
            if problem:
                return problem
            await call.write(pb.GatewayReport(gateway=self._gateway))
            self.attached = True
            self.attachments += 1
            writing = asyncio.create_task(self._write(call))
            while (message := await call.read()) is not EOF:
                self._take_in(message)
            return await ending(call)
        except (TimeoutError, grpc.RpcError, asyncio.InvalidStateError) as error:
            return told(error)
        finally:
            if writing is not None:
                writing.cancel()
            await discard(channel, call)

    def _take_in(self, message: pb.RouteTable) -> None:
        table = route_table(message)
        newest = self.newest
        if newest is None or (table.epoch, table.version) > (newest.epoch, newest.version):
            self.newest = table
        self._changed()

    async def _write(self, call: Any) -> None:
        # A stream that breaks ends the reader, which says why.
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._outbox:
                    await call.write(self._outbox.popleft())
