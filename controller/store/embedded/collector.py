"""What the garbage collector and the namespace controller do, as one pass that somebody pumps.

Owner references: an object all of whose owners are gone is deleted; one that keeps an owner loses only the
dangling references. Foreground deletion waits for the dependents that block it, orphaning cuts them loose.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import takewhile

from controller.store.embedded.objects import FOREGROUND, ORPHAN, Objects
from controller.store.embedded.ownership import Manager
from controller.store.embedded.tables import Change, Record
from controller.store.interface import JsonObject, Propagation, Resource

EVENT_SECONDS = 3_600.0
"""How long an Event is kept after its last change: the API server's --event-ttl."""

COLLECTOR = Manager("garbage-collector-controller", "Update")
NAMESPACES = Manager("namespace-controller", "Update")


class Collector:
    """Knows who is owned by whom, and has nothing to do while nothing was removed or marked as going."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._dependents: dict[str, set[tuple[Resource, str, str]]] = {}
        self._suspects: dict[tuple[Resource, str, str], None] = {}
        self._going: dict[tuple[Resource, str, str], None] = {}
        self._events: dict[tuple[Resource, str, str], float] = {}
        for resource in objects.resources:
            objects.table(resource).listeners.append(partial(self.note, resource))

    def note(self, resource: Resource, change: Change) -> None:
        """Learn from one change: owners gained and lost, objects that go or are gone."""
        old, new = change.old, change.new
        record = new or change.final or old
        if record is None:
            return
        key = (resource, *record.key)
        if resource.kind == "Event":
            self._events.pop(key, None)
            if new is not None:
                self._events[key] = self._objects.clock.monotonic()
        before = _owners(old.obj) if old is not None else []
        after = _owners(new.obj) if new is not None else []
        if before != after:
            for owner in before:
                self._dependents.get(owner["uid"], set()).discard(key)
            for owner in after:
                self._dependents.setdefault(owner["uid"], set()).add(key)
            if after:
                self._suspects[key] = None
        if new is None:
            self._gone(key, record)
        elif "deletionTimestamp" in new.obj["metadata"]:
            self._going[key] = None

    def _gone(self, key: tuple[Resource, str, str], record: Record) -> None:
        self._suspects.pop(key, None)
        self._going.pop(key, None)
        for dependent in sorted(self._dependents.pop(record.uid, ()), key=_order):
            self._suspects[dependent] = None
        for owner in _owners(record.obj):
            self._dependents.get(owner["uid"], set()).discard(key)

    def collect(self) -> int:
        """One pass; how many objects were removed or changed. Repeated passes end at 0."""
        done = 0
        suspects, self._suspects = list(self._suspects), {}
        for key in suspects:
            record = self._record(key)
            if record is not None:
                done += self._judge(key[0], record)
        for key in list(self._going):
            record = self._record(key)
            if record is not None:
                done += self._finish(key, record)
        return done + self._forget_events()

    def _forget_events(self) -> int:
        """Remove Events nobody renewed for an hour; they are kept in the order of their last change."""
        oldest = self._objects.clock.monotonic() - EVENT_SECONDS
        old = list(takewhile(lambda key: self._events[key] < oldest, self._events))
        for key in old:
            record = self._record(key)
            if record is not None:
                self._objects.delete(key[0], record, None, "Background")
        return len(old)

    def _record(self, key: tuple[Resource, str, str]) -> Record | None:
        resource, namespace, name = key
        return self._objects.table(resource).records.get((namespace, name))

    # -------------------------------------------------------------------------------------------- owners

    def _judge(self, resource: Resource, record: Record) -> int:
        owners = _owners(record.obj)
        dangling = [owner for owner in owners if not self._exists(owner, record.key[0])]
        if not owners or not dangling:
            return 0
        if len(dangling) == len(owners):
            if "deletionTimestamp" in record.obj["metadata"]:
                return 0
            self._objects.delete(resource, record, None, "Background")
        else:
            left = [owner for owner in owners if owner not in dangling]
            self._update(resource, record, {"ownerReferences": left})
        return 1

    def _exists(self, owner: JsonObject, namespace: str) -> bool:
        """True for an owner that is there with that very uid; owners of kinds unknown here are left alone."""
        for resource in self._objects.resources:
            if (resource.api_version, resource.kind) == (owner["apiVersion"], owner["kind"]):
                key = (namespace if resource.namespaced else "", owner["name"])
                found = self._objects.table(resource).records.get(key)
                return found is not None and found.uid == owner["uid"]
        return True

    # ---------------------------------------------------------------------------------------- finalizers

    def _finish(self, key: tuple[Resource, str, str], record: Record) -> int:
        resource, finalizers = key[0], record.obj["metadata"].get("finalizers") or []
        if resource.kind == "Namespace":
            return self._empty(resource, record)
        if FOREGROUND in finalizers:
            return self._foreground(resource, record, finalizers)
        if ORPHAN in finalizers:
            return self._orphan(resource, record, finalizers)
        return 0

    def _foreground(self, resource: Resource, record: Record, finalizers: list[str]) -> int:
        done = 0
        for dependent, other in list(self._dependents_of(record.uid)):
            if "deletionTimestamp" not in other.obj["metadata"]:
                deeper: Propagation = "Foreground" if any(self._dependents_of(other.uid)) else "Background"
                self._objects.delete(dependent, other, None, deeper)
                done += 1
        if any(_blocks(other, record.uid) for _, other in self._dependents_of(record.uid)):
            return done
        self._update(resource, record, {"finalizers": [f for f in finalizers if f != FOREGROUND]})
        return done + 1

    def _orphan(self, resource: Resource, record: Record, finalizers: list[str]) -> int:
        done = 1
        for dependent, other in list(self._dependents_of(record.uid)):
            left = [owner for owner in _owners(other.obj) if owner["uid"] != record.uid]
            self._update(dependent, other, {"ownerReferences": left})
            done += 1
        self._update(resource, record, {"finalizers": [f for f in finalizers if f != ORPHAN]})
        return done

    def _dependents_of(self, uid: str) -> Iterator[tuple[Resource, Record]]:
        for key in sorted(self._dependents.get(uid, ()), key=_order):
            record = self._record(key)
            if record is not None:
                yield key[0], record

    # ---------------------------------------------------------------------------------------- namespaces

    def _empty(self, namespaces: Resource, record: Record) -> int:
        """Delete what lives in a namespace that is going; when it is empty, let the namespace go."""
        done = left = 0
        for resource in self._objects.resources:
            if not resource.namespaced:
                continue
            for key in [key for key in self._objects.table(resource).ordered() if key[0] == record.key[1]]:
                inner = self._objects.table(resource).records[key]
                if "deletionTimestamp" not in inner.obj["metadata"]:
                    self._objects.delete(resource, inner, None, "Background")
                    done += 1
                left += key in self._objects.table(resource).records
        if not left:
            new = {**record.obj, "spec": {}}
            self._objects.update(namespaces, record, new, NAMESPACES)
            done += 1
        return done

    def _update(self, resource: Resource, record: Record, meta: JsonObject) -> None:
        changed = {**record.obj["metadata"], **meta}
        for name in meta:
            if not changed[name]:
                del changed[name]
        self._objects.update(resource, record, {**record.obj, "metadata": changed}, COLLECTOR)


def _owners(obj: JsonObject) -> list[JsonObject]:
    owners: list[JsonObject] = obj["metadata"].get("ownerReferences") or []
    return owners


def _blocks(dependent: Record, uid: str) -> bool:
    return any(o["uid"] == uid and o.get("blockOwnerDeletion") for o in _owners(dependent.obj))


def _order(key: tuple[Resource, str, str]) -> tuple[str, str, str]:
    return (key[0].qualified, key[1], key[2])
