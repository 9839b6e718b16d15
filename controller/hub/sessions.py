"""One node's stream, and the numbers that outlive it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field, fields
from typing import Any

from controller.hub.decode import Decoder
from wire import agent_pb2 as pb

OUTBOX_COMMANDS = 256
"""Commands waiting for one node; a node that takes none for so long gets no more until it does."""
BATCH_COMMANDS = 64


class HubError(Exception):
    """A command cannot be sent; the text says which node and why."""


class NotConnected(HubError):
    """The node has no stream, or its stream is not this leader's."""


class OutboxFull(HubError):
    """The node takes no commands."""


@dataclass(slots=True)
class HubStats:
    """Counts since the hub started; the source of its metrics."""

    opened: int = 0
    replaced: int = 0
    left: int = 0
    lost: int = 0
    refused_name: int = 0
    refused_protocol: int = 0
    oversized: int = 0
    reports: int = 0
    heartbeats: int = 0
    repeated_reports: int = 0
    rejected_values: int = 0
    commands_queued: int = 0
    commands_sent: int = 0
    commands_dropped: int = 0
    commands_refused: int = 0
    messages_sent: int = 0
    acks: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, int]:
        """Flat counts; answers as `acks_<code>`."""
        flat = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "acks"}
        return flat | {f"acks_{code}": count for code, count in sorted(self.acks.items())}


class Session:
    """A stream that has said hello. Its writer sends what is queued, in batches, in order."""

    def __init__(self, node: str, hello: pb.Hello, context: Any, task: asyncio.Task[Any] | None) -> None:
        self.node = node
        self.boot_id = hello.boot_id
        self.driver = hello.driver
        self.version = hello.version
        self.highest_epoch = hello.highest_epoch
        self.decoder = Decoder(node, hello.boot_id, hello.version)
        self.last_sequence = 0
        self.welcomed_epoch = 0
        self.farewell: str | None = None
        self.replaced = False
        self._context = context
        self._task = task
        self._welcome: pb.Welcome | None = None
        self._outbox: deque[pb.Command] = deque()
        self._wake = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Commands queued and not yet written."""
        return len(self._outbox)

    def welcome(self, welcome: pb.Welcome) -> None:
        """Queues a welcome; it goes before any command."""
        self._welcome = welcome
        self.welcomed_epoch = welcome.epoch
        self._wake.set()

    def queue(self, command: pb.Command) -> None:
        """Queues a command. Raises: OutboxFull."""
        if len(self._outbox) >= OUTBOX_COMMANDS:
            raise OutboxFull(
                f"Node {self.node!r} has {len(self._outbox)} commands waiting and takes none; it gets no more."
            )
        self._outbox.append(command)
        self._wake.set()

    def replace(self) -> None:
        """Ends this stream in favour of a newer one of the same node."""
        self.replaced = True
        if self._task is not None:
            self._task.cancel()

    async def write(self, stats: HubStats) -> None:
        """Writes what is queued until cancelled, or the stream breaks. What was taken and not written is dropped."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._welcome is not None:
                welcome, self._welcome = self._welcome, None
                await self._context.write(pb.HubMessage(welcome=welcome))
            while self._outbox:
                count = min(len(self._outbox), BATCH_COMMANDS)
                batch = [self._outbox.popleft() for _ in range(count)]
                try:
                    await self._context.write(pb.HubMessage(commands=pb.Commands(commands=batch)))
                except BaseException:
                    stats.commands_dropped += count
                    raise
                stats.commands_sent += count
                stats.messages_sent += 1
