"""An elector in real time: pumped by a task of its own, so that no long decision keeps the Lease from being renewed.

While another leads, a watch on the one Lease says at once when it changes; the read that follows decides. The watch
only saves time: without it the Lease is read at every retry.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec

from controller.leadership.elector import Elector
from controller.leadership.lease import LEASE_NAME
from controller.resources.base import ObjectMeta
from controller.resources.core import LEASE
from controller.store.cache import Reflector
from controller.store.interface import Store
from runtime.clock import Clock

log = logging.getLogger("plimsoll.leadership")

PUMP_SECONDS = 0.05
"""How often it is asked whether something is due. Nothing is sent when nothing is."""


class _Seen(msgspec.Struct, frozen=True):
    metadata: ObjectMeta


class Campaign:
    """Keeps an elector going from `start` until it is over, or `stop`.

    `beat` is called after each round, for a health check: a store that does not answer is no reason to stop beating,
    an elector that hangs is.
    """

    def __init__(
        self,
        elector: Elector,
        store: Store,
        clock: Clock,
        *,
        namespace: str,
        seed: int,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is sent before `start`."""
        self.elector = elector
        self.beat = beat
        self.over = asyncio.Event()
        """Set when the elector led and does no longer."""
        self._follower = Reflector(
            store,
            LEASE,
            _Seen,
            clock,
            seed=seed,
            namespace=namespace,
            field_selector=f"metadata.name={LEASE_NAME}",
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; once is enough."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the task; the Lease stays as it is (see `Elector.release`)."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._follower.close()

    async def _run(self) -> None:
        try:
            while not self.elector.over:
                await self._round()
                self.beat()
                await asyncio.sleep(PUMP_SECONDS)
        finally:
            self.elector.gate.shut()  # nobody renews any more, whatever the reason
            self.over.set()

    async def _round(self) -> None:
        await self.elector.pump()
        if self.elector.leads:
            self._follower.close()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.elector.settings.request_seconds):
                if await self._follower.pump():
                    self.elector.hurry()
        self.elector.watched = self._follower.follows
