"""A store in front of another one: every request passes one place, where it can be counted or disturbed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from controller.resources.core import POD
from controller.store.interface import (
    Capabilities,
    JsonObject,
    ListResult,
    Propagation,
    Resource,
    Scale,
    Store,
    Subresource,
    Watch,
)

T = TypeVar("T")

API_GROUP = Resource(group="", version="v1", kind="APIGroup", plural="apis", namespaced=False)
"""What discovery is asked for."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request as it passes. `name` is empty for list and watch."""

    verb: str
    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def mutating(self) -> bool:
        """True for a request that may change an object."""
        return self.verb not in {"get", "list", "watch"}

    def __str__(self) -> str:
        """`verb Kind namespace/name`."""
        target = "/".join(part for part in (self.namespace, self.name) if part)
        below = f"/{self.subresource}" if self.subresource else ""
        return f"{self.verb} {self.resource.kind}{below} {target}".rstrip()


def _meta(obj: JsonObject) -> tuple[str, str]:
    meta = obj.get("metadata") or {}
    return str(meta.get("namespace", "")), str(meta.get("name") or meta.get("generateName", ""))


class InterposedStore:
    """Passes everything on to `inner`. Subclasses override `send` (and `watching` for streams)."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner

    async def send(self, request: Request, answer: Callable[[], Awaitable[T]]) -> T:
        """Carry out one request; `answer` sends it to the inner store and may be called at most once."""
        del request
        return await answer()

    def watching(self, request: Request, watch: Watch) -> Watch:
        """The stream that the caller gets for the inner one."""
        del request
        return watch

    @property
    def capabilities(self) -> Capabilities:
        """The inner store's."""
        return self.inner.capabilities

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JsonObject:
        """See `Store.get`."""
        request = Request(verb="get", resource=resource, namespace=namespace, name=name)
        return await self.send(request, lambda: self.inner.get(resource, name, namespace))

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
        """See `Store.list`."""
        request = Request(verb="list", resource=resource, namespace=namespace)
        return await self.send(
            request,
            lambda: self.inner.list(
                resource,
                namespace,
                label_selector=label_selector,
                field_selector=field_selector,
                limit=limit,
                continue_token=continue_token,
            ),
        )

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Watch:
        """See `Store.watch`."""
        request = Request(verb="watch", resource=resource, namespace=namespace)
        stream = await self.send(
            request,
            lambda: self.inner.watch(
                resource,
                namespace,
                resource_version=resource_version,
                label_selector=label_selector,
                field_selector=field_selector,
            ),
        )
        return self.watching(request, stream)

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, dry_run: bool = False
    ) -> JsonObject:
        """See `Store.create`."""
        namespace, name = _meta(obj)
        request = Request(verb="create", resource=resource, namespace=namespace, name=name)
        return await self.send(
            request,
            lambda: self.inner.create(resource, obj, field_manager=field_manager, dry_run=dry_run),
        )

    async def replace(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, subresource: Subresource = ""
    ) -> JsonObject:
        """See `Store.replace`."""
        namespace, name = _meta(obj)
        request = Request(
            verb="replace", resource=resource, namespace=namespace, name=name, subresource=subresource
        )
        return await self.send(
            request,
            lambda: self.inner.replace(resource, obj, field_manager=field_manager, subresource=subresource),
        )

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
        request = Request(
            verb="patch", resource=resource, namespace=namespace, name=name, subresource=subresource
        )
        return await self.send(
            request,
            lambda: self.inner.patch(
                resource,
                name,
                patch,
                namespace,
                field_manager=field_manager,
                uid=uid,
                resource_version=resource_version,
                subresource=subresource,
            ),
        )

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
        namespace, name = _meta(obj)
        request = Request(
            verb="apply", resource=resource, namespace=namespace, name=name, subresource=subresource
        )
        return await self.send(
            request,
            lambda: self.inner.apply(
                resource, obj, field_manager=field_manager, force=force, subresource=subresource
            ),
        )

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
        request = Request(verb="delete", resource=resource, namespace=namespace, name=name)
        return await self.send(
            request,
            lambda: self.inner.delete(
                resource,
                name,
                namespace,
                uid=uid,
                resource_version=resource_version,
                grace_seconds=grace_seconds,
                propagation=propagation,
            ),
        )

    async def evict(
        self, name: str, namespace: str, *, uid: str = "", grace_seconds: int | None = None
    ) -> None:
        """See `Store.evict`."""
        request = Request(verb="create", resource=POD, namespace=namespace, name=name, subresource="eviction")
        return await self.send(
            request, lambda: self.inner.evict(name, namespace, uid=uid, grace_seconds=grace_seconds)
        )

    async def served(self, group: str, plural: str) -> tuple[str, ...]:
        """See `Store.served`."""
        request = Request(verb="get", resource=API_GROUP, name=group)
        return await self.send(request, lambda: self.inner.served(group, plural))

    async def get_scale(self, resource: Resource, name: str, namespace: str = "") -> Scale:
        """See `Store.get_scale`."""
        request = Request(verb="get", resource=resource, namespace=namespace, name=name, subresource="scale")
        return await self.send(request, lambda: self.inner.get_scale(resource, name, namespace))

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
        request = Request(
            verb="replace", resource=resource, namespace=namespace, name=name, subresource="scale"
        )
        return await self.send(
            request,
            lambda: self.inner.put_scale(
                resource,
                name,
                namespace,
                replicas=replicas,
                field_manager=field_manager,
                resource_version=resource_version,
            ),
        )
