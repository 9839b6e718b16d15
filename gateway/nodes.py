"""Streams from the gateway to the nodes: one for each node that the routes name."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import grpc.aio

from gateway.codec import engine_report
from gateway.messages import EngineReport
from gateway.streams import discard, ending, refusal, told
from runtime.authority import Credentials, Identity, Role
from runtime.channels import EOF, REQUEST_PLANE, Backoff, Limits, dial
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
        self.heard_seconds: float | None = None
        self._fresh = True
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
                problem = await refusal(call)
                if not problem:
                    return cls(node, endpoint, channel, call, changed)
        except (TimeoutError, grpc.RpcError, asyncio.InvalidStateError) as error:
            problem = told(error)
        except BaseException:
            await discard(channel, call)
            raise
        await discard(channel, call)
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

    def silent_for(self, now_seconds: float) -> float:
        """Seconds (of any steady clock) since a look at it found news; its first look counts as news."""
        if self._fresh or self.heard_seconds is None:
            self._fresh, self.heard_seconds = False, now_seconds
        return now_seconds - self.heard_seconds

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
        await discard(self._channel, self._call)

    async def _read(self) -> None:
        with self._breaks():
            while True:
                while len(self.reports) >= INBOX_REPORTS:
                    self._room.clear()
                    await self._room.wait()
                message = await self._call.read()
                if message is EOF:
                    self.fail(await ending(self._call))
                    return
                self.reports.append(engine_report(message, self.node))
                self._fresh = True
                self._changed()

    async def _write(self) -> None:
        with self._breaks():
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._outbox:
                    await self._call.write(self._outbox.popleft())

    @contextlib.contextmanager
    def _breaks(self) -> Any:
        try:
            yield
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            self.fail(told(error))


class NodeLinks:
    """The streams to all nodes that the routes name. `changed` is called whenever any of them has news."""

    def __init__(self, credentials: Callable[[], Credentials], changed: Callable[[], None]) -> None:
        self._credentials = credentials
        self._changed = changed
        self._news = asyncio.Event()
        self._keepers: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self.up: dict[str, NodeLink] = {}
        self.problems: dict[str, str] = {}

    def _told(self) -> None:
        self._news.set()
        self._changed()

    async def settle(self, wanted: Mapping[str, str]) -> tuple[list[str], list[str]]:
        """Make the streams those that are wanted (node → endpoint), dialling each missing one once.

        Returns (nodes that came up, nodes that were let go), sorted. A node that cannot be reached is in
        `problems`, and is dialled again by the next call.
        """
        left = [node for node, link in sorted(self.up.items()) if wanted.get(node) != link.endpoint]
        for node in left:
            await self.drop(node)
        missing = sorted(set(wanted) - set(self.up))
        dialled = await asyncio.gather(*(self._dial(node, wanted[node]) for node in missing))
        came = [node for node, link in zip(missing, dialled, strict=True) if link is not None]
        self.up.update({link.node: link for link in dialled if link is not None})
        self.problems = {node: why for node, why in self.problems.items() if node in wanted}
        return came, left

    async def collect(self, tick: int, timeout_seconds: float) -> tuple[list[EngineReport], list[str]]:
        """Wait (wall time) until each node has answered for `tick` or its stream broke without an answer.

        Returns (all reports, nodes that did not answer). A stream that breaks after its answer counts as alive
        until the next call, so that it does not matter how soon the break is seen.
        """

        def silent(link: NodeLink) -> bool:
            return not link.reports or link.reports[-1].tick < tick

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while any(link.broken is None and silent(link) for link in self.up.values()):
                    self._news.clear()
                    await self._news.wait()
        gone = [node for node, link in sorted(self.up.items()) if silent(link)]
        reports = [report for _, link in sorted(self.up.items()) for report in link.take()]
        return reports, gone

    async def drop(self, node: str) -> None:
        """Let one stream go."""
        link = self.up.pop(node)
        if link.broken is not None:
            logger.warning("stream to a node lost", extra={"facts": {"node": node, "why": link.broken}})
        await link.close()

    async def close(self) -> None:
        """Let all go."""
        for _, keeper in self._keepers.values():
            keeper.cancel()
        await asyncio.gather(*(task for _, task in self._keepers.values()), return_exceptions=True)
        self._keepers.clear()
        for node in sorted(self.up):
            await self.drop(node)

    def keep(self, wanted: Mapping[str, str], backoff: Callable[[], Backoff]) -> None:
        """Real time: see to it that there is a task for each wanted node that dials, and dials again."""
        for node, (endpoint, task) in list(self._keepers.items()):
            if wanted.get(node) != endpoint:
                task.cancel()
                del self._keepers[node]
                if node in self.up:
                    self.up[node].fail("not in the routes any more")
        for node in sorted(set(wanted) - set(self._keepers)):
            task = asyncio.create_task(self._keep(node, wanted[node], backoff()))
            self._keepers[node] = wanted[node], task

    def fail_silent(self, now_seconds: float, limit_seconds: float) -> None:
        """Real time: give up streams that have said nothing for so long, heartbeats included."""
        for link in self.up.values():
            if link.silent_for(now_seconds) > limit_seconds:
                link.fail(f"the node has said nothing for {limit_seconds:g} s")

    async def _keep(self, node: str, endpoint: str, backoff: Backoff) -> None:
        while True:
            if node not in self.up:
                link = await self._dial(node, endpoint)
                if link is not None:
                    backoff.reset()
                    self.up[node] = link
                    self._told()
            await asyncio.sleep(backoff.next_seconds())

    async def _dial(self, node: str, endpoint: str) -> NodeLink | None:
        link = await NodeLink.connect(node, endpoint, self._credentials(), self._told)
        if isinstance(link, NodeLink):
            self.problems.pop(node, None)
            return link
        if node not in self.problems:
            logger.warning("a node cannot be reached", extra={"facts": {"node": node, "why": link}})
        self.problems[node] = link
        return None
