"""Waiting for an instance: a bounded queue per service, and a paced way out of it.

A service at zero must not lose its first requests, and its first instance must not be flooded by all of them at
once: what is held leaves in bursts that double every pacing window (research: cold-start §1.3, item 11).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain

import msgspec

from gateway.requests import Ticket


class HoldConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How much one service may hold besides the count and deadline of its route, and how fast it lets go.

    `first_burst` requests per ready instance leave at once; every `pace_seconds` the burst grows by
    `pace_growth`. `bytes_limit` bounds the bodies held; a body of unknown size counts `bytes_per_token` a token.
    `retry_after_floor_seconds` is the least that a refused client is asked to wait.
    """

    bytes_limit: int = 256 * 1024 * 1024
    bytes_per_token: int = 6
    first_burst: int = 16
    pace_seconds: float = 0.25
    pace_growth: float = 2.0
    retry_after_floor_seconds: float = 1.0


class HoldQueue:
    """Held tickets of one service in the order in which they leave: replays first, then first-comers.

    Both parts are in order of the time their wait began, so the oldest of each is at its front. Leaving
    from the middle (a client that goes away) takes constant time and leaves nothing behind.
    """

    __slots__ = ("_bytes_per_token", "_first", "_replays", "bytes")

    def __init__(self, bytes_per_token: int) -> None:
        self._replays: OrderedDict[int, Ticket] = OrderedDict()
        self._first: OrderedDict[int, Ticket] = OrderedDict()
        self._bytes_per_token = bytes_per_token
        self.bytes = 0

    def __len__(self) -> int:
        """Number of held tickets."""
        return len(self._replays) + len(self._first)

    def __iter__(self) -> Iterator[Ticket]:
        """All held tickets, in the order in which they would leave."""
        return chain(self._replays.values(), self._first.values())

    def __contains__(self, ticket: Ticket) -> bool:
        """Whether it waits here. Its phase does not say: one whose service left the routes was held, and is nowhere."""
        return ticket.request_id in self._replays or ticket.request_id in self._first

    @property
    def first_comers(self) -> int:
        """Held tickets that never had an owner: only these count against the cap."""
        return len(self._first)

    def size(self, ticket: Ticket) -> int:
        """Bytes that the ticket counts against the byte cap."""
        return ticket.arrival.body_bytes or ticket.arrival.prompt_tokens * self._bytes_per_token

    def push(self, ticket: Ticket) -> None:
        """Hold a ticket whose `held_since_seconds` is not before that of those held."""
        queue = self._replays if ticket.epoch else self._first
        queue[ticket.request_id] = ticket
        self.bytes += self.size(ticket)

    def remove(self, ticket: Ticket) -> None:
        """Take one ticket out, wherever it stands."""
        queue = self._replays if ticket.epoch else self._first
        del queue[ticket.request_id]
        self.bytes -= self.size(ticket)

    def head(self) -> Ticket | None:
        """The ticket that leaves next."""
        return next(iter(self), None)

    def oldest_since_seconds(self) -> float | None:
        """When the longest wait began, None without one."""
        fronts = [next(iter(queue.values())) for queue in (self._replays, self._first) if queue]
        return min((ticket.held_since_seconds for ticket in fronts), default=None)

    def overdue(self, now_seconds: float, deadline_seconds: float) -> list[Ticket]:
        """Tickets that have waited for `deadline_seconds`, replays first."""
        found: list[Ticket] = []
        for queue in (self._replays, self._first):
            for ticket in queue.values():
                if ticket.held_since_seconds + deadline_seconds > now_seconds:
                    break
                found.append(ticket)
        return found


class Pacer:
    """How many held requests may leave now: bursts per ready instance that grow window by window."""

    __slots__ = ("_burst", "_config", "_left", "next_seconds")

    def __init__(self, config: HoldConfig) -> None:
        self._config = config
        self._burst = 0.0
        self._left = 0
        self.next_seconds = 0.0

    @property
    def open(self) -> bool:
        """Whether a release is under way."""
        return self._burst > 0

    def close(self) -> None:
        """The queue is empty, or nobody is ready: the next release begins with the first burst again."""
        self._burst = 0.0
        self._left = 0

    def allowance(self, now_seconds: float, ready_instances: int) -> int:
        """How many may leave at `now_seconds`; `took` tells how many did. `next_seconds` is the next look."""
        if not self.open:
            self._burst = float(self._config.first_burst)
        elif now_seconds >= self.next_seconds:
            self._burst = min(1e6, self._burst * self._config.pace_growth)
        else:
            return self._left
        self._left = max(1, int(self._burst)) * ready_instances
        self.next_seconds = now_seconds + self._config.pace_seconds
        return self._left

    def took(self, count: int) -> None:
        """Charge `count` releases to the present burst."""
        self._left = max(0, self._left - count)
