"""The store through which the operator writes: every write asks the book of refusals first."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

from controller.actor.refusals import PODS, Refusals, Slot
from controller.resources.core import EVENT
from controller.resources.kinds import TRAINING_JOB
from controller.store.errors import StoreError
from controller.store.interface import JsonObject, Resource, Store
from controller.store.interposed import InterposedStore, Request

T = TypeVar("T")


FIRST_AT_ONCE = 2
"""So many of one object's creations are on their way together at first; each success lets one more go beside them.

An object that is refused is refused once or twice then, not once a replica.
"""
OF_A_WHOLE = (TRAINING_JOB.kind, PODS)
"""Writes of which one alone is no success: a gang's pods. The actor says when all of them are there."""
REMEMBERED = 10_000
"""Objects whose pace is remembered; one forgotten begins slowly again."""


class Turns:
    """Lets creations for one object go slowly until some were taken. Nothing waits for another object's."""

    def __init__(self) -> None:
        self._most: OrderedDict[Slot, int] = OrderedDict()
        self._going: Counter[Slot] = Counter()
        self._waiting: dict[Slot, deque[asyncio.Future[None]]] = {}

    async def begin(self, slot: Slot) -> None:
        """Wait for a turn; `end` gives it back."""
        while self._going[slot] >= self._most.get(slot, FIRST_AT_ONCE):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(slot, deque()).append(turn)
            await turn
        self._going[slot] += 1

    def end(self, slot: Slot, *, taken: bool) -> None:
        """It was answered. One success makes room for one more at a time, a failure takes all of it back."""
        self._going[slot] -= 1
        if not self._going[slot]:
            del self._going[slot]
        self._most[slot] = self._most.get(slot, FIRST_AT_ONCE) + 1 if taken else FIRST_AT_ONCE
        self._most.move_to_end(slot)
        while len(self._most) > REMEMBERED:
            self._most.popitem(last=False)
        for turn in self._waiting.pop(slot, ()):
            if not turn.done():
                turn.set_result(None)


class ConsultingStore(InterposedStore):
    """A store whose writes ask the book first, and whose answers go into it."""

    def __init__(self, inner: Store, book: Refusals) -> None:
        """Put the book before `inner`."""
        super().__init__(inner)
        self._book = book
        self._turns = Turns()

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, dry_run: bool = False
    ) -> JsonObject:
        """See `Store.create`. Raises HeldBack instead of asking again too soon."""
        slot = slot_of(resource, obj)
        namespace = str(obj["metadata"].get("namespace", ""))
        await self._turns.begin(slot)
        taken = False
        try:
            answer = await self._consult(
                slot,
                lambda: self.inner.create(resource, obj, field_manager=field_manager, dry_run=dry_run),
                namespace,
            )
            taken = True
        finally:
            self._turns.end(slot, taken=taken)
        return answer

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        """Send one request. Raises HeldBack instead of sending a write too soon."""
        if not request.mutating:
            return await answer()
        below = f"/{request.subresource}" if request.subresource else ""
        key = "/".join(part for part in (request.namespace, request.name) if part)
        slot = Slot(request.resource.kind, key, f"{request.verb} {request.resource.kind}{below}")
        return await self._consult(slot, answer)

    async def _consult(self, slot: Slot, answer: Callable[[], Awaitable[T]], creates_in: str = "") -> T:
        self._book.check(slot, creates_in=creates_in)
        began = time.monotonic()
        try:
            found = await answer()
        except StoreError as error:
            self._book.failed(slot, error, creates_in=creates_in, took_seconds=time.monotonic() - began)
            raise
        if (slot.kind, slot.what) != OF_A_WHOLE:
            self._book.succeeded(slot)
        return found


def slot_of(resource: Resource, obj: JsonObject) -> Slot:
    """Whose a creation is: the owner's of what is created, the subject's of an event, else the object's own."""
    metadata = obj["metadata"]
    namespace, name, kind = str(metadata.get("namespace", "")), str(metadata["name"]), resource.kind
    owners = metadata.get("ownerReferences")
    if owners:
        kind, name = str(owners[0]["kind"]), str(owners[0]["name"])
    elif resource == EVENT:
        subject = obj["involvedObject"]
        kind, name, namespace = str(subject["kind"]), str(subject["name"]), str(subject.get("namespace", ""))
    return Slot(kind, f"{namespace}/{name}" if namespace else name, f"create {resource.kind}")
