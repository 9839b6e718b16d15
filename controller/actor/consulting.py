"""The store through which the operator writes: every write asks the book of refusals first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from controller.actor.refusals import Refusals, Slot
from controller.resources.core import EVENT
from controller.store.errors import StoreError
from controller.store.interface import JsonObject, Resource, Store
from controller.store.interposed import InterposedStore, Request

T = TypeVar("T")


class ConsultingStore(InterposedStore):
    """A store whose writes ask the book first, and whose answers go into it."""

    def __init__(self, inner: Store, book: Refusals) -> None:
        """Put the book before `inner`."""
        super().__init__(inner)
        self._book = book

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, dry_run: bool = False
    ) -> JsonObject:
        """See `Store.create`. Raises HeldBack instead of asking again too soon."""
        slot = slot_of(resource, obj)
        namespace = str(obj["metadata"].get("namespace", ""))
        return await self._consult(
            slot,
            lambda: self.inner.create(resource, obj, field_manager=field_manager, dry_run=dry_run),
            namespace,
        )

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
        try:
            found = await answer()
        except StoreError as error:
            self._book.failed(slot, error, creates_in=creates_in)
            raise
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
