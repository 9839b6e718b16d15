"""The objects of the embedded store and the one path by which any of them changes.

Everything here is synchronous and runs to its end: no other task can see or interrupt a half-made change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from controller.resources.core import POD
from controller.resources.core_bounds import RESOURCE_QUOTA
from controller.store.embedded import core_rules, forms, metadata, ownership, quotas, wording
from controller.store.embedded.identity import Identities, Stamps
from controller.store.embedded.ownership import Manager, Owners
from controller.store.embedded.scaling import scale_faults
from controller.store.embedded.shapes import CORE_SHAPES, PLAIN, Shape, from_schema
from controller.store.embedded.tables import Change, Key, Record, Table
from controller.store.embedded.validation import Structural
from controller.store.embedded.wording import FieldFault
from controller.store.interface import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Invalid,
    JsonObject,
    NotFound,
    Propagation,
    Resource,
    TooLarge,
)
from runtime.clock import Clock

MOST_BYTES = 1_572_864
"""Largest object kept: etcd's own request limit."""

WINDOW = 10_000
"""Changes of a kind kept for watches that resume and for later pages; older ones are 410."""

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"

_SYSTEM = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


class Objects:
    """Every object, by kind. `version` is the newest resourceVersion given out."""

    def __init__(
        self,
        kinds: Mapping[Resource, JsonObject | None],
        clock: Clock,
        *,
        seed: int = 0,
        window: int = WINDOW,
    ) -> None:
        self.clock = clock
        self.stamps = Stamps(clock)
        self.version = 0
        self._identities = Identities(seed)
        self._tables = {resource: _table(resource, schema, window) for resource, schema in kinds.items()}
        self._namespaces = next((r for r in kinds if r.kind == "Namespace" and not r.group), None)

    @property
    def resources(self) -> Iterable[Resource]:
        """Every kind the store holds."""
        return self._tables.keys()

    def table(self, resource: Resource) -> Table:
        """The table of a kind. Raises `NotFound` when the store does not hold it."""
        table = self._tables.get(resource)
        if table is None:
            raise NotFound(
                f"the server could not find the requested resource ({resource.qualified}, {resource.api_version})"
            )
        return table

    def record(self, resource: Resource, name: str, namespace: str) -> Record:
        """The object now. Raises `NotFound`."""
        found = self.table(resource).records.get((namespace, name))
        if found is None:
            raise NotFound(wording.not_found(resource, name))
        return found

    # ------------------------------------------------------------------------------------------- creation

    def create(
        self,
        resource: Resource,
        obj: JsonObject,
        who: Manager,
        *,
        owners: Owners | None = None,
        dry_run: bool = False,
    ) -> Record:
        """Make a new object of `obj`, which becomes the store's own.

        `owners` None means that the writer owns every field.
        """
        table = self.table(resource)
        forms.check(resource, obj)
        meta = obj["metadata"]
        if "generateName" in meta and not meta.get("name"):
            meta["name"] = meta["generateName"] + self._identities.suffix()
        if meta.get("resourceVersion"):
            raise BadRequest("resourceVersion should not be set on objects to be created")
        key = self._key(resource, meta)
        if key in table.records:
            raise AlreadyExists(wording.already_exists(resource, key[1]))
        self._prepare_new(table, obj)
        self._validate(table, None, obj)
        if resource == POD:
            self._admit(obj)
        if owners is None:
            part = ownership.owned_part(obj, "", resource.has_status)
            owners = ownership.after_update({}, who, {}, part, table.shape)
        if dry_run:
            return Record(key, obj, self.version, owners)
        return self._commit(table, None, obj, owners)

    def _admit(self, pod: JsonObject) -> None:
        """Hold a new pod to the quotas of its namespace. Raises `Forbidden`."""
        namespace = pod["metadata"]["namespace"]
        if RESOURCE_QUOTA not in self._tables:
            return
        bounds = [r.obj for (n, _), r in self.table(RESOURCE_QUOTA).records.items() if n == namespace]
        if not bounds:
            return
        there = [r.obj for (n, _), r in self.table(POD).records.items() if n == namespace]
        if (sentence := quotas.refusal(pod, bounds, there)) is not None:
            raise Forbidden(sentence)

    def _key(self, resource: Resource, meta: JsonObject) -> Key:
        faults = metadata.name_faults(resource, meta.get("name"))
        if faults and self.table(resource).schema is None:
            raise _refusal(resource, meta.get("name", ""), faults)
        name = str(meta.get("name") or "")
        namespace = meta.get("namespace", "")
        if not resource.namespaced:
            if namespace:
                raise BadRequest("namespace may not be set on a cluster-scoped object")
            return ("", name)
        if not namespace:
            raise BadRequest("an empty namespace may not be set during creation")
        self._check_namespace(resource, namespace, name)
        return (namespace, name)

    def _check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        if self._namespaces is None:
            return
        found = self.table(self._namespaces).records.get(("", namespace))
        if found is None:
            raise NotFound(wording.not_found(self._namespaces, namespace))
        if "deletionTimestamp" in found.obj["metadata"]:
            raise Forbidden(
                f'{resource.qualified} "{name}" is forbidden: unable to create new content in namespace '
                f"{namespace} because it is being terminated"
            )

    def _prepare_new(self, table: Table, obj: JsonObject) -> None:
        resource, meta = table.resource, obj["metadata"]
        for field in (*_SYSTEM, "managedFields", "selfLink"):
            meta.pop(field, None)
        if resource.has_status and resource.kind != "Node":
            obj.pop("status", None)
        if not meta.get("name"):
            meta.pop("name", None)
        meta["uid"] = self._identities.uid()
        meta["creationTimestamp"] = self.stamps.now()
        if resource.generation:
            meta["generation"] = 1
        if table.schema is not None:
            self._strict(table, obj)
            table.schema.fill(obj)
        elif not resource.group:
            core_rules.on_create(resource.kind, obj)

    # --------------------------------------------------------------------------------------------- change

    def update(
        self,
        resource: Resource,
        record: Record,
        obj: JsonObject,
        who: Manager,
        *,
        owners: Owners | None = None,
    ) -> Record | None:
        """Replace an object by `obj`, which becomes the store's own; None when that removed it.

        Only the part that `who.subresource` may touch is taken from `obj`. A write that changes nothing
        gives no new version.
        """
        table, old = self.table(resource), record.obj
        forms.check(resource, obj)
        new = _merge_parts(resource, old, obj, who.subresource)
        if table.schema is not None:
            self._strict(table, new)
            table.schema.fill(new)
        if owners is None:
            owners = ownership.after_update(
                record.owners,
                who,
                ownership.owned_part(old, who.subresource, resource.has_status),
                ownership.owned_part(new, who.subresource, resource.has_status),
                table.shape,
            )
        if new == old:
            record.owners = owners
            return record
        self._validate(table, old, new)
        if resource.generation and _intent(new) != _intent(old):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        if self._may_go(table, new):
            self._remove(table, record, new)
            return None
        return self._commit(table, record, new, owners)

    def force(self, resource: Resource, record: Record, obj: JsonObject, who: Manager) -> Record:
        """Replace an object as the server itself does (a binding): no rule about what may change applies."""
        table = self.table(resource)
        old, new = (ownership.owned_part(o, "", False) for o in (record.obj, obj))
        owners = ownership.after_update(record.owners, who, old, new, table.shape)
        return self._commit(table, record, {**obj, "metadata": dict(obj["metadata"])}, owners)

    @staticmethod
    def _may_go(table: Table, obj: JsonObject) -> bool:
        """True when nothing holds a deleted object any more (a pod is held by its grace period)."""
        meta = obj["metadata"]
        if "deletionTimestamp" not in meta or meta.get("finalizers"):
            return False
        if table.resource.kind == "Namespace" and obj.get("spec", {}).get("finalizers"):
            return False
        return not meta.get("deletionGracePeriodSeconds")

    def _strict(self, table: Table, obj: JsonObject) -> None:
        if table.schema is None:
            return
        unknown = sorted(forms.strange_metadata(obj["metadata"])) + table.schema.unknown(obj)
        if unknown:
            listed = ", ".join(f'unknown field "{path}"' for path in unknown)
            kind, version = table.resource.kind, table.resource.version
            raise BadRequest(
                f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: {listed}'
            )

    def _validate(self, table: Table, old: JsonObject | None, new: JsonObject) -> None:
        """Check what changed: an object that was once accepted is not refused for an untouched part."""
        faults: list[FieldFault] = []
        if old is None or old["metadata"] != new["metadata"]:
            faults += metadata.metadata_faults(table.resource, new["metadata"])
        if old is not None:
            faults += metadata.finalizer_faults(old, new)
        if table.schema is None:
            faults += core_rules.faults(table.resource.kind, old, new)
        elif old is None:
            faults += table.schema.check(new)
        else:
            for part in new:
                if part != "metadata" and new[part] != old.get(part):
                    faults += table.schema.check_part(part, new[part])
        if old is None or _intent(old) != _intent(new):
            faults += scale_faults(table.resource, new)
        if table.schema is not None and table.schema.has_rules and wording.blocks_rules(faults):
            faults.append(wording.RULES_LEFT_OUT)
        if faults:
            raise _refusal(table.resource, new["metadata"].get("name", ""), faults)

    # ------------------------------------------------------------------------------------------- deletion

    def delete(
        self, resource: Resource, record: Record, grace_seconds: int | None, propagation: Propagation
    ) -> None:
        """Remove an object, or mark it deleted while finalizers or a pod's grace period hold it."""
        table = self.table(resource)
        grace = core_rules.grace_of(resource.kind, record.obj, grace_seconds)
        new = forms.own(record.obj)
        meta = new["metadata"]
        finalizers = [name for name in meta.get("finalizers", []) if name not in {FOREGROUND, ORPHAN}]
        if propagation != "Background":
            finalizers.append(FOREGROUND if propagation == "Foreground" else ORPHAN)
        if finalizers:
            meta["finalizers"] = finalizers
        else:
            meta.pop("finalizers", None)
        if "deletionTimestamp" in meta:
            grace = min(grace, int(meta.get("deletionGracePeriodSeconds", 0)))
        elif resource.generation:
            meta["generation"] += 1
        if resource.kind == "Namespace":
            new["status"] = {**new.get("status", {}), "phase": "Terminating"}
        fresh = "deletionTimestamp" not in meta
        if fresh or grace != int(meta.get("deletionGracePeriodSeconds", 0)):
            meta["deletionTimestamp"] = self.stamps.now(grace)
        meta["deletionGracePeriodSeconds"] = grace
        if self._may_go(table, new):
            self._remove(table, record, new)
        elif new != record.obj:
            self._commit(table, record, new, record.owners)

    # --------------------------------------------------------------------------------------------- commit

    def _commit(self, table: Table, old: Record | None, obj: JsonObject, owners: Owners) -> Record:
        version = self.version + 1
        meta = obj["metadata"]
        meta["resourceVersion"] = str(version)
        for name in ("annotations", "labels"):
            if meta.get(name) == {}:  # what is empty is not kept
                del meta[name]
        record = Record((meta.get("namespace", ""), meta["name"]), obj, version, owners)
        if len(record.raw) > MOST_BYTES:
            raise TooLarge(
                f"etcdserver: request is too large: {table.resource.kind} {meta['name']!r} has "
                f"{len(record.raw)} bytes, at most {MOST_BYTES} are kept"
            )
        self.version = version
        table.commit(Change(version, old, record, None))
        return record

    def _remove(self, table: Table, old: Record, last: JsonObject) -> None:
        self.version += 1
        last["metadata"]["resourceVersion"] = str(self.version)
        final = Record(old.key, last, self.version, old.owners)
        table.commit(Change(self.version, old, None, final))


_compiled: dict[int, tuple[JsonObject, Structural, Shape]] = {}
"""Compiled schemas by identity of the schema, which is kept so that the identity stays its own."""


def _compile(schema: JsonObject) -> tuple[JsonObject, Structural, Shape]:
    known = _compiled.get(id(schema))
    if known is None:
        known = _compiled[id(schema)] = (schema, Structural(schema), from_schema(schema))
    return known


def _table(resource: Resource, schema: JsonObject | None, window: int) -> Table:
    if schema is None:
        return Table(resource, None, CORE_SHAPES.get(resource.kind, PLAIN), window)
    _, structural, shape = _compile(schema)
    return Table(resource, structural, shape, window)


def _merge_parts(resource: Resource, old: JsonObject, obj: JsonObject, subresource: str) -> JsonObject:
    """The new object: the writable part of `obj`, everything else from `old`."""
    if subresource == "status":
        new = {**old, "metadata": dict(old["metadata"])}
        new.pop("status", None)
        return {**new, "status": obj["status"]} if "status" in obj else new
    new = dict(obj)
    if resource.has_status and "status" in old:
        new["status"] = old["status"]
    elif resource.has_status:
        new.pop("status", None)
    meta: dict[str, Any] = dict(obj["metadata"])
    for field in (*_SYSTEM, "name", "namespace", "resourceVersion"):
        if field in old["metadata"]:
            meta[field] = old["metadata"][field]
        else:
            meta.pop(field, None)
    for field in ("managedFields", "selfLink"):
        meta.pop(field, None)
    new["metadata"] = meta
    return new


def _intent(obj: JsonObject) -> JsonObject:
    return {name: value for name, value in obj.items() if name not in {"metadata", "status"}}


def _refusal(resource: Resource, name: Any, faults: list[FieldFault]) -> Invalid:
    causes = tuple(fault.cause() for fault in faults)
    return Invalid(wording.is_invalid(resource, str(name), faults), causes)


def conflict(resource: Resource, name: str, why: str) -> Conflict:
    """A 409 about one object."""
    return Conflict(wording.cannot_fulfil(resource, name, why))
