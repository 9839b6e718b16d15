"""What the server keeps: objects as bytes, and the log of what became of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import msgspec

KEPT_EVENTS = 200_000
KEPT_SNAPSHOTS = 16


class Change(msgspec.Struct, frozen=True):
    """One line of a watch without its frame: the object after it, or as it was for DELETED."""

    version: int
    type: str
    raw: bytes


class Snapshot(msgspec.Struct, frozen=True):
    """All objects at one version, in the order of their keys."""

    version: int
    items: tuple[bytes, ...]


class World:
    """The one counter of versions that all collections share."""

    def __init__(self, version: int = 1_000) -> None:
        self.version = version

    def next(self) -> int:
        """The version of one more change."""
        self.version += 1
        return self.version


class Collection:
    """Objects of one kind by `namespace/name`, as JSON that begins with `{"metadata":`."""

    def __init__(self, world: World, path: str, kind: str, api_version: str) -> None:
        self.world = world
        self.path = path
        self.kind = kind
        self.api_version = api_version
        self.objects: dict[str, bytes] = {}
        self.versions: dict[str, int] = {}
        self.log: deque[Change] = deque(maxlen=KEPT_EVENTS)
        self.compacted = world.version
        """Watches from before this version are answered with 410."""
        self.former: Snapshot | None = None
        """What a lagging server still believes."""
        self._snapshots: dict[str, Snapshot] = {}
        self._numbered = 0

    def fill(self, objects: Iterable[tuple[str, bytes]]) -> None:
        """Put objects in before anybody watches: no events."""
        for key, raw in objects:
            self.objects[key] = raw
            self.versions[key] = self.world.version
        self.compacted = self.world.version

    def put(self, key: str, raw: bytes, version: int) -> Change:
        """Create or change an object; `raw` says `version` (from `World.next`) itself."""
        kind = "MODIFIED" if key in self.objects else "ADDED"
        self.objects[key] = raw
        self.versions[key] = version
        return self._log(Change(version, kind, raw))

    def remove(self, key: str, raw: bytes, version: int) -> Change:
        """Delete an object; `raw` is its last state under the version of the deletion."""
        del self.objects[key], self.versions[key]
        return self._log(Change(version, "DELETED", raw))

    def compact(self) -> None:
        """Forget how it came to be so: watches from earlier versions and unfinished lists are gone."""
        self.compacted = self.world.version
        self.log.clear()
        self._snapshots.clear()

    def remember(self) -> None:
        """What a lagging server will list from now on."""
        self.former = self.snapshot()

    def snapshot(self) -> Snapshot:
        """Everything as it is now."""
        return Snapshot(self.world.version, tuple(self.objects[key] for key in sorted(self.objects)))

    def since(self, version: int) -> list[Change] | None:
        """What happened after a version; None when that is not known any more."""
        if version < self.compacted or (self.log and len(self.log) == KEPT_EVENTS):
            return None
        return [change for change in self.log if change.version > version]

    def keep(self, snapshot: Snapshot) -> str:
        """A name for a list that goes on."""
        self._numbered += 1
        self._snapshots[str(self._numbered)] = snapshot
        while len(self._snapshots) > KEPT_SNAPSHOTS:
            del self._snapshots[next(iter(self._snapshots))]
        return str(self._numbered)

    def kept(self, name: str) -> Snapshot | None:
        """A list that goes on; None when it is too old."""
        return self._snapshots.get(name)

    def typed(self, raw: bytes) -> bytes:
        """An object as a watch says it: with its kind, which lists of built-in kinds leave out."""
        return b'{"kind":"%s","apiVersion":"%s",%s' % (self.kind.encode(), self.api_version.encode(), raw[1:])

    def _log(self, change: Change) -> Change:
        self.log.append(change)
        return change
