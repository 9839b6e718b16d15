"""Clients' requests in, results out: the service `plimsoll.v1.Inference`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from gateway.codec import arrival, result
from gateway.messages import Arrival, Ending
from gateway.streams import ACCEPTED
from runtime.authority import Role
from runtime.channels import EOF
from runtime.clock import Clock
from wire import gateway_pb2 as pb
from wire import gateway_pb2_grpc

logger = logging.getLogger(__name__)

SERVICE = "plimsoll.v1.Inference"
ROLES = frozenset({Role.CLIENT})
CLIENTS = 256
"""Streams at once; one more is refused."""
WINDOWS_AHEAD = 64
"""Windows that a client may send before they are decided."""
UNDECIDED_REQUESTS = 20_000
"""Requests in real time that the core has not seen yet; beyond it reading stops, and clients are slowed down."""
OUTBOX_MESSAGES = 4_096
"""Results waiting for one client; one that takes none for so long is cut off."""


class Client:
    """One client's stream. `open` counts its requests that have not ended."""

    __slots__ = ("batches", "cut_off", "ended", "identity", "number", "open", "outbox", "task", "undecided", "until_seconds",
                 "wake")  # fmt: skip

    def __init__(self, number: int, identity: str, task: asyncio.Task[Any] | None) -> None:
        self.number = number
        self.identity = identity
        self.task = task
        self.batches: deque[pb.GenerateBatch] = deque()
        self.undecided: list[Arrival] = []
        self.until_seconds: float | None = None
        self.open = 0
        self.ended = False
        self.cut_off = ""
        self.outbox: deque[pb.GenerateResult] = deque()
        self.wake = asyncio.Event()

    @property
    def done(self) -> bool:
        """Whether it has said all, and been told all."""
        return self.ended and not (self.open or self.outbox or self.batches or self.undecided)


class InferenceService(gateway_pb2_grpc.InferenceServicer):
    """Keeps what clients sent until the core decides it. All methods belong to one event loop.

    A client that sends windows (`until_seconds` > 0) lives in accelerated time; its requests arrive at their own
    times. Any other's arrive when they are read.
    """

    def __init__(self, clock: Clock, changed: Callable[[], None]) -> None:
        self._clock = clock
        self._changed = changed
        self._clients: dict[int, Client] = {}
        self._gone: list[int] = []
        self._next = 1
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.cut_off = 0
        self.real_time = False
        """Whether time is the wall's: then nobody may send windows with times of its own."""

    @property
    def clients(self) -> int:
        """Streams there are now."""
        return len(self._clients)

    async def Generate(self, request_iterator: Any, context: Any) -> None:  # noqa: ARG002 - messages come by the context
        """One client's stream. After the client has said all, it stays until the last result is written."""
        if len(self._clients) >= CLIENTS:
            why = f"The gateway serves {CLIENTS} clients, its limit; use one stream for many requests."
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why)
        client = Client(self._next, str(context.peer()), asyncio.current_task())
        self._next += 1
        self._clients[client.number] = client
        self._told()
        writing = asyncio.create_task(self._write(client, context))
        try:
            await context.send_initial_metadata(ACCEPTED)
            await self._read(client, context)
            await writing
        except asyncio.CancelledError:
            if not client.cut_off:
                raise
            await context.abort(grpc.StatusCode.ABORTED, client.cut_off)
        finally:
            writing.cancel()
            del self._clients[client.number]
            if not client.done:
                self._gone.append(client.number)
            self._told()

    def _told(self) -> None:
        self._news.set()
        self._changed()

    async def _read(self, client: Client, context: Any) -> None:
        try:
            while (batch := await context.read()) is not EOF:
                await self._room.wait()
                self._take_in(client, batch)
        except DecodeError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"A batch cannot be parsed: {error}.")
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except OverflowError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        finally:
            client.ended = True
            client.wake.set()

    def _take_in(self, client: Client, batch: pb.GenerateBatch) -> None:
        if batch.until_seconds:
            if self.real_time:
                raise ValueError("This gateway runs in real time; leave until_seconds zero.")
            if len(client.batches) >= WINDOWS_AHEAD:
                raise OverflowError(
                    f"{WINDOWS_AHEAD} windows are waiting and none is decided; send no more ahead."
                )
            client.batches.append(batch)
            client.until_seconds = max(client.until_seconds or 0.0, batch.until_seconds)
        else:
            now = self._clock.now()
            client.undecided.extend(arrival(each, client.number, now) for each in batch.requests)
            if sum(len(each.undecided) for each in self._clients.values()) >= UNDECIDED_REQUESTS:
                self._room.clear()
        self._told()

    async def _write(self, client: Client, context: Any) -> None:
        while not client.done:
            await client.wake.wait()
            client.wake.clear()
            while client.outbox:
                await context.write(client.outbox.popleft())

    # ----------------------------------------------------------------------------------- for the gateway

    async def received(self, until_seconds: float, clients: int, timeout_seconds: float) -> bool:
        """Wait (wall time) until at least `clients` streams send windows, and each of them has sent the one that
        ends then, or has said all. False when that did not come about in time.
        """

        def there() -> bool:
            windowed = [each for each in self._clients.values() if each.until_seconds is not None]
            return len(windowed) >= clients and all(
                each.ended or (each.until_seconds or 0.0) >= until_seconds for each in windowed
            )

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while not there():
                    self._news.clear()
                    await self._news.wait()
        return there()

    def take(self, until_seconds: float) -> tuple[list[Arrival], dict[int, int]]:
        """Requests of windows that end by then, and all of real time; and by client the tick to answer for."""
        arrivals: list[Arrival] = []
        ticks: dict[int, int] = {}
        for number, client in sorted(self._clients.items()):
            before = len(arrivals)
            while client.batches and client.batches[0].until_seconds <= until_seconds:
                batch = client.batches.popleft()
                ticks[number] = batch.tick
                arrivals.extend(arrival(each, number, each.arrived_seconds) for each in batch.requests)
            arrivals.extend(client.undecided)
            client.undecided.clear()
            client.open += len(arrivals) - before
        self._room.set()
        return arrivals, ticks

    def take_gone(self) -> list[int]:
        """Clients that went away with requests open, since the last call."""
        gone, self._gone = sorted(self._gone), []
        return gone

    def deliver(self, endings: Iterable[Ending], ticks: dict[int, int]) -> None:
        """Queue results: one message for each client that has an ending or a tick to be answered for."""
        messages = {
            number: pb.GenerateResult(tick=tick) for number, tick in ticks.items() if number in self._clients
        }
        for ending in endings:
            client = self._clients.get(ending.client)
            if client is None:
                continue
            client.open -= 1
            message = messages.get(ending.client)
            if message is None:
                message = messages[ending.client] = pb.GenerateResult()
            message.results.append(result(ending))
        for number, message in messages.items():
            self._send(self._clients[number], message)
        for client in self._clients.values():
            if client.ended:
                client.wake.set()

    def _send(self, client: Client, message: pb.GenerateResult) -> None:
        if len(client.outbox) >= OUTBOX_MESSAGES:
            self.cut_off += 1
            facts = {"client": client.identity, "waiting": len(client.outbox)}
            logger.warning("a client takes no results and is cut off", extra={"facts": facts})
            client.cut_off = f"{len(client.outbox)} results are waiting and none is read."
            if client.task is not None:
                client.task.cancel()
            return
        message.outstanding = client.open
        client.outbox.append(message)
        client.wake.set()
