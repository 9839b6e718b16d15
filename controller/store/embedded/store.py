"""`EmbeddedStore`: the store seam in this process.

Its methods are coroutines because the seam's are, but none of them ever waits: each runs to its end
before another task gets a turn, which is what makes runs with one seed identical.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from controller.resources.core import NODE, POD
from controller.store.embedded import ownership, wording
from controller.store.embedded.collector import Collector
from controller.store.embedded.documents import decoded, merge_patch, page, token, version_number
from controller.store.embedded.evictions import Evictions
from controller.store.embedded.forms import header, own
from controller.store.embedded.objects import WINDOW, Objects, conflict
from controller.store.embedded.ownership import Manager
from controller.store.embedded.selectors import both, field_matcher, label_matcher
from controller.store.embedded.tables import Change, Record, as_event, bookmark
from controller.store.embedded.watching import EmbeddedWatch
from controller.store.interface import (
    Capabilities,
    Conflict,
    Invalid,
    JsonObject,
    ListResult,
    NotFound,
    Propagation,
    Resource,
    Scale,
    ScalePaths,
    Subresource,
    Unavailable,
)
from runtime.clock import Clock

WATCH_CAPACITY = 20_000
TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")

CAPABILITIES = Capabilities(
    runs_cel=False,
    runs_controllers=False,
    shows_managed_fields=False,
    strict_fields=True,
    durable=False,
)


class EmbeddedStore:
    """Objects in this process with the API server's semantics (see `controller.store.interface.Store`).

    `kinds` gives each resource its structural schema (None: no schema, as for the kinds of Kubernetes).
    `window` is how many changes of a kind are kept for watches and old pages, `watch_capacity` how far a
    watch may fall behind, `watch_seconds` when a watch ends by age (0: never). `requests` counts requests
    by (verb, kind), so that a test can tell a hot loop.
    """

    def __init__(
        self,
        kinds: Mapping[Resource, JsonObject | None],
        clock: Clock,
        *,
        seed: int = 0,
        window: int = WINDOW,
        watch_capacity: int = WATCH_CAPACITY,
        watch_seconds: float = 0.0,
    ) -> None:
        self.objects = Objects(kinds, clock, seed=seed, window=window)
        self._collector = Collector(self.objects)
        self._evictions = Evictions(self.objects)
        self.requests: Counter[tuple[str, str]] = Counter()
        self._clock = clock
        self._watch_capacity = watch_capacity
        self._watch_seconds = watch_seconds

    @property
    def capabilities(self) -> Capabilities:
        """Honest about what is missing: no CEL, no controllers of its own, nothing on disk."""
        return CAPABILITIES

    # ----------------------------------------------------------------------------------------------- read

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JsonObject:
        """See `Store.get`."""
        self.requests["get", resource.kind] += 1
        return decoded(self.objects.record(resource, name, namespace))

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 0,
        continue_token: str = "",
    ) -> ListResult:
        """See `Store.list`. Later pages are of the same version as the first."""
        self.requests["list", resource.kind] += 1
        table = self.objects.table(resource)
        match = both(label_matcher(label_selector), field_matcher(field_selector, resource))
        version, after = page(continue_token) if continue_token else (self.objects.version, ("", ""))
        records = table.at(version) if continue_token else table.records
        keys = table.ordered() if records is table.records else sorted(records)
        raw: list[bytes] = []
        for key in keys:
            if key <= after or (namespace and key[0] != namespace):
                continue
            if match is not None and not match(records[key].obj):
                continue
            if limit and len(raw) == limit:
                return ListResult(tuple(raw), str(version), token(version, after))
            raw.append(records[key].raw)
            after = key if limit else after
        return ListResult(tuple(raw), str(version))

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> EmbeddedWatch:
        """See `Store.watch`. Version "" starts with everything there is as ADDED, then a bookmark."""
        self.requests["watch", resource.kind] += 1
        table = self.objects.table(resource)
        match = both(label_matcher(label_selector), field_matcher(field_selector, resource))
        missed = []
        if resource_version:
            version = version_number(resource_version)
            if version > self.objects.version:
                raise Unavailable(f"Too large resource version: {version}, current: {self.objects.version}")
            missed = list(table.since(version))
        else:
            missed = [Change(r.version, None, r, None) for r in map(table.records.get, table.ordered()) if r]
        watch = EmbeddedWatch(
            table,
            self._clock,
            lambda: self.objects.version,
            namespace=namespace,
            match=match,
            capacity=self._watch_capacity,
            limit_seconds=self._watch_seconds,
        )
        for change in missed:
            if event := as_event(change, namespace, match):
                watch.feed(event)
        if not resource_version:
            watch.feed(bookmark(resource, self.objects.version))
        return watch

    # ---------------------------------------------------------------------------------------------- write

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, dry_run: bool = False
    ) -> JsonObject:
        """See `Store.create`."""
        self.requests["create", resource.kind] += 1
        who = Manager(field_manager, "Update")
        return decoded(self.objects.create(resource, own(obj), who, dry_run=dry_run))

    async def replace(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, subresource: Subresource = ""
    ) -> JsonObject:
        """See `Store.replace`."""
        self.requests["replace", resource.kind] += 1
        new = own(obj)
        meta = header(resource, new)
        name = meta.get("name", "")
        record = self._current(resource, name, meta.get("namespace", ""), subresource)
        if not meta.get("resourceVersion") and (resource.generation or resource.kind == "Lease"):
            fault = wording.invalid("metadata.resourceVersion", 0, "must be specified for an update")
            raise Invalid(wording.is_invalid(resource, name, [fault]), (fault.cause(),))
        self._precondition(resource, record, meta.get("uid", ""), meta.get("resourceVersion", ""))
        return self._updated(resource, record, new, Manager(field_manager, "Update", subresource))

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: JsonObject,
        namespace: str = "",
        *,
        field_manager: str,
        uid: str = "",
        resource_version: str = "",
        subresource: Subresource = "",
    ) -> JsonObject:
        """See `Store.patch`."""
        self.requests["patch", resource.kind] += 1
        record = self._current(resource, name, namespace, subresource)
        wanted = own(patch)
        given = wanted.get("metadata")
        meta = given if isinstance(given, dict) else {}
        self._precondition(
            resource,
            record,
            uid or str(meta.get("uid") or ""),
            resource_version or str(meta.get("resourceVersion") or ""),
        )
        new = merge_patch(record.obj, wanted)
        return self._updated(resource, record, new, Manager(field_manager, "Update", subresource))

    async def apply(
        self,
        resource: Resource,
        obj: JsonObject,
        *,
        field_manager: str,
        force: bool = False,
        subresource: Subresource = "",
    ) -> JsonObject:
        """See `Store.apply`."""
        self.requests["apply", resource.kind] += 1
        wanted = own(obj)
        meta = header(resource, wanted)
        name, namespace = meta.get("name", ""), meta.get("namespace", "")
        who = Manager(field_manager, "Apply", subresource)
        table = self.objects.table(resource)
        record = table.records.get((namespace, name))
        part = ownership.owned_part(wanted, subresource, resource.has_status)
        if record is None:
            return self._apply_new(resource, wanted, part, who)
        self._precondition(resource, record, meta.get("uid", ""), meta.get("resourceVersion", ""))
        live = ownership.owned_part(record.obj, subresource, resource.has_status)
        merged, owners, conflicts = ownership.apply(record.owners, who, live, part, table.shape)
        if conflicts and not force:
            message, causes = ownership.conflict_message(conflicts, resource.api_version)
            raise Conflict(message, causes)
        new = {"apiVersion": resource.api_version, "kind": resource.kind, **merged}
        new["metadata"] = {**merged.get("metadata", {}), "name": name, "namespace": namespace}
        changed = self.objects.update(resource, record, new, who, owners=owners)
        return decoded(changed) if changed else own(new)

    def _apply_new(
        self, resource: Resource, wanted: JsonObject, part: JsonObject, who: Manager
    ) -> JsonObject:
        meta = wanted["metadata"]
        name = meta.get("name", "")
        if who.subresource:
            raise NotFound(wording.not_found(resource, name))
        if meta.get("uid"):
            why = f"uid mismatch: the provided object specified uid {meta['uid']}, and no existing object was found"
            raise conflict(resource, name, why)
        meta.pop("resourceVersion", None)
        _, owners, _ = ownership.apply({}, who, {}, part, self.objects.table(resource).shape)
        return decoded(self.objects.create(resource, wanted, who, owners=owners))

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        propagation: Propagation = "Background",
    ) -> None:
        """See `Store.delete`."""
        self.requests["delete", resource.kind] += 1
        record = self.objects.record(resource, name, namespace)
        if uid and uid != record.uid:
            why = (
                f"the UID in the precondition ({uid}) does not match the UID in record ({record.uid}). "
                "The object might have been deleted and then recreated"
            )
            raise conflict(resource, name, why)
        if resource_version and resource_version != str(record.version):
            why = (
                f"the ResourceVersion in the precondition ({resource_version}) does not match the "
                f"ResourceVersion in record ({record.version}). The object might have been modified"
            )
            raise conflict(resource, name, why)
        self.objects.delete(resource, record, grace_seconds, propagation)

    async def evict(
        self, name: str, namespace: str, *, uid: str = "", grace_seconds: int | None = None
    ) -> None:
        """See `Store.evict`."""
        self.requests["evict", POD.kind] += 1
        record = self.objects.record(POD, name, namespace)
        refused = self._evictions.refusal(record)  # asked before the uid is looked at, as the server does
        if refused is not None:
            raise refused
        if uid in ("", record.uid):
            self._mark_evicted(record)
        try:
            await self.delete(POD, name, namespace, uid=uid, grace_seconds=grace_seconds)
        except Conflict as error:  # the same words, but for the kind's
            raise Conflict(error.message.replace('on pods "', 'on Pod "', 1)) from error

    def _mark_evicted(self, record: Record) -> None:
        status = record.obj["status"]
        kept = [c for c in status.get("conditions", []) if c["type"] != "DisruptionTarget"]
        told = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
            "lastTransitionTime": self.objects.stamps.now(),
        }
        obj = {**record.obj, "status": {**status, "conditions": [*kept, told]}}
        self.objects.force(POD, record, obj, Manager("kube-apiserver", "Update"))

    # ---------------------------------------------------------------------------------------------- scale

    async def served(self, group: str, plural: str) -> tuple[str, ...]:
        """See `Store.served`."""
        return tuple(r.version for r in self.objects.resources if (r.group, r.plural) == (group, plural))

    async def get_scale(self, resource: Resource, name: str, namespace: str = "") -> Scale:
        """See `Store.get_scale`."""
        self.requests["get", f"{resource.kind}/scale"] += 1
        paths = _paths(resource)
        return _scale(self.objects.record(resource, name, namespace), paths)

    async def put_scale(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        replicas: int,
        field_manager: str,
        resource_version: str = "",
    ) -> Scale:
        """See `Store.put_scale`."""
        self.requests["replace", f"{resource.kind}/scale"] += 1
        paths = _paths(resource)
        record = self.objects.record(resource, name, namespace)
        self._precondition(resource, record, "", resource_version)
        value: Any = replicas
        for part in reversed(paths.spec_replicas.split(".")):
            value = {part: value}
        new = merge_patch(record.obj, value)
        changed = self.objects.update(resource, record, new, Manager(field_manager, "Update", "scale"))
        return _scale(changed or record, paths)

    # ----------------------------------------------------------------- what a cluster's controllers do here

    async def bind(self, name: str, namespace: str, *, uid: str, node: str) -> None:
        """POST of a Binding, as a scheduler sends it: sets the pod's node.

        Raises `NotFound`, and `Conflict` when the pod has another uid, is going, gated, or has a node already.
        """
        self.requests["create", "Binding"] += 1
        record = self.objects.record(POD, name, namespace)
        self._precondition(POD, record, uid, "")
        meta, spec = record.obj["metadata"], record.obj["spec"]
        if why := _unbindable(meta, spec, node):
            raise conflict(POD, name, why)
        conditions = [c for c in record.obj["status"].get("conditions", []) if c["type"] != "PodScheduled"]
        scheduled = {
            "type": "PodScheduled",
            "status": "True",
            "lastTransitionTime": self.objects.stamps.now(),
        }
        obj = {
            **record.obj,
            "metadata": {**meta, "labels": {**meta.get("labels", {}), **self._topology(node)}},
            "spec": {**spec, "nodeName": node},
            "status": {**record.obj["status"], "conditions": [*conditions, scheduled]},
        }
        self.objects.force(POD, record, obj, Manager("kube-scheduler", "Update"))

    def _topology(self, node: str) -> dict[str, str]:
        """Labels that a pod has from its node's since 1.35: zone and region."""
        try:
            labels = self.objects.record(NODE, node, "").obj["metadata"].get("labels", {})
        except NotFound:
            return {}
        return {name: labels[name] for name in TOPOLOGY if name in labels}

    async def collect_garbage(self) -> int:
        """One pass of owner garbage collection, of namespace deletion and of the disruption controller; how many
        objects it changed.
        """
        return self._collector.collect() + self._evictions.count()

    # -------------------------------------------------------------------------------------------- helpers

    def _current(self, resource: Resource, name: str, namespace: str, subresource: str) -> Record:
        if subresource and not resource.has_status:
            raise NotFound(f"the server could not find the requested resource ({resource.qualified}/status)")
        return self.objects.record(resource, name, namespace)

    @staticmethod
    def _precondition(resource: Resource, record: Record, uid: str, version: str) -> None:
        name = record.key[1]
        if uid and uid != record.uid:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {record.uid}"
            raise conflict(resource, name, why)
        if version and version != str(record.version):
            raise conflict(resource, name, wording.MODIFIED_MEANWHILE)

    def _updated(self, resource: Resource, record: Record, new: JsonObject, who: Manager) -> JsonObject:
        changed = self.objects.update(resource, record, new, who)
        return decoded(changed) if changed else own(new)


def _unbindable(meta: JsonObject, spec: JsonObject, node: str) -> str:
    if "deletionTimestamp" in meta:
        return f"pod {meta['name']} is being deleted, cannot be assigned to a host"
    if spec.get("schedulingGates"):
        return f"pod {meta['name']} has non-empty .spec.schedulingGates"
    if spec.get("nodeName"):
        return f'pod {meta["name"]} is already assigned to node "{spec["nodeName"]}"'
    return "" if node else f"no node is given for pod {meta['name']}"


def _paths(resource: Resource) -> ScalePaths:
    if resource.scale is None:
        raise NotFound(f"the server could not find the requested resource ({resource.qualified}/scale)")
    return resource.scale


def _scale(record: Record, paths: ScalePaths) -> Scale:
    def read(path: str) -> Any:
        value: Any = record.obj
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value

    return Scale(
        name=record.key[1],
        namespace=record.key[0],
        uid=record.uid,
        resource_version=str(record.version),
        spec_replicas=int(read(paths.spec_replicas) or 0),
        status_replicas=int(read(paths.status_replicas) or 0),
        selector=str(read(paths.selector) or ""),
    )
