"""The engine adapter: the little that a host needs of whatever generates tokens.

A timing model satisfies it as it stands; a wrapper around a real engine's API does so with `advance_to` returning
what has happened by then. Times are UTC seconds, or any clock that gateway and engine share.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

FIRST_TOKEN = "first_token"  # noqa: S105 - a token of text, no secret
FINISHED = "finished"
FAILED = "failed"


class AdapterEvent(Protocol):
    """One thing that happened to a request. `kind`'s value is one of the three words above."""

    @property
    def at_seconds(self) -> float:
        """When."""
        ...

    @property
    def kind(self) -> Enum:
        """What."""
        ...

    @property
    def request_id(self) -> int:
        """To which request."""
        ...

    @property
    def tokens(self) -> int:
        """Output tokens generated so far."""
        ...


class AdapterRefusal(Protocol):
    """Why an engine did not take a request."""

    @property
    def message(self) -> str:
        """A sentence."""
        ...


class AdapterLoad(Protocol):
    """Occupancy at one instant; tokens of KV cache."""

    @property
    def running(self) -> int:
        """Requests that hold KV blocks."""
        ...

    @property
    def waiting(self) -> int:
        """Requests that hold none yet."""
        ...

    @property
    def kv_free_tokens(self) -> int:
        """Free capacity."""
        ...

    @property
    def kv_capacity_tokens(self) -> int:
        """Whole capacity."""
        ...


class EngineAdapter(Protocol):
    """One engine. Request ids are the host's own and never reused."""

    def submit(
        self,
        request_id: int,
        prompt_tokens: int,
        output_tokens: int,
        arrived_seconds: float,
        priority: int = 0,
    ) -> AdapterRefusal | None:
        """Hand in a request that joins the queue at `arrived_seconds`, or now where that is past."""
        ...

    def cancel(self, request_id: int) -> bool:
        """Drop a request; no event of it follows. False when it is not there."""
        ...

    def advance_to(self, until_seconds: float) -> Sequence[AdapterEvent]:
        """Everything that happened up to and including that time and was not told yet, in order of time."""
        ...

    def load(self) -> AdapterLoad:
        """Occupancy now."""
        ...
