"""The seam between the operator and whatever keeps its objects.

Two implementations stand behind `Store`: the embedded one (`controller.store.embedded`, one process, no
I/O) and the Kubernetes API server. Everything here is therefore worded as the API server words it: plain
JSON objects, `resourceVersion` as an opaque string, optimistic locks answered with 409, watches that end
and must be resumed, server-side apply with one owner per field.

Objects travel as UTF-8 JSON (`raw`) and are decoded by whoever reads them: a reader gets its own copy and
cannot change what the store holds, and a cache can decode straight into a typed projection without ever
building the dictionaries it does not need.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal, Protocol

import msgspec

from controller.store.errors import (
    RETRYABLE,
    AlreadyExists,
    BadRequest,
    Cause,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NotFound,
    StoreError,
    TooLarge,
    TooManyRequests,
    Unavailable,
)

__all__ = [
    "RETRYABLE",
    "AlreadyExists",
    "BadRequest",
    "Capabilities",
    "Cause",
    "Conflict",
    "EventType",
    "Forbidden",
    "Gone",
    "Invalid",
    "JsonObject",
    "ListResult",
    "NotFound",
    "Propagation",
    "Resource",
    "Scale",
    "ScalePaths",
    "Store",
    "StoreError",
    "Subresource",
    "TooLarge",
    "TooManyRequests",
    "Unavailable",
    "Watch",
    "WatchEvent",
]

JsonObject = dict[str, Any]
"""One Kubernetes object (or a part of one) as decoded JSON."""

Subresource = Literal["", "status"]
"""Which part of an object a write may touch: "" is everything but status, "status" is status alone."""

Propagation = Literal["Background", "Foreground", "Orphan"]
"""What happens to the dependents of a deleted object; the same words as the API's propagationPolicy."""


class ScalePaths(msgspec.Struct, frozen=True, kw_only=True):
    """Where the scale subresource of a kind finds its numbers; dotted paths inside the object."""

    spec_replicas: str = "spec.replicas"
    status_replicas: str = "status.replicas"
    selector: str = "status.selector"


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of object as the API addresses it. Hashable; used as a key everywhere.

    `selectable` lists the dotted fields that a field selector may name beside metadata.name and
    metadata.namespace; the server refuses others. `generation` says whether metadata.generation counts
    changes of the specification (true of every custom resource).
    """

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    has_status: bool = False
    generation: bool = False
    scale: ScalePaths | None = None
    selectable: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """`group/version`, or the version alone for the core group: the object's apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """`plural.group` as the server's messages write it (`pods`, `modelservices.plimsoll.dev`)."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        """`Kind.group` as validation messages write it (`ModelService.plimsoll.dev`)."""
        return f"{self.kind}.{self.group}" if self.group else self.kind


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What an implementation of the store really does, so that callers and tests need not guess.

    `runs_cel`: evaluates the CEL rules of a custom resource's schema. `runs_controllers`: garbage
    collector, scheduler and node life cycle run by themselves (otherwise somebody pumps them).
    `shows_managed_fields`: metadata.managedFields is present on reads. `strict_fields`: unknown fields are
    refused rather than dropped. `durable`: objects survive the process. `remote`: an answer may take seconds, so
    whoever must not wait asks in the background. `streams_lists`: a watch from version "" brings everything there is
    as ADDED, then a bookmark annotated `k8s.io/initial-events-end` (a server may still refuse it: `Invalid`).
    """

    runs_cel: bool
    runs_controllers: bool
    shows_managed_fields: bool
    strict_fields: bool
    durable: bool
    remote: bool = False
    streams_lists: bool = False


class EventType(StrEnum):
    """Types of watch events."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


class WatchEvent(msgspec.Struct, frozen=True):
    """One change, as UTF-8 JSON of the whole object after it (before it, for DELETED).

    The object of a BOOKMARK holds nothing but kind, apiVersion and metadata.resourceVersion.
    `resource_version` is repeated outside so that a reader need not decode for it.
    """

    type: EventType
    resource_version: str
    raw: bytes

    @property
    def object(self) -> JsonObject:
        """The object, decoded anew at every call: the caller owns the result."""
        decoded: JsonObject = msgspec.json.decode(self.raw)
        return decoded


class ListResult(msgspec.Struct, frozen=True):
    """One page of a list. `continue_token` is empty on the last page.

    `resource_version` is the version of the whole collection: a watch from it misses nothing.
    """

    raw_items: tuple[bytes, ...]
    resource_version: str
    continue_token: str = ""

    @property
    def items(self) -> tuple[JsonObject, ...]:
        """The objects, decoded anew at every call: the caller owns the result."""
        return tuple(msgspec.json.decode(raw) for raw in self.raw_items)


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """The scale subresource: what `kubectl scale` and an HPA see of an object."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    spec_replicas: int
    status_replicas: int
    selector: str


class Watch(Protocol):
    """A stream of events that is pumped by its reader.

    A stream ends for ordinary reasons (the server's time limit, a reader too slow for its buffer): the
    reader resumes from the last version it saw.
    """

    @property
    def ended(self) -> bool:
        """True once the stream is over and everything that came before its end was drained."""

    def drain(self) -> Sequence[WatchEvent]:
        """Everything that has arrived since the last call, oldest first; never waits.

        Raises `Gone` when the version asked for is no longer kept, and `Unavailable` when the connection
        broke; in both cases only after the events before the fault were handed out, and once.
        """

    async def wait(self) -> None:
        """Return when `drain` has something to say (events, an error or the end)."""

    def close(self) -> None:
        """Give the stream up. `drain` returns nothing afterwards; closing twice is harmless."""


class Store(Protocol):
    """Objects of all kinds, with the API server's semantics.

    Every method may raise `Unavailable` (no answer), `TooManyRequests` and `Forbidden`; what else it
    raises stands with it. A namespace of "" means *all* for list and watch, and *none* (a cluster-scoped
    object) elsewhere.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What this implementation does."""

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JsonObject:
        """The object now. Raises `NotFound`."""

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
        """One page, ordered by namespace and name. `limit` 0 means everything.

        Raises `Gone` for a continue token that is too old and `BadRequest` for a malformed selector.
        """

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Watch:
        """Every change after `resource_version`, with bookmarks. Raises `Gone` (now or from `drain`)."""

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, dry_run: bool = False
    ) -> JsonObject:
        """POST. Raises `AlreadyExists`, `Invalid`, `BadRequest` (unknown field), `NotFound` (namespace)."""

    async def replace(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, subresource: Subresource = ""
    ) -> JsonObject:
        """PUT under the object's own resourceVersion. Raises `NotFound`, `Conflict`, `Invalid`."""

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
        """JSON merge patch (null removes). A uid or version given must match, else `Conflict`.

        Raises `NotFound`, `Conflict`, `Invalid`.
        """

    async def apply(
        self,
        resource: Resource,
        obj: JsonObject,
        *,
        field_manager: str,
        force: bool = False,
        subresource: Subresource = "",
    ) -> JsonObject:
        """Server-side apply: this manager wants exactly these fields.

        Raises `Conflict` with one cause per field that another manager holds at another value, unless
        `force`. Applying to an object that was deleted *creates it again*; only `metadata.uid` in `obj`
        turns that into a `Conflict` (measured on 1.36.3). The status of an absent object is `NotFound`.
        """

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
        """Ask for deletion. The object stays, with a deletionTimestamp, while finalizers or a running
        pod's grace period hold it. Raises `NotFound`, `Conflict` (uid or version differ).
        """

    async def evict(
        self, name: str, namespace: str, *, uid: str = "", grace_seconds: int | None = None
    ) -> None:
        """Ask for a pod's end by the Eviction API: as `delete`, unless a PodDisruptionBudget stands against it.

        Raises `NotFound`, `Conflict` (the uid differs), `TooManyRequests` (not now; its causes name the budget and its
        numbers), and `StoreError` for a pod under several budgets, which eviction does not serve.
        """

    async def served(self, group: str, plural: str) -> tuple[str, ...]:
        """Versions in which a kind of somebody else's is offered; empty when it is not. No right is needed to ask."""

    async def get_scale(self, resource: Resource, name: str, namespace: str = "") -> Scale:
        """The scale subresource. Raises `NotFound` (also when the kind has none)."""

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
        """Set the wanted number of replicas. Raises `NotFound`, `Conflict`, `Invalid`."""
