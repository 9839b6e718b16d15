"""All objects of one kind as the store has them, kept by a list and a watch: what is seen of a play each second."""

from __future__ import annotations

from typing import Any

from controller.store.errors import Gone, StoreError
from controller.store.interface import EventType, JsonObject, Resource, Store, Watch


class Mirror:
    """Objects by key, in order of key. Plays may take as long as they like: it needs no request while nothing ends."""

    def __init__(self, store: Store, resource: Resource) -> None:
        self._store = store
        self._resource = resource
        self._objects: dict[str, JsonObject] = {}
        self._watch: Watch | None = None
        self._version = ""

    async def look(self) -> dict[str, JsonObject]:
        """The objects now, by key. Read only: they are shared with later looks."""
        if self._watch is None or self._watch.ended:
            await self._open()
        assert self._watch is not None
        try:
            events = self._watch.drain()
        except StoreError as error:
            self._watch = None
            if isinstance(error, Gone):
                self._version = ""
            return await self.look()
        for event in events:
            self._version = event.resource_version
            if event.type is EventType.BOOKMARK:
                continue
            obj = event.object
            if event.type is EventType.DELETED:
                self._objects.pop(key_of(obj), None)
            else:
                self._objects[key_of(obj)] = obj
        return dict(sorted(self._objects.items()))

    def close(self) -> None:
        """Give the stream up."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    async def _open(self) -> None:
        if not self._version:
            listed = await self._store.list(self._resource)
            self._objects = {key_of(obj): obj for obj in listed.items}
            self._version = listed.resource_version
        self._watch = await self._store.watch(self._resource, resource_version=self._version)


def key_of(obj: dict[str, Any]) -> str:
    """`namespace/name`, or the name of a cluster-scoped object."""
    meta = obj["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])
