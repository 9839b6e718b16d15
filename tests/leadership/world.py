"""Several electors on one store, each with a clock and a line of its own, in a time that only this module moves.

Requests take time both ways, can be refused, or lose their answer and land late; processes stand still, die and come
back; people write on the Lease. At every moment at which anything happens it is checked that at most one leads.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from controller.leadership import LEASE_NAME, Elector, LeaseSettings
from controller.observe import labels
from controller.resources.core import LEASE
from controller.store.embedded import BORN_NAMESPACES, EmbeddedStore, open_store
from controller.store.errors import Conflict, NotFound, StoreError, Unavailable
from controller.store.interface import Capabilities, JsonObject, Store
from controller.store.interposed import InterposedStore, Request
from runtime.clock import VirtualClock

T = TypeVar("T")

ORIGIN = 1_790_000_000.0
SPACE = "plimsoll-system"
POLL_SECONDS = 0.1
TURNS = 12
"""Rounds of the event loop in which everything that can go on at one moment has gone on."""


class OwnClock:
    """A machine's clock: wrong by an offset, and running at `rate` of the true time."""

    def __init__(self, world: World, rate: float, offset_seconds: float) -> None:
        self._world = world
        self.rate = rate
        self._offset = offset_seconds

    def now(self) -> float:
        return ORIGIN + self._offset + self.monotonic()

    def monotonic(self) -> float:
        return self._world.now * self.rate


class Line(InterposedStore):
    """One process' way to the store."""

    def __init__(self, inner: Store, body: Body) -> None:
        super().__init__(inner)
        self._body = body
        self.refusing: list[StoreError] = []
        """Answers of the next requests, which then do not reach the store."""
        self.losing = 0
        """So many of the next answers get lost; the request lands, late."""

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        body = self._body
        await body.sleep(body.latency())
        if self.refusing and (request.mutating or not isinstance(self.refusing[0], Conflict)):
            raise self.refusing.pop(0)
        if self.losing and request.mutating:
            self.losing -= 1
            body.world.spawn(self._land(answer))
            await body.sleep(body.latency())
            raise Unavailable("the connection was reset")
        result = await answer()
        await body.sleep(body.latency())
        return result

    @property
    def capabilities(self) -> Capabilities:
        return msgspec.structs.replace(self.inner.capabilities, durable=self._body.world.durable)

    async def _land(self, answer: Callable[[], Awaitable[T]]) -> None:
        await self._body.world.sleep(self._body.latency() * 20.0)
        try:
            await answer()
        except StoreError:
            return


class Body:
    """One process: at any time one elector, and a successor of its own when that one is over."""

    def __init__(self, world: World, name: str, rate: float) -> None:
        self.world = world
        self.name = name
        self.random = random.Random(f"{world.seed}/{name}")
        self.clock = OwnClock(world, rate, self.random.uniform(-1e6, 1e6))
        self.line = Line(world.store, self)
        self.asleep_until = 0.0
        self.alive = True
        self.latency_seconds = 0.02
        self._lives = itertools.count(1)
        self.elector = self._new(())
        world.spawn(self._live())

    def _new(self, dead: tuple[str, ...]) -> Elector:
        return Elector(
            self.line,
            self.clock,
            self.world.settings,
            namespace=SPACE,
            identity=f"{self.name}-{next(self._lives)}",
            rng=self.random,
            at_least=self._known,
            dead=dead,
        )

    async def _known(self) -> int:
        return self.world.ledger

    def latency(self) -> float:
        return self.random.uniform(0.0, 2.0 * self.latency_seconds)

    async def sleep(self, seconds: float) -> None:
        """Wait on the true clock, and as much longer as the process stands still."""
        await self.world.sleep(seconds)
        while self.world.now < self.asleep_until:
            await self.world.sleep(self.asleep_until - self.world.now)

    async def _live(self) -> None:
        while self.alive:
            await self.elector.pump()
            if self.elector.over:
                self.elector = self._new((self.elector.identity,))
            await self.sleep(POLL_SECONDS)

    def die(self) -> None:
        """Kill -9."""
        self.alive = False
        self.elector.gate.shut()

    @property
    def leads(self) -> bool:
        return self.alive and self.elector.leads


class World:
    """True time, the store, and the processes."""

    def __init__(
        self, seed: int, rates: list[float], settings: LeaseSettings | None = None, *, durable: bool = True
    ) -> None:
        self.seed = seed
        self.durable = durable
        self.now = 0.0
        self.settings = settings or LeaseSettings()
        self.ledger = 0
        """The highest epoch anybody led with, as the ledger has it."""
        self.store: EmbeddedStore = open_store(
            VirtualClock(ORIGIN),
            seed=seed,
            namespaces=(*BORN_NAMESPACES, SPACE) if durable else BORN_NAMESPACES,
        )
        self.history: list[tuple[float, int, str]] = []
        """(true time, epoch, identity) of each epoch begun."""
        self._events: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.bodies = [Body(self, f"p{index}", rate) for index, rate in enumerate(rates)]

    def spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._events, (self.now + seconds, next(self._order), future))
        await future

    async def run(self, seconds: float) -> None:
        """Let so much true time pass; raises AssertionError where two lead at once."""
        until = self.now + seconds
        while True:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            self._check()
            if not self._events or self._events[0][0] > until:
                self.now = until
                self._check()
                return
            self.now, _, future = heapq.heappop(self._events)
            self._check()
            if not future.done():
                future.set_result(None)

    async def until(self, holds: Callable[[], bool], seconds: float, what: str) -> float:
        """Run until something holds; how long that took."""
        began = self.now
        while not holds():
            assert self.now - began < seconds, f"after {seconds} s still not: {what}; {self.told()}"
            await self.run(POLL_SECONDS)
        return self.now - began

    def leaders(self) -> list[Body]:
        return [body for body in self.bodies if body.leads]

    def _check(self) -> None:
        leaders = self.leaders()
        assert len(leaders) <= 1, f"at {self.now:.3f} s two lead: {self.told()}"
        for body in leaders:
            epoch, identity = body.elector.epoch, body.elector.identity
            if self.history and self.history[-1][1:] == (epoch, identity):
                continue
            assert epoch > self.ledger, f"epoch {epoch} of {identity} is not above {self.ledger}"
            self.history.append((self.now, epoch, identity))
            self.ledger = epoch

    def told(self) -> str:
        return "; ".join(f"{b.name}: {b.elector.told()}" for b in self.bodies) + f"; {self.history}"

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- what people do

    async def lease(self) -> JsonObject:
        return await self.store.get(LEASE, LEASE_NAME, SPACE)

    async def delete_lease(self) -> None:
        try:
            await self.store.delete(LEASE, LEASE_NAME, SPACE)
        except NotFound:
            return

    async def edit_lease(self, *, epoch: int | None = None, **spec: Any) -> None:
        try:
            lease = await self.lease()
            lease["spec"] |= spec
            if epoch is not None:
                lease["metadata"].setdefault("annotations", {})[labels.EPOCH] = str(epoch)
            await self.store.replace(LEASE, lease, field_manager="somebody")
        except (NotFound, Conflict):
            return


def play(
    scene: Callable[[World], Awaitable[None]],
    rates: list[float],
    seed: int = 1,
    settings: LeaseSettings | None = None,
    *,
    durable: bool = True,
) -> None:
    """One world from its beginning to the scene's end."""

    async def run() -> None:
        world = World(seed, rates, settings, durable=durable)
        try:
            await scene(world)
        finally:
            await world.close()

    asyncio.run(run())
