"""A small client of the gateway: batches of requests in, results out, by windows or in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
import msgspec

from gateway.streams import discard, ending, refusal, told
from runtime.authority import Credentials, Identity, Role
from runtime.channels import EOF, REQUEST_PLANE, Limits, dial
from wire import gateway_pb2 as pb
from wire import gateway_pb2_grpc


class Request(msgspec.Struct, frozen=True, gc=False):
    """One request; `request_id` is unique within the client. Times are UTC seconds.

    `arrived_seconds` counts in windows only: in real time the gateway's clock tells. `deadline_seconds` 0: none.
    """

    request_id: int
    service: str
    prompt_tokens: int
    output_tokens: int
    arrived_seconds: float = 0.0
    traffic_class: str = ""
    deadline_seconds: float = 0.0
    priority: int = 0


class Result(msgspec.Struct, frozen=True, gc=False):
    """How a request ended. `outcome` is served, rejected or lost; `code` and `message` say why unless served."""

    request_id: int
    outcome: str
    code: str
    message: str
    instance: str
    first_token_seconds: float
    finished_seconds: float
    output_tokens: int
    retries: int
    retry_after_seconds: float


class ClientError(Exception):
    """The gateway cannot be reached, or the stream broke; the text says which and why."""


_OUTCOMES = {pb.OUTCOME_SERVED: "served", pb.OUTCOME_REJECTED: "rejected", pb.OUTCOME_LOST: "lost"}


class GatewayClient:
    """One stream. Made by `connect`; use it either by windows or in real time."""

    def __init__(self, channel: Any, call: Any) -> None:
        self._channel = channel
        self._call = call
        self._results: list[Result] = []
        self._answered = 0
        self._waiting: dict[int, asyncio.Future[Result]] = {}
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        self.broken: str | None = None
        self.outstanding = 0
        """Requests of this stream that had not ended by the newest message."""
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(
        cls, endpoint: str, gateway: str, credentials: Credentials, limits: Limits = REQUEST_PLANE
    ) -> GatewayClient:
        """Dial the gateway of that name and open a stream. Raises: ClientError."""
        channel: Any = dial(endpoint, credentials, Identity(Role.GATEWAY, gateway), limits)
        stub: Any = gateway_pb2_grpc.InferenceStub(channel)
        call: Any = stub.Generate()
        try:
            async with asyncio.timeout(limits.connect_seconds):
                problem = await refusal(call)
        except (TimeoutError, grpc.RpcError, asyncio.InvalidStateError) as error:
            problem = told(error)
        if problem:
            await discard(channel, call)
            raise ClientError(f"The gateway at {endpoint} cannot be reached ({problem}).")
        return cls(channel, call)

    async def send_window(
        self, tick: int, from_seconds: float, until_seconds: float, requests: Iterable[Request]
    ) -> None:
        """Send all requests that arrive in [from, until). Raises: ClientError when the stream is broken."""
        batch = pb.GenerateBatch(tick=tick, from_seconds=from_seconds, until_seconds=until_seconds)
        await self._send(batch, requests)

    async def answer(self, tick: int, timeout_seconds: float = 30.0) -> list[Result]:
        """Wait (wall time) for the answer to the window `tick`; returns all results since the last call.

        Raises: ClientError when the stream broke, TimeoutError.
        """
        async with asyncio.timeout(timeout_seconds):
            while self._answered < tick:
                if self.broken is not None:
                    raise ClientError(self.broken)
                self._news.clear()
                await self._news.wait()
        results, self._results = self._results, []
        return results

    async def generate(self, requests: Iterable[Request], timeout_seconds: float = 60.0) -> list[Result]:
        """Real time: send requests and wait until each has ended; results in the order of the requests.

        Raises: ClientError when the stream broke, TimeoutError; ValueError for an id that is open already.
        """
        asked = list(requests)
        ids = [request.request_id for request in asked]
        if len(set(ids)) < len(ids) or self._waiting.keys() & set(ids):
            raise ValueError("Each request of a stream needs an id of its own.")
        futures = [asyncio.get_running_loop().create_future() for _ in ids]
        self._waiting.update(zip(ids, futures, strict=True))
        try:
            await self._send(pb.GenerateBatch(), asked)
            async with asyncio.timeout(timeout_seconds):
                return list(await asyncio.gather(*futures))
        finally:
            for request_id in ids:
                self._waiting.pop(request_id, None)

    async def close(self) -> None:
        """Let go of the stream; the gateway withdraws what is still open."""
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await discard(self._channel, self._call)

    async def _send(self, batch: pb.GenerateBatch, requests: Iterable[Request]) -> None:
        for each in requests:
            batch.requests.add(
                request_id=each.request_id,
                service=each.service,
                traffic_class=each.traffic_class,
                prompt_tokens=each.prompt_tokens,
                output_tokens=each.output_tokens,
                arrived_seconds=each.arrived_seconds,
                deadline_seconds=each.deadline_seconds,
                priority=each.priority,
            )
        try:
            async with self._writing:  # gRPC breaks a stream that two tasks write to at once
                await self._call.write(batch)
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            raise ClientError(
                f"The stream to the gateway is broken: {self.broken or told(error)}."
            ) from error

    async def _read(self) -> None:
        try:
            while (message := await self._call.read()) is not EOF:
                self._take_in(message)
            self._break(f"The gateway ended the stream ({await ending(self._call)}).")
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            self._break(told(error))

    def _take_in(self, message: pb.GenerateResult) -> None:
        self.outstanding = message.outstanding
        for each in message.results:
            result = _result(each)
            future = self._waiting.pop(each.request_id, None)
            if future is None:
                self._results.append(result)
            elif not future.done():
                future.set_result(result)
        self._answered = max(self._answered, message.tick)
        self._news.set()

    def _break(self, why: str) -> None:
        self.broken = why
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ClientError(why))
        self._news.set()


def _result(each: pb.RequestResult) -> Result:
    return Result(
        request_id=each.request_id,
        outcome=_OUTCOMES.get(each.outcome, "lost"),
        code=each.code,
        message=each.message,
        instance=each.instance,
        first_token_seconds=each.first_token_seconds,
        finished_seconds=each.finished_seconds,
        output_tokens=each.output_tokens,
        retries=each.retries,
        retry_after_seconds=each.retry_after_seconds,
    )
