"""One leadership of an operator process: from standing by, over serving, to its end. Then there is another one.

Only the leader serves hub and routes: the door opens when the Lease was taken, and closes before it is given back.
What belongs to the process (store, ledger, certificates, health pages) outlives it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

import msgspec

from controller.config import OperatorConfig
from controller.hub.server import Hosted, HubServer
from controller.hub.service import Hub
from controller.leadership.mark import LeaderMark
from controller.ledger import Ledger
from controller.life import stand_by
from controller.metrics import Metrics
from controller.operator import Operator
from controller.routes import RoutesServicer
from controller.store.interface import Store
from runtime.clock import Clock
from runtime.tls import Source

log = logging.getLogger("plimsoll.operator")

DOOR_RETRY_SECONDS = 0.5
MARK_RETRY_SECONDS = 1.0


class Grounds(msgspec.Struct, frozen=True, kw_only=True):
    """What a process has for all its leaderships. `hosted` are further services behind the hub's door."""

    store: Store
    clock: Clock
    config: OperatorConfig
    ledger: Ledger
    metrics: Metrics
    certificate: Source
    host: str
    port: int
    hosted: tuple[Hosted, ...] = ()
    loop_beat: Callable[[], None]
    elector_beat: Callable[[], None]


class Seat:
    """Hub, routes, door and operator of one leadership. `dead` are the identities of this process' former ones."""

    def __init__(self, grounds: Grounds, dead: Collection[str]) -> None:
        """Nothing is sent or opened before `stand_by`."""
        self._grounds = grounds
        clock = grounds.clock
        self.hub = Hub(clock)
        self.routes = RoutesServicer(clock)
        self.operator = Operator(
            grounds.store,
            clock,
            grounds.config,
            hub=self.hub,
            routes=self.routes,
            ledger=grounds.ledger,
            metrics=grounds.metrics,
            dead=dead,
        )
        self.operator.campaign.beat = grounds.elector_beat
        hosted = [self.routes.hosted(), *grounds.hosted]
        self.door = HubServer(
            self.hub, grounds.certificate, host=grounds.host, port=grounds.port, hosted=hosted
        )
        self._mark = LeaderMark.from_environment(grounds.store, self.operator.elector.gate)
        self._marking: asyncio.Task[None] | None = None
        self._open = False
        self.patient = bool(dead)
        """Whether a port that is taken is waited for: a paused predecessor on this machine may hold it."""

    @property
    def identity(self) -> str:
        """Who this leadership is on the Lease."""
        return self.operator.elector.identity

    @property
    def standing(self) -> str:
        """What /readyz says before anything else; empty while it leads."""
        elector = self.operator.elector
        return "" if self.operator.epoch and elector.leads else f"standby: {elector.told()}"

    async def stand_by(self, stop: asyncio.Event, waiting: Callable[[], None]) -> bool:
        """Wait for the Lease; True once it was taken. `waiting` is called in each round in which another holds it."""

        def beat() -> None:
            self._grounds.loop_beat()
            if self.operator.elector.waits:
                self.patient = True
                waiting()

        return await stand_by(self.operator, stop, beat=beat)

    async def open(self, stop: asyncio.Event) -> bool:
        """Open the door, and let the hub's Service find this pod. False at `stop`, or when the Lease was lost first.

        Raises: OSError when the port cannot be had (unless `patient`), TransportUnsafe.
        """
        while not stop.is_set() and self.operator.elector.leads:
            try:
                await self.door.start()
            except OSError as error:
                if not self.patient:
                    raise
                log.warning("%s Trying again.", error)
                await asyncio.sleep(DOOR_RETRY_SECONDS)
                continue
            self._open = True
            if self._mark is not None:
                self._marking = asyncio.create_task(self._keep_mark(self._mark))
            return True
        return False

    async def _keep_mark(self, mark: LeaderMark) -> None:
        while self.operator.elector.leads and not await mark.set():  # noqa: ASYNC110 - tried again, not waited for
            await asyncio.sleep(MARK_RETRY_SECONDS)

    async def run(self, stop: asyncio.Event) -> None:
        """Lead until `stop`, or until the Lease is lost."""
        await self.operator.run(stop, beat=self._grounds.loop_beat)

    async def close(self) -> None:
        """End in order: nothing is sent any more, the door closes, what was decided is written, the Lease given back."""
        self.operator.elector.halt()
        if self._marking is not None:
            self._marking.cancel()
            await asyncio.gather(self._marking, return_exceptions=True)
        if self._open:
            await self.door.stop()
        await self.operator.stop()
        if self._mark is not None and self._open:
            await self._mark.clear()
