"""The operator's side: answers for a store in this process, on the same door as the hub.

Who may call is settled by the door (`ROLES`); what a fleet may touch is settled here: it plays kubelet and
scheduler, so the kinds of Kubernetes are its own, and the users' wishes are not.
"""

# ruff: noqa: N802 - methods carry the names of the contract

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol, TypeVar, cast

import grpc
import grpc.aio

from controller.hub.server import Hosted
from controller.resources.base import GROUP
from controller.resources.core import POD
from controller.store.errors import BadRequest, Forbidden, StoreError, TooManyRequests
from controller.store.interface import ListResult, Propagation, Resource, Store, Subresource
from controller.store.interface import Watch as Stream
from controller.store.remote.messages import (
    PAGE_BYTES,
    SERVICE,
    batches,
    decoded,
    encoded,
    fault_of,
    kind_of,
    scale_message,
)
from runtime.authority import Identity, Role
from runtime.tls import caller
from wire import store_pb2 as pb
from wire import store_pb2_grpc

logger = logging.getLogger(__name__)

ROLES = frozenset({Role.ADMIN, Role.FLEET})
MOST_WATCHES = 256
"""Watches at once, of all callers together."""
MOST_LISTED = 500
"""Objects of a page for which no limit was asked."""
PAUSE_SECONDS = 1.0
"""A quiet watch is looked at as often, so that its bookmarks and its end come."""

R = TypeVar("R")
Method = Callable[["StoreServicer", Any, Any], Awaitable[R]]


class ControlPlane(Protocol):
    """What a store that runs no controllers offers to whoever plays them."""

    async def bind(self, name: str, namespace: str, *, uid: str, node: str) -> None:
        """POST of a Binding."""

    async def collect_garbage(self) -> int:
        """One pass of owner garbage collection."""


def _faults_in(reply: Callable[..., R]) -> Callable[[Method[R]], Method[R]]:
    """Faults of a method go into the reply's `fault`. A defect of the store costs one request and is told as such."""

    def wrap(method: Method[R]) -> Method[R]:
        @functools.wraps(method)
        async def answer(servicer: StoreServicer, request: Any, context: Any) -> R:
            try:
                return await method(servicer, request, context)
            except StoreError as error:
                return reply(fault=fault_of(error))
            except Exception as error:
                logger.exception("store: a request could not be answered")
                told = f"the store could not carry this out ({type(error).__name__}); the operator's log says why"
                return reply(fault=fault_of(StoreError(told)))

        return answer

    return wrap


class StoreServicer(store_pb2_grpc.StoreServicer):
    """The service `plimsoll.v1.Store` in front of `store`. `plane` None: nobody may bind or collect garbage."""

    def __init__(
        self,
        store: Store,
        kinds: Iterable[Resource],
        *,
        plane: ControlPlane | None = None,
        most_watches: int = MOST_WATCHES,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._store = store
        self._plane = plane
        self._kinds = {(each.group, each.version, each.kind): each for each in kinds}
        self._most_watches = most_watches
        self._pause_seconds = pause_seconds
        self.life = uuid.uuid4().hex
        """Tells this store from the one that another process of the same address kept before."""
        self.watches = 0
        """Watches that stand now."""
        self.refused = 0
        """Requests refused to a role."""

    def hosted(self) -> Hosted:
        """For the hub's server: this service, open to people's hands and fleets, closed to agents and gateways."""

        def register(server: grpc.aio.Server) -> None:
            store_pb2_grpc.add_StoreServicer_to_server(self, server)

        return Hosted(name=SERVICE, roles=ROLES, register=register)

    # ------------------------------------------------------------------------------------------------ read

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.Description:  # noqa: ARG002
        """What the store does."""
        does = self._store.capabilities
        return pb.Description(
            runs_cel=does.runs_cel,
            runs_controllers=does.runs_controllers,
            shows_managed_fields=does.shows_managed_fields,
            strict_fields=does.strict_fields,
            durable=does.durable,
            life=self.life,
            kinds=[
                pb.Kind(group=each.group, version=each.version, kind=each.kind, plural=each.plural)
                for each in self._kinds.values()
            ],
        )

    @_faults_in(pb.ObjectReply)
    async def Get(self, request: pb.GetRequest, context: Any) -> pb.ObjectReply:
        """See `Store.get`."""
        kind = self._kind(request.kind, context, "get")
        return _object(await self._store.get(kind, request.name, request.namespace))

    @_faults_in(pb.ListReply)
    async def List(self, request: pb.ListRequest, context: Any) -> pb.ListReply:
        """See `Store.list`. A page whose objects would not fit a message is asked for again, with half of them."""
        kind = self._kind(request.kind, context, "list")
        limit = min(request.limit or MOST_LISTED, MOST_LISTED)
        while True:
            page = await self._list(kind, request, limit)
            if len(page.raw_items) <= 1 or sum(map(len, page.raw_items)) <= PAGE_BYTES:
                break
            limit = len(page.raw_items) // 2
        return pb.ListReply(
            objects=page.raw_items,
            resource_version=page.resource_version,
            continue_token=page.continue_token,
        )

    async def _list(self, kind: Resource, request: pb.ListRequest, limit: int) -> ListResult:
        return await self._store.list(
            kind,
            request.namespace,
            label_selector=request.label_selector,
            field_selector=request.field_selector,
            limit=limit,
            continue_token=request.continue_token,
        )

    async def Watch(self, request: pb.WatchRequest, context: Any) -> None:
        """See `Store.watch`: a stream until the store ends it, the caller leaves, or the server stops."""
        try:
            watch = await self._open(request, context)
        except StoreError as error:
            await context.write(pb.WatchReply(fault=fault_of(error)))
            return
        self.watches += 1
        try:
            await context.write(pb.WatchReply(opened=True))
            await self._tell(watch, context)
        except StoreError as error:
            await context.write(pb.WatchReply(fault=fault_of(error)))
        finally:
            self.watches -= 1
            watch.close()

    async def _open(self, request: pb.WatchRequest, context: Any) -> Stream:
        kind = self._kind(request.kind, context, "watch")
        if self.watches >= self._most_watches:
            raise TooManyRequests(
                f"this operator serves {self._most_watches} watches at once and has them all"
            )
        return await self._store.watch(
            kind,
            request.namespace,
            resource_version=request.resource_version,
            label_selector=request.label_selector,
            field_selector=request.field_selector,
        )

    async def _tell(self, watch: Stream, context: Any) -> None:
        while not watch.ended:
            events = watch.drain()
            for batch in batches(events):
                await context.write(batch)
            if not events:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_seconds):
                        await watch.wait()

    # ----------------------------------------------------------------------------------------------- write

    @_faults_in(pb.ObjectReply)
    async def Create(self, request: pb.WriteRequest, context: Any) -> pb.ObjectReply:
        """See `Store.create`."""
        kind, obj = self._kind(request.kind, context, "create"), decoded(request.object)
        made = await self._store.create(
            kind, obj, field_manager=request.field_manager, dry_run=request.dry_run
        )
        return _object(made)

    @_faults_in(pb.ObjectReply)
    async def Replace(self, request: pb.WriteRequest, context: Any) -> pb.ObjectReply:
        """See `Store.replace`."""
        kind, obj = self._kind(request.kind, context, "replace"), decoded(request.object)
        part = _subresource(request.subresource)
        made = await self._store.replace(kind, obj, field_manager=request.field_manager, subresource=part)
        return _object(made)

    @_faults_in(pb.ObjectReply)
    async def Apply(self, request: pb.WriteRequest, context: Any) -> pb.ObjectReply:
        """See `Store.apply`."""
        kind, obj = self._kind(request.kind, context, "apply"), decoded(request.object)
        made = await self._store.apply(
            kind,
            obj,
            field_manager=request.field_manager,
            force=request.force,
            subresource=_subresource(request.subresource),
        )
        return _object(made)

    @_faults_in(pb.ObjectReply)
    async def Patch(self, request: pb.PatchRequest, context: Any) -> pb.ObjectReply:
        """See `Store.patch`."""
        kind = self._kind(request.kind, context, "patch")
        made = await self._store.patch(
            kind,
            request.name,
            decoded(request.patch),
            request.namespace,
            field_manager=request.field_manager,
            uid=request.uid,
            resource_version=request.resource_version,
            subresource=_subresource(request.subresource),
        )
        return _object(made)

    @_faults_in(pb.DoneReply)
    async def Delete(self, request: pb.DeleteRequest, context: Any) -> pb.DoneReply:
        """See `Store.delete`."""
        kind = self._kind(request.kind, context, "delete")
        await self._store.delete(
            kind,
            request.name,
            request.namespace,
            uid=request.uid,
            resource_version=request.resource_version,
            grace_seconds=request.grace_seconds if request.HasField("grace_seconds") else None,
            propagation=_propagation(request.propagation),
        )
        return pb.DoneReply()

    @_faults_in(pb.DoneReply)
    async def Evict(self, request: pb.EvictRequest, context: Any) -> pb.DoneReply:
        """See `Store.evict`."""
        self._kind(kind_of(POD), context, "evict")
        await self._store.evict(
            request.name,
            request.namespace,
            uid=request.uid,
            grace_seconds=request.grace_seconds if request.HasField("grace_seconds") else None,
        )
        return pb.DoneReply()

    # ----------------------------------------------------------------------------------------------- scale

    @_faults_in(pb.ScaleReply)
    async def GetScale(self, request: pb.GetRequest, context: Any) -> pb.ScaleReply:
        """See `Store.get_scale`."""
        kind = self._kind(request.kind, context, "get")
        scale = await self._store.get_scale(kind, request.name, request.namespace)
        return pb.ScaleReply(scale=scale_message(scale))

    @_faults_in(pb.ScaleReply)
    async def PutScale(self, request: pb.PutScaleRequest, context: Any) -> pb.ScaleReply:
        """See `Store.put_scale`."""
        kind = self._kind(request.kind, context, "scale")
        scale = await self._store.put_scale(
            kind,
            request.name,
            request.namespace,
            replicas=request.replicas,
            field_manager=request.field_manager,
            resource_version=request.resource_version,
        )
        return pb.ScaleReply(scale=scale_message(scale))

    # --------------------------------------------------------------------------------------- control plane

    @_faults_in(pb.DoneReply)
    async def Bind(self, request: pb.BindRequest, context: Any) -> pb.DoneReply:
        """Sets a pod's node."""
        plane = self._controllers(context)
        await plane.bind(request.name, request.namespace, uid=request.uid, node=request.node)
        return pb.DoneReply()

    @_faults_in(pb.DoneReply)
    async def CollectGarbage(self, request: pb.CollectGarbageRequest, context: Any) -> pb.DoneReply:  # noqa: ARG002
        """One pass of owner garbage collection."""
        return pb.DoneReply(changed=await self._controllers(context).collect_garbage())

    # --------------------------------------------------------------------------------------------- helpers

    def _kind(self, asked: pb.Kind, context: Any, verb: str) -> Resource:
        """The kind asked for; one that nobody knows goes on to the store, which says so in its own words."""
        found = self._kinds.get((asked.group, asked.version, asked.kind)) or Resource(
            group=asked.group, version=asked.version, kind=asked.kind, plural=asked.plural
        )
        peer = self._peer(context)
        if peer.role is Role.FLEET and found.group == GROUP:
            self.refused += 1
            raise Forbidden(
                f"{found.qualified} is forbidden: {peer.uri} cannot {verb} it; a fleet has the kinds of Kubernetes "
                "alone. Use an admin certificate (`plimsoll pki issue admin NAME`)"
            )
        return found

    def _controllers(self, context: Any) -> ControlPlane:
        if self._plane is None:
            self.refused += 1
            raise Forbidden(
                f"{self._peer(context).uri} cannot play scheduler or garbage collector here: the cluster has its own"
            )
        return self._plane

    @staticmethod
    def _peer(context: Any) -> Identity:
        return caller(context.auth_context())


def _object(obj: Any) -> pb.ObjectReply:
    return pb.ObjectReply(object=encoded(obj))


def _subresource(text: str) -> Subresource:
    if text not in {"", "status"}:
        raise BadRequest(f"no subresource is called {text[:80]!r}: write '' or 'status'")
    return cast("Subresource", text)


def _propagation(text: str) -> Propagation:
    if text not in {"", "Background", "Foreground", "Orphan"}:
        raise BadRequest(f"no propagation is called {text[:80]!r}: write Background, Foreground or Orphan")
    return cast("Propagation", text or "Background")
