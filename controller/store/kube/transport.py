"""Requests to the API server as bytes in and bytes out: each with a deadline, within the client's budget.

Time here is the machine's: deadlines, budgets and retries concern a real server, also while the operator above lives
on a virtual clock.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp
import msgspec
from kubernetes.aio.client.exceptions import ApiException

from controller.store import permits
from controller.store.backoff import Backoff
from controller.store.errors import StoreError, TooManyRequests, Unavailable
from controller.store.interface import JsonObject
from controller.store.kube.access import Access
from controller.store.kube.answers import error_of, unanswered
from controller.store.kube.budget import Budget
from controller.store.kube.paths import query
from runtime.clock import Clock

DEADLINE_SECONDS = 10.0
LIST_SECONDS = 30.0
"""For one page: 500 objects from a server under load."""

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 70.0
"""A watch is sent a bookmark each minute: a connection silent for longer is half open."""

TRIES = 3
FIRST_RETRY_SECONDS = 0.05
LONGEST_RETRY_SECONDS = 0.5
"""Retries bridge a connection that broke, no outage: that is for the callers' own back-off."""

NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError)

Parameters = Mapping[str, str | int | bool | None]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One request; `doing` says it in words, for errors."""

    method: str
    path: str
    parameters: Parameters
    doing: str
    body: JsonObject | None = None
    content_type: str = "application/json"


class Transport:
    """One client's way to one API server. Belongs to the event loop it is first used in."""

    def __init__(
        self,
        access: Access,
        clock: Clock,
        rng: random.Random,
        *,
        budget: Budget | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> None:
        self.access = access
        self.sent = 0
        """Requests sent, watches and retries included."""
        self._clock = clock
        self._random = rng
        self._budget = budget or Budget(clock)
        self._deadline = deadline_seconds
        self._silence = silence_seconds

    async def read(self, path: str, parameters: Parameters, doing: str, *, page: bool = False) -> bytes:
        """GET. A lost connection is tried again within the deadline, except for pages: who lists has a back-off.

        Raises: whatever the server answers, as the store's error; `Unavailable` without an answer.
        """
        asked = Asked(method="GET", path=path, parameters=parameters, doing=doing)
        if page:
            return await self._within(max(self._deadline, LIST_SECONDS), asked, tries=1)
        return await self._within(self._deadline, asked, tries=TRIES)

    async def write(self, asked: Asked) -> bytes:
        """POST, PUT, PATCH or DELETE. Tried again only when it surely was not sent (no connection).

        (aiohttp sends PUT and DELETE once more when the connection breaks: their second answer tells the outcome.)

        Raises: whatever the server answers, as the store's error; `Unavailable` when it is not known what happened.
        """
        return await self._within(self._deadline, asked, tries=TRIES)

    async def stream(self, path: str, parameters: Parameters, doing: str) -> aiohttp.ClientResponse:
        """Open a watch: no overall limit but a limit of silence. Outside the budget, which is for calls.

        Raises: as `read`.
        """
        asked = Asked(method="GET", path=path, parameters=parameters, doing=doing)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=self._silence)
        try:
            async with asyncio.timeout(self._deadline):
                response = await self._send(asked, timeout)
                if response.status == HTTPStatus.OK:
                    return response
                raise await self._refused(response, doing)
        except NO_ANSWER as error:
            raise unanswered(error, self.access.endpoint, doing) from error

    async def close(self) -> None:
        """End all connections; harmless twice."""
        await self.access.close()

    # -------------------------------------------------------------------------------------------- helpers

    async def _within(self, deadline_seconds: float, asked: Asked, *, tries: int) -> bytes:
        try:
            async with asyncio.timeout(deadline_seconds):
                return await self._patiently(asked, tries)
        except TimeoutError as error:
            raise unanswered(error, self.access.endpoint, asked.doing) from error

    async def _patiently(self, asked: Asked, tries: int) -> bytes:
        backoff = Backoff(
            self._clock,
            self._random,
            first_seconds=FIRST_RETRY_SECONDS,
            longest_seconds=LONGEST_RETRY_SECONDS,
        )
        for left in reversed(range(tries)):
            await self._spend(asked.doing)
            try:
                return await self._once(asked)
            except NO_ANSWER as error:
                again = asked.method == "GET" or isinstance(error, aiohttp.ClientConnectorError)
                if not left or not again or isinstance(error, TimeoutError):
                    raise unanswered(error, self.access.endpoint, asked.doing) from error
            await asyncio.sleep(backoff.failed())
        raise AssertionError("the last try returns or raises")

    async def _spend(self, doing: str) -> None:
        """Wait for the budget's leave."""
        wait = self._budget.take()
        if wait > self._deadline:
            self._budget.give_back()
            raise TooManyRequests(f"{doing}: this client has spent what it may ask of the API server", wait)
        if wait:
            await asyncio.sleep(wait)

    async def _once(self, asked: Asked) -> bytes:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)
        response = await self._send(asked, timeout)
        if response.ok and response.status < HTTPStatus.MULTIPLE_CHOICES:
            async with response:
                return await response.read()
        raise await self._refused(response, asked.doing)

    async def _send(self, asked: Asked, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        url = f"{self.access.endpoint}{asked.path}"
        if parameters := query(asked.parameters):
            url = f"{url}?{parameters}"
        headers = await self.access.headers(asked.path, asked.method)
        headers["Content-Type"] = asked.content_type
        permits.ask()
        self.sent += 1
        try:
            return await self.access.send(asked.method, url, headers, asked.body, timeout)
        except RuntimeError as error:  # a session that was closed meanwhile
            raise Unavailable(f"the connection to {self.access.endpoint} was closed ({error})") from error

    async def _refused(self, response: aiohttp.ClientResponse, doing: str) -> StoreError:
        async with response:
            body = await response.read()
        answer = ApiException(
            status=response.status, reason=response.reason, body=body.decode("utf-8", "replace")
        )
        answer.headers = response.headers
        error = error_of(answer, doing)
        error.__cause__ = answer
        return error
