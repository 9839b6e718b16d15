"""`RemoteStore`: the store seam over the operator's door.

Every call has a deadline; what the store answers comes back as the same typed errors as from a store in this
process, and no answer at all is `Unavailable`. The connection mends itself; a broken watch is for its reader to
resume, as with the API server.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import grpc
import grpc.aio

from controller.store.errors import Gone, Unavailable
from controller.store.interface import (
    Capabilities,
    JsonObject,
    ListResult,
    Propagation,
    Resource,
    Scale,
    Subresource,
)
from controller.store.remote.messages import (
    STORE_PLANE,
    decoded,
    encoded,
    error_of,
    kind_of,
    scale_of,
    unanswered,
)
from controller.store.remote.watching import RemoteWatch
from runtime.authority import Credentials, Identity, Role
from runtime.channels import Limits, dial
from wire import store_pb2 as pb
from wire import store_pb2_grpc

OPERATOR = Identity(Role.OPERATOR, "hub")
DEADLINE_SECONDS = 10.0
LIST_TRIES = 3
"""How often a list without limit begins again when its pages grew too old meanwhile."""


class RemoteStore:
    """Objects of the operator at `endpoint`. Made by `connect`; belongs to the event loop it was made in.

    It is a control plane too (`bind`, `collect_garbage`), since the store it reaches runs no controllers of its own.
    """

    def __init__(
        self, channel: grpc.aio.Channel, endpoint: str, *, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        self.endpoint = endpoint
        self._channel: Any = channel
        self._stub: Any = store_pb2_grpc.StoreStub(channel)
        self._deadline_seconds = deadline_seconds
        self._capabilities: Capabilities | None = None
        self._watches: weakref.WeakSet[RemoteWatch] = weakref.WeakSet()
        self.kinds: tuple[tuple[str, str, str], ...] = ()
        """(group, version, kind) of what the store holds."""
        self.life = ""
        """Of the store that answered `describe` last: it differs when the store began anew, empty."""

    @classmethod
    async def connect(
        cls,
        endpoint: str,
        credentials: Credentials,
        *,
        operator: Identity = OPERATOR,
        limits: Limits = STORE_PLANE,
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> RemoteStore:
        """Reach the store at host:port. Raises: `Unavailable`; `Forbidden` to an identity that may not use it."""
        store = cls(
            dial(endpoint, credentials, operator, limits), endpoint, deadline_seconds=deadline_seconds
        )
        try:
            await store.describe()
        except BaseException:
            await store.close()
            raise
        return store

    async def close(self) -> None:
        """End all streams and the connection."""
        for watch in list(self._watches):
            watch.close()
        await self._channel.close()

    async def describe(self) -> Capabilities:
        """Ask the store what it does; `capabilities` remembers the answer."""
        answer = await self._ask(self._stub.Describe, pb.DescribeRequest(), "describe the store")
        self.kinds = tuple((each.group, each.version, each.kind) for each in answer.kinds)
        self.life = answer.life
        self._capabilities = Capabilities(
            runs_cel=answer.runs_cel,
            runs_controllers=answer.runs_controllers,
            shows_managed_fields=answer.shows_managed_fields,
            strict_fields=answer.strict_fields,
            durable=answer.durable,
        )
        return self._capabilities

    @property
    def capabilities(self) -> Capabilities:
        """What the store said of itself. Raises `Unavailable` before it was ever reached."""
        if self._capabilities is None:
            raise Unavailable(f"the operator at {self.endpoint} has not been reached yet: call connect first")
        return self._capabilities

    # ----------------------------------------------------------------------------------------------- read

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JsonObject:
        """See `Store.get`."""
        request = pb.GetRequest(kind=kind_of(resource), name=name, namespace=namespace)
        return await self._object(self._stub.Get, request, f"get {resource.qualified}")

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
        """See `Store.list`. A page may hold fewer than `limit`, when more would not fit a message."""
        request = pb.ListRequest(
            kind=kind_of(resource),
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            limit=limit,
            continue_token=continue_token,
        )
        if limit:
            return await self._page(request, resource)
        for left in reversed(range(LIST_TRIES)):
            try:
                return await self._pages(request, resource)
            except Gone:
                if not left or continue_token:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _pages(self, request: pb.ListRequest, resource: Resource) -> ListResult:
        """All pages from the request's token on, of one version."""
        objects: list[bytes] = []
        asked = pb.ListRequest()
        asked.CopyFrom(request)
        while True:
            page = await self._page(asked, resource)
            objects.extend(page.raw_items)
            if not page.continue_token:
                return ListResult(tuple(objects), page.resource_version)
            asked.continue_token = page.continue_token

    async def _page(self, request: pb.ListRequest, resource: Resource) -> ListResult:
        reply = await self._ask(self._stub.List, request, f"list {resource.qualified}")
        return ListResult(tuple(reply.objects), reply.resource_version, reply.continue_token)

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> RemoteWatch:
        """See `Store.watch`."""
        request = pb.WatchRequest(
            kind=kind_of(resource),
            namespace=namespace,
            resource_version=resource_version,
            label_selector=label_selector,
            field_selector=field_selector,
        )
        doing = f"watch {resource.qualified}"
        watch = RemoteWatch(self._stub.Watch(request), self.endpoint, doing)
        await watch.opened(self._deadline_seconds)
        self._watches.add(watch)
        return watch

    # ---------------------------------------------------------------------------------------------- write

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, dry_run: bool = False
    ) -> JsonObject:
        """See `Store.create`."""
        request = pb.WriteRequest(
            kind=kind_of(resource), object=encoded(obj), field_manager=field_manager, dry_run=dry_run
        )
        return await self._object(self._stub.Create, request, f"create {resource.qualified}")

    async def replace(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, subresource: Subresource = ""
    ) -> JsonObject:
        """See `Store.replace`."""
        request = pb.WriteRequest(
            kind=kind_of(resource), object=encoded(obj), field_manager=field_manager, subresource=subresource
        )
        return await self._object(self._stub.Replace, request, f"replace {resource.qualified}")

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
        request = pb.PatchRequest(
            kind=kind_of(resource),
            name=name,
            namespace=namespace,
            patch=encoded(patch),
            field_manager=field_manager,
            uid=uid,
            resource_version=resource_version,
            subresource=subresource,
        )
        return await self._object(self._stub.Patch, request, f"patch {resource.qualified}")

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
        request = pb.WriteRequest(
            kind=kind_of(resource),
            object=encoded(obj),
            field_manager=field_manager,
            subresource=subresource,
            force=force,
        )
        return await self._object(self._stub.Apply, request, f"apply {resource.qualified}")

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
        request = pb.DeleteRequest(
            kind=kind_of(resource),
            name=name,
            namespace=namespace,
            uid=uid,
            resource_version=resource_version,
            grace_seconds=grace_seconds,
            propagation=propagation,
        )
        await self._ask(self._stub.Delete, request, f"delete {resource.qualified}")

    async def evict(
        self, name: str, namespace: str, *, uid: str = "", grace_seconds: int | None = None
    ) -> None:
        """See `Store.evict`."""
        request = pb.EvictRequest(name=name, namespace=namespace, uid=uid, grace_seconds=grace_seconds)
        await self._ask(self._stub.Evict, request, "evict a pod")

    # ---------------------------------------------------------------------------------------------- scale

    async def served(self, group: str, plural: str) -> tuple[str, ...]:
        """See `Store.served`. The store behind the door holds our kinds and Kubernetes' own, and nobody else's."""
        del group, plural
        return ()

    async def get_scale(self, resource: Resource, name: str, namespace: str = "") -> Scale:
        """See `Store.get_scale`."""
        request = pb.GetRequest(kind=kind_of(resource), name=name, namespace=namespace)
        reply = await self._ask(self._stub.GetScale, request, f"get the scale of {resource.qualified}")
        return scale_of(reply.scale)

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
        request = pb.PutScaleRequest(
            kind=kind_of(resource),
            name=name,
            namespace=namespace,
            replicas=replicas,
            field_manager=field_manager,
            resource_version=resource_version,
        )
        reply = await self._ask(self._stub.PutScale, request, f"scale {resource.qualified}")
        return scale_of(reply.scale)

    # -------------------------------------------------------------------------------------- control plane

    async def bind(self, name: str, namespace: str, *, uid: str, node: str) -> None:
        """POST of a Binding: sets the pod's node. Raises `Conflict` when it has one or its uid differs, `NotFound`."""
        request = pb.BindRequest(name=name, namespace=namespace, uid=uid, node=node)
        await self._ask(self._stub.Bind, request, "bind a pod")

    async def collect_garbage(self) -> int:
        """One pass of owner garbage collection; how many objects were removed or changed."""
        reply = await self._ask(self._stub.CollectGarbage, pb.CollectGarbageRequest(), "collect garbage")
        return int(reply.changed)

    # -------------------------------------------------------------------------------------------- helpers

    async def _object(self, method: Any, request: Any, doing: str) -> JsonObject:
        return decoded((await self._ask(method, request, doing)).object)

    async def _ask(self, method: Any, request: Any, doing: str) -> Any:
        """One call with its deadline; faults of the store and of the way to it as the store's errors."""
        try:
            reply = await method(request, timeout=self._deadline_seconds)
        except (grpc.RpcError, asyncio.InvalidStateError) as error:
            raise unanswered(error, self.endpoint, doing) from error
        if "fault" in reply.DESCRIPTOR.fields_by_name and reply.HasField("fault"):
            raise error_of(reply.fault)
        return reply
