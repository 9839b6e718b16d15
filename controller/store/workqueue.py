"""A queue of keys that somebody works off: each key once, never twice at a time, and failures ever more rarely.

The semantics of client-go's rate-limiting queue (research: ecosystem §2.4), pumped by its owner: nothing here waits.
A key added while it is queued stays once; one added while it is worked on is queued again when that is over. A failed
key comes back after 5 ms, doubled at each failure up to 1,000 s, and failures of all keys together pass a bucket of
10 a second with bursts of 100, so that a store that refuses everything is not asked thousands of times a second.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

from runtime.clock import Clock

SHORTEST_SECONDS = 0.005
LONGEST_SECONDS = 1_000.0
RETRIES_PER_SECOND = 10.0
RETRY_BURST = 100

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Keys to be worked on, in the order they were added. Bounded by the number of distinct keys."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queued: dict[K, None] = {}
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._later: list[tuple[float, int, K]] = []
        self._waiting: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._order = 0
        self._bucket_until = float("-inf")

    def __len__(self) -> int:
        """Keys that are queued, worked on or waiting for their next try."""
        return len(self._queued.keys() | self._waiting.keys() | self._working)

    def add(self, key: K) -> None:
        """There is work for this key. Nothing changes while it is queued or waits after a failure."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._queued.setdefault(key)

    def take(self, most: int) -> list[K]:
        """At most so many keys whose turn it is; each is being worked on until `done` or `failed`."""
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._waiting.get(key) == due:
                del self._waiting[key]
                self._queued.setdefault(key)
        taken = list(self._queued)[:most]
        for key in taken:
            del self._queued[key]
            self._working.add(key)
        return taken

    def done(self, key: K) -> None:
        """Work on it succeeded: its failures are forgotten."""
        self._failures.pop(key, None)
        self._leave(key)

    def failed(self, key: K, at_least_seconds: float = 0.0) -> float:
        """Work on it failed: it comes back by itself after the returned pause, no sooner than the store asked for."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        own = min(LONGEST_SECONDS, SHORTEST_SECONDS * 2.0 ** min(count - 1, 40))
        now = self._clock.monotonic()
        # A bucket that was not drawn from for long holds its burst, and no more.
        self._bucket_until = (
            max(self._bucket_until, now - RETRY_BURST / RETRIES_PER_SECOND) + 1 / RETRIES_PER_SECOND
        )
        due = now + max(own, at_least_seconds, self._bucket_until - now)
        self._working.discard(key)
        self._again.discard(key)
        self._order += 1
        self._waiting[key] = due
        heapq.heappush(self._later, (due, self._order, key))
        return due - now

    def forget(self, key: K) -> None:
        """The key is of no interest any more, whatever state it is in."""
        self._queued.pop(key, None)
        self._waiting.pop(key, None)
        self._working.discard(key)
        self._again.discard(key)
        self._failures.pop(key, None)

    def _leave(self, key: K) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self._queued.setdefault(key)
