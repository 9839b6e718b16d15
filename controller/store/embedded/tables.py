"""What the store keeps of one kind: its objects now, and its changes for watches and old pages."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from controller.store.embedded.ownership import Owners
from controller.store.embedded.selectors import Match
from controller.store.embedded.shapes import Shape
from controller.store.embedded.validation import Structural
from controller.store.interface import EventType, Gone, JsonObject, Resource, WatchEvent

Key = tuple[str, str]
"""(namespace, name)."""


class Record:
    """One version of one object; never changed. `obj` stays inside the store, `raw` goes out."""

    __slots__ = ("key", "obj", "owners", "raw", "version")

    def __init__(self, key: Key, obj: JsonObject, version: int, owners: Owners) -> None:
        self.key = key
        self.obj = obj
        self.version = version
        self.owners = owners
        self.raw: bytes = msgspec.json.encode(obj)

    @property
    def uid(self) -> str:
        """The object's identity."""
        uid: str = self.obj["metadata"]["uid"]
        return uid


class Change:
    """One step of the history: `old` None for a creation, `new` None for a removal."""

    __slots__ = ("final", "new", "old", "version")

    def __init__(self, version: int, old: Record | None, new: Record | None, final: Record | None) -> None:
        self.version = version
        self.old = old
        self.new = new
        self.final = final


class Table:
    """All objects of one kind.

    `floor` is the version of the newest change no longer kept: a watch from an older one is `Gone`.
    """

    __slots__ = (
        "_order", "floor", "history", "listeners", "records", "resource", "schema", "shape", "window",
    )  # fmt: skip

    def __init__(self, resource: Resource, schema: Structural | None, shape: Shape, window: int) -> None:
        self.resource = resource
        self.schema = schema
        self.shape = shape
        self.records: dict[Key, Record] = {}
        self.history: deque[Change] = deque()
        self.window = window
        self.floor = 0
        self.listeners: list[Callable[[Change], None]] = []
        self._order: list[Key] | None = None

    def commit(self, change: Change) -> None:
        """Make a change the present, remember it and tell who listens, in the order they came."""
        key = (change.new or change.final or _some(change.old)).key
        if change.new is None:
            self.records.pop(key, None)
            self._order = None
        else:
            if key not in self.records:
                self._order = None
            self.records[key] = change.new
        self.history.append(change)
        if len(self.history) > self.window:
            self.floor = self.history.popleft().version
        for listener in tuple(self.listeners):
            listener(change)

    def compact(self, version: int) -> None:
        """Forget the changes up to `version`, as etcd does every few minutes."""
        while self.history and self.history[0].version <= version:
            self.history.popleft()
        self.floor = max(self.floor, version)

    def ordered(self) -> list[Key]:
        """Keys by namespace and name; shared, do not change."""
        if self._order is None:
            self._order = sorted(self.records)
        return self._order

    def at(self, version: int) -> dict[Key, Record]:
        """The objects as they were at an older version. Raises `Gone` when that is no longer known."""
        if version < self.floor:
            raise Gone(f"The provided continue parameter is too old: version {version} is no longer kept")
        records = dict(self.records)
        for change in reversed(self.history):
            if change.version <= version:
                break
            key = (change.new or change.final or _some(change.old)).key
            if change.old is None:
                records.pop(key, None)
            else:
                records[key] = change.old
        return records

    def since(self, version: int) -> Iterator[Change]:
        """The changes after a version, oldest first. Raises `Gone` when some are no longer known."""
        if version < self.floor:
            raise Gone(f"too old resource version: {version} ({self.floor})")
        return (change for change in self.history if change.version > version)


def _some(record: Record | None) -> Record:
    if record is None:
        raise AssertionError("a change has an old or a new object")
    return record


def as_event(change: Change, namespace: str, match: Match | None) -> WatchEvent | None:
    """What a watcher with these bounds sees of a change.

    An object that stops matching a selector is DELETED to its watcher, one that starts to is ADDED.
    """
    old, new = change.old, change.new
    key = (new or _some(old)).key
    if namespace and key[0] != namespace:
        return None
    if match is not None:
        old = old if old is not None and match(old.obj) else None
        new = new if new is not None and match(new.obj) else None
    version = str(change.version)
    if new is not None:
        return WatchEvent(EventType.ADDED if old is None else EventType.MODIFIED, version, new.raw)
    if old is None:
        return None
    last = change.final or change.new
    return WatchEvent(EventType.DELETED, version, last.raw if last is not None else old.raw)


def bookmark(resource: Resource, version: int) -> WatchEvent:
    """A bookmark: nothing but the version up to which the reader has seen everything."""
    obj: dict[str, Any] = {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": {"resourceVersion": str(version), "creationTimestamp": None},
    }
    return WatchEvent(EventType.BOOKMARK, str(version), msgspec.json.encode(obj))
