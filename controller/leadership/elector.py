"""The elector: waits for the Lease, takes it under a new epoch, keeps it, and gives it back.

No two clocks are ever compared. Whoever waits measures, on its own monotonic clock, how long the Lease's record has
not *changed*; the leader counts from the moment at which it *sent* the last renewal that was answered, which lies
before anybody else can have seen it. Every write is a compare-and-swap on resourceVersion.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Collection
from typing import TypeVar

from controller.leadership.epoch import AtLeast, above
from controller.leadership.gate import Gate
from controller.leadership.lease import (
    LEASE_NAME,
    MOST_LEASES,
    LeaseSettings,
    Record,
    held,
    read,
    released,
)
from controller.observe import labels
from controller.resources.core import LEASE, NAMESPACE
from controller.store.errors import AlreadyExists, Conflict, NotFound, StoreError, Unavailable
from controller.store.interface import JsonObject, Store
from runtime.clock import Clock

log = logging.getLogger("plimsoll.leadership")

T = TypeVar("T")

SWAPS = 3
"""Compare-and-swap tries of one renewal: each lost one means that somebody else wrote the Lease meanwhile."""


async def _nothing_known() -> int:
    return 0


class Elector:
    """Leads at most once: from when it took the Lease until it lost it or gave it back. Then another is made.

    `identity` must be this process' alone, and random. `at_least` gives the highest epoch known from elsewhere;
    `dead` are identities that surely no longer act (former electors of this very process), for whose lease nobody
    need wait. Methods belong to one event loop; `attempt` and `release` may be called from several of its tasks.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: LeaseSettings,
        *,
        namespace: str,
        identity: str,
        rng: random.Random,
        at_least: AtLeast = _nothing_known,
        dead: Collection[str] = (),
    ) -> None:
        """Nothing happens before the first `attempt`."""
        self.identity = identity
        self.settings = settings
        self.gate = Gate(clock)
        self.epoch = 0
        """Of this leadership; 0 before it. It grows when somebody obeyed a higher one."""
        self.watched = False
        """Whether somebody calls `hurry` when the Lease changes."""
        self.lost = ""
        """Why the leadership is over; empty while it is not."""
        self._store = store
        self._clock = clock
        self._namespace = namespace
        self._rng = rng
        self._at_least = at_least
        self._dead = frozenset({*dead, identity})
        self._lock = asyncio.Lock()
        self._record: Record | None = None
        self._looked = False
        self._changed_at = float("-inf")
        self._due = float("-inf")
        self._problem = ""
        self._halted = False

    # ---------------------------------------------------------------------------------------------- read

    @property
    def leads(self) -> bool:
        """Whether it leads at this moment."""
        return self.gate.open

    @property
    def over(self) -> bool:
        """Whether it acts no more: it lost the Lease, or was halted."""
        if self.epoch and not self.lost and not self._halted and not self.gate.open:
            why = f" ({self._problem})" if self._problem else ""
            self._lose(f"the Lease was not renewed in time{why}")
        return bool(self.lost) or self._halted

    @property
    def waits(self) -> bool:
        """Whether it has read the Lease, and it was another's."""
        return self._looked and not self.epoch

    @property
    def due(self) -> bool:
        """Whether the next attempt is due."""
        return self._clock.monotonic() >= self._due

    @property
    def wait_seconds(self) -> float:
        """Time until the next attempt is due."""
        return max(0.0, self._due - self._clock.monotonic())

    def told(self) -> str:
        """One sentence on where it stands, for /readyz and people."""
        if self.leads:
            return f"leads with epoch {self.epoch} as {self.identity}"
        if self.epoch:
            return f"led with epoch {self.epoch} until {self.lost or 'it was told to stop'}"
        if not self._looked:
            return "the Lease has not been read yet" + (f" ({self._problem})" if self._problem else "")
        now, record = self._clock.monotonic(), self._record
        if self._problem:
            return f"the Lease {self._namespace}/{LEASE_NAME} could not be read or taken: {self._problem}; trying again"
        if record is None:
            return "the Lease is gone; whoever held it may act for a little longer"
        return (
            f"{record.holder or 'nobody'} holds the Lease under epoch {record.epoch}, last changed "
            f"{now - self._changed_at:.1f} s ago as seen here; it is taken after {self._patience(record):g} s"
        )

    # ------------------------------------------------------------------------------------------- attempt

    def hurry(self) -> None:
        """The Lease changed, as somebody noticed: the next attempt is due now."""
        self._due = float("-inf")

    async def pump(self) -> None:
        """Make the attempt that is due, if one is. Never raises StoreError: what failed is tried again."""
        if self.due and not self.over:
            await self.attempt()

    async def attempt(self) -> bool:
        """Take the Lease if it is free, or renew it; whether it leads afterwards."""
        async with self._lock:
            if self.over:
                return False
            began = self._clock.monotonic()
            try:
                await (self._renew() if self.epoch else self._acquire())
                self._problem = ""
            except StoreError as error:
                self._problem = f"{error.code} {error.message}"
                log.debug("the Lease could not be asked: %s", self._problem)
            self._schedule(began)
            return self.leads

    async def raise_above(self, epoch: int) -> bool:
        """Lead above an epoch that somebody obeyed: by another compare-and-swap. False when it was not answered."""
        async with self._lock:
            if self.over or not self.epoch:
                return False
            try:
                await self._renew(epoch)
            except StoreError as error:
                self._problem = f"{error.code} {error.message}"
                return False
            return self.epoch > epoch

    def halt(self) -> None:
        """Act no more, at once; a Lease that was not lost before is still ours until `release`."""
        if not self.over:
            self._halted = True
        self.gate.shut()

    async def release(self) -> bool:
        """Stop leading, and give the Lease back so that a successor need not wait for it to run out.

        The epoch stays on it. False when another holds it or the store did not take it: then it runs out by itself.
        """
        self.halt()
        async with self._lock:
            if not self.epoch or self.lost:
                return False
            self.lost = "it was given back"
            try:
                for _ in range(SWAPS):
                    record = await self._look()
                    if record is None or record.holder != self.identity:
                        return False
                    try:
                        await self._ask(self._replace(released(record, self._clock.now())))
                    except Conflict:
                        continue
                    return True
            except StoreError as error:
                log.warning("the Lease could not be given back (%s); it runs out by itself", error.message)
        return False

    # ------------------------------------------------------------------------------------------- waiting

    async def _acquire(self) -> None:
        record = await self._look()
        unseen = record is None and not self._looked
        if not unseen and not self._free(record):
            self._looked = True
            return
        known = await self._at_least()
        if unseen and not (known and self._store.capabilities.durable):
            self._changed_at = float(
                "-inf"
            )  # nobody ever led here: a Lease that never was keeps nobody waiting
        self._looked = True
        if not self._free(record):
            return
        epoch = above(known, record.epoch if record else 0)
        sent = self._clock.monotonic()
        try:
            answer = await self._write(record, epoch)
        except (AlreadyExists, Conflict):
            if await self._look() is None:  # another was quicker, and its Lease is gone already
                self._changed_at = self._clock.monotonic()
            return
        self._take(answer, epoch)
        if not self.gate.extend(sent + self.settings.renew_deadline_seconds) or not self.leads:
            self._lose("taking it took longer than it is kept for")
            return
        log.info("took the Lease under epoch %d as %s", epoch, self.identity)

    def _free(self, record: Record | None) -> bool:
        """Whether nobody can act under this Lease any more."""
        if record is not None and (record.released or record.holder in self._dead):
            return True
        return self._clock.monotonic() >= self._free_at(record)

    def _free_at(self, record: Record | None) -> float:
        return self._changed_at + self._patience(record)

    def _patience(self, record: Record | None) -> float:
        """How long an unchanged Lease is another's: as long as that one believes, within reason."""
        own = self.settings.lease_seconds
        return own if record is None else max(own, min(record.lease_seconds, own * MOST_LEASES))

    async def _look(self) -> Record | None:
        """Read the Lease; a change is dated to now, which is not before it happened.

        A deletion is a change like any other: somebody may have taken the Lease just before it, unseen.
        """
        try:
            found = await self._ask(self._store.get(LEASE, LEASE_NAME, self._namespace))
        except NotFound:
            if self._record is not None or not self._looked:
                self._changed_at = self._clock.monotonic()
            self._record = None
            return None
        record = read(found)
        if self._record is None or record.life != self._record.life:
            self._changed_at = self._clock.monotonic()
        self._record = record
        return record

    # ------------------------------------------------------------------------------------------- leading

    async def _renew(self, at_least: int = 0) -> None:
        """Renew by compare-and-swap. A Lease that another holds ends the leadership at once."""
        record = self._record
        for _ in range(SWAPS):
            if why := self._taken(record):
                self._lose(why)
                return
            floor = max(at_least, record.epoch if record else 0)
            epoch = self.epoch if floor <= self.epoch and at_least < self.epoch else above(floor)
            sent = self._clock.monotonic()
            try:
                answer = await self._write(record, epoch)
            except (AlreadyExists, Conflict, NotFound):
                record = await self._look()
                continue
            self._take(answer, epoch)
            if not self.gate.extend(sent + self.settings.renew_deadline_seconds):
                self._lose("the renewal was answered too late")
            return
        raise Conflict(f"the Lease {self._namespace}/{LEASE_NAME} changed {SWAPS} times while it was renewed")

    def _taken(self, record: Record | None) -> str:
        """Why this Lease is no longer ours; empty while it is. One emptied by hand is taken back."""
        if record is None or record.holder == self.identity:
            return ""
        if record.holder:
            return f"{record.holder} holds the Lease"
        return f"it was led under epoch {record.epoch} meanwhile" if record.epoch > self.epoch else ""

    def _take(self, answer: JsonObject, epoch: int) -> None:
        self._record = read(answer)
        self.epoch = epoch

    def _lose(self, why: str) -> None:
        self.gate.shut()
        if not self.lost:
            self.lost = why
            log.warning("no longer leading with epoch %d: %s", self.epoch, why)

    # --------------------------------------------------------------------------------------------- writes

    async def _write(self, record: Record | None, epoch: int) -> JsonObject:
        lease = held(record, self._namespace, self.identity, epoch, self.settings, self._clock.now())
        if record is not None:
            return await self._ask(self._replace(lease))
        return await self._create(lease)

    def _replace(self, lease: JsonObject) -> Awaitable[JsonObject]:
        return self._store.replace(LEASE, lease, field_manager=labels.MANAGER)

    async def _create(self, lease: JsonObject) -> JsonObject:
        if not self._store.capabilities.durable:
            # A store in this process begins without our namespace; in a cluster it is there before we are.
            space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self._namespace}}
            with contextlib.suppress(AlreadyExists):
                await self._ask(self._store.create(NAMESPACE, space, field_manager=labels.MANAGER))
        return await self._ask(self._store.create(LEASE, lease, field_manager=labels.MANAGER))

    async def _ask(self, answer: Awaitable[T]) -> T:
        """Wait for one answer, at most `request_seconds` of real time."""
        try:
            async with asyncio.timeout(self.settings.request_seconds):
                return await answer
        except TimeoutError as error:
            raise Unavailable(f"no answer in {self.settings.request_seconds:g} s") from error

    def _schedule(self, began: float) -> None:
        """When the next attempt is due. One that failed is followed sooner, counted from when it began."""
        settings = self.settings
        if self.leads:
            # Half the pause of others: five tries fit before the deadline, as the fifth second is the first.
            self._due = began + (settings.retry_seconds / 2.0 if self._problem else settings.renew_seconds)
            return
        pause = settings.renew_seconds if self.watched and not self._problem else settings.retry_seconds
        self._due = self._clock.monotonic() + pause * self._rng.uniform(1.0, settings.jitter)
        if self._looked and not self._free(self._record):
            self._due = min(self._due, self._free_at(self._record))
