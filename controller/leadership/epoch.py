"""Which epoch a new leadership has: above everything that anybody ever obeyed or wrote.

Epoch = max(kept on the Lease, obeyed by agents and gateways, in the ledger) + 1 (DESIGN §3.3). Any one of the three
is enough, so that neither a deleted Lease nor a lost ledger lets a leader begin at an epoch that agents refuse.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("plimsoll.leadership")

AtLeast = Callable[[], Awaitable[int]]
"""The highest epoch known from elsewhere than the Lease."""

RECALL_SECONDS = 2.0
"""How long the ledger may take to say its highest epoch: leadership must not wait for a database."""


def above(*epochs: int) -> int:
    """The epoch of a leadership that comes after all of these."""
    return max(epochs, default=0) + 1


def from_ledger(recall: Callable[[], int], obeyed: Callable[[], int], *, threaded: bool) -> AtLeast:
    """The highest of what the ledger holds and what agents obey.

    `recall` reads the ledger and may block: in real time (`threaded`) it does so in a thread and is waited for at
    most two seconds; without its answer the other sources stand, and agents that know better say so.
    """

    async def at_least() -> int:
        if not threaded:
            return max(recall(), obeyed())
        try:
            async with asyncio.timeout(RECALL_SECONDS):
                kept = await asyncio.to_thread(recall)
        except TimeoutError:
            log.warning("the ledger did not say its highest epoch in %g s; going on without", RECALL_SECONDS)
            kept = 0
        return max(kept, obeyed())

    return at_least
