"""Waiting for agents: the barrier of accelerated time, and tests. All limits are wall time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable


class TickBarrier:
    """Knows each node's newest tick, and wakes who waits for a tick of several nodes."""

    def __init__(self) -> None:
        self._ticks: dict[str, int] = {}
        self._awaited: tuple[int, set[str], asyncio.Event] | None = None

    def last(self, node: str) -> int | None:
        """Tick of the node's newest report; None before the first."""
        return self._ticks.get(node)

    def reported(self, node: str, tick: int) -> None:
        """Takes note of a report."""
        self._ticks[node] = tick
        if self._awaited is not None and tick >= self._awaited[0]:
            self._awaited[1].discard(node)
            if not self._awaited[1]:
                self._awaited[2].set()

    async def wait(self, tick: int, nodes: Iterable[str], timeout_seconds: float) -> frozenset[str]:
        """Returns the nodes that have not reported for `tick` or later in time. One caller at a time."""
        missing = {node for node in nodes if self._ticks.get(node, -1) < tick}
        if missing:
            done = asyncio.Event()
            self._awaited = (tick, missing, done)
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_seconds):
                        await done.wait()
            finally:
                self._awaited = None
        return frozenset(missing)


async def until_empty(
    missing: Callable[[], frozenset[str]], changed: asyncio.Event, timeout_seconds: float
) -> frozenset[str]:
    """Asks `missing` again at each change until it is empty or the time is over; returns its last answer."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_seconds):
            while missing():
                changed.clear()
                await changed.wait()
    return missing()
