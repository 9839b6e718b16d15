"""`KubeStore`: the store seam over a Kubernetes API server.

The official client finds the server, proves who we are and carries the requests; lists and watches come as bytes and
stay bytes until a reader decodes what it needs of them (research: ecosystem §2.4). Answers that are no success are the
store's errors with the server's own sentences; no answer is `Unavailable`, and whether a write happened is then unknown.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from controller.resources.core import POD
from controller.store.errors import BadRequest, Conflict, Gone, Invalid
from controller.store.interface import (
    Capabilities,
    JsonObject,
    ListResult,
    Propagation,
    Resource,
    Scale,
    Subresource,
)
from controller.store.kube import offering, paths
from controller.store.kube.access import Access
from controller.store.kube.budget import Budget
from controller.store.kube.objects import (
    addressed,
    conditioned,
    name_of,
    object_of,
    other_uid,
    scale_of,
    words,
    writing,
)
from controller.store.kube.splitting import page_of
from controller.store.kube.transport import DEADLINE_SECONDS, SILENCE_SECONDS, Asked, Parameters, Transport
from controller.store.kube.watching import KubeWatch
from runtime.clock import Clock, WallClock

CAPABILITIES = Capabilities(
    runs_cel=True,
    runs_controllers=True,
    shows_managed_fields=True,
    strict_fields=True,
    durable=True,
    remote=True,
    streams_lists=True,
)
PAGE = 500
LIST_TRIES = 3
"""How often a list without limit begins again when its pages grew too old meanwhile."""

STATUS_TRIES = 3
"""How often a status is written again when its object changed between look and write."""

WATCH_SECONDS = (300.0, 600.0)
"""The server ends a watch after a time drawn from here: those of many clients do not end together."""

MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


class KubeStore:
    """Objects on an API server. Made by `connect`; belongs to the event loop it is first used in.

    `requests` counts what was asked, by (verb, kind); `transport.sent` counts what was sent, `watched_bytes` what
    all watches brought.
    """

    def __init__(self, transport: Transport, rng: random.Random) -> None:
        self.transport = transport
        self.requests: Counter[tuple[str, str]] = Counter()
        self._random = rng
        self._watches: set[KubeWatch] = set()
        self.watched_bytes = 0

    @classmethod
    async def connect(  # noqa: PLR0913 - options have defaults
        cls,
        kubeconfig: Path | None = None,
        context: str | None = None,
        *,
        in_cluster: bool = False,
        clock: Clock | None = None,
        seed: int | None = None,
        budget: Budget | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        silence_seconds: float = SILENCE_SECONDS,
        agent: str = "plimsoll",
    ) -> KubeStore:
        """A store as a kubeconfig (or the pod's account) says. Nothing is asked of the server yet.

        Without `kubeconfig`: $KUBECONFIG, else ~/.kube/config. `agent` is the User-Agent (`plimsoll/<version>`).
        `clock` is for budget and back-off and must be a wall clock. Raises: AccessError.
        """
        rng = random.Random(seed)
        if in_cluster:
            access = Access.in_cluster(agent=agent)
        else:
            access = await Access.from_kubeconfig(kubeconfig, context, agent=agent)
        transport = Transport(
            access,
            clock or WallClock(),
            rng,
            budget=budget,
            deadline_seconds=deadline_seconds,
            silence_seconds=silence_seconds,
        )
        return cls(transport, rng)

    def _hear(self, count: int) -> None:
        self.watched_bytes += count

    async def close(self) -> None:
        """End all streams and connections; harmless twice."""
        for watch in tuple(self._watches):
            await watch.closed()
        await self.transport.close()

    @property
    def capabilities(self) -> Capabilities:
        """A real API server does everything."""
        return CAPABILITIES

    # ----------------------------------------------------------------------------------------------- read

    async def get(self, resource: Resource, name: str, namespace: str = "") -> JsonObject:
        """See `Store.get`."""
        self.requests["get", resource.kind] += 1
        doing = f"get {resource.qualified} {name!r}"
        return object_of(await self.transport.read(paths.member(resource, name, namespace), {}, doing), doing)

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
        """See `Store.list`. Without a limit the pages are fetched one by one, all of one version."""
        bounds: dict[str, str | int | bool | None] = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
        }
        if limit:
            return await self._page(resource, namespace, bounds, limit, continue_token)
        for left in reversed(range(LIST_TRIES)):
            try:
                return await self._pages(resource, namespace, bounds, continue_token)
            except Gone:
                if not left or continue_token:
                    raise
        raise AssertionError("the last try returns or raises")

    async def _pages(
        self,
        resource: Resource,
        namespace: str,
        bounds: dict[str, str | int | bool | None],
        token: str,
    ) -> ListResult:
        items: list[bytes] = []
        while True:
            page = await self._page(resource, namespace, bounds, PAGE, token)
            items.extend(page.raw_items)
            token = page.continue_token
            if not token:
                return ListResult(tuple(items), page.resource_version)

    async def _page(
        self,
        resource: Resource,
        namespace: str,
        bounds: dict[str, str | int | bool | None],
        limit: int,
        token: str,
    ) -> ListResult:
        self.requests["list", resource.kind] += 1
        body = await self.transport.read(
            paths.collection(resource, namespace),
            {**bounds, "limit": limit, "continue": token},
            f"list {resource.qualified}",
            page=True,
        )
        return page_of(body, resource)

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> KubeWatch:
        """See `Store.watch`. Version "" begins with everything there is as ADDED, then a bookmark whose annotation
        `k8s.io/initial-events-end` ends it (a streaming list; `Invalid` from servers that offer none).
        """
        self.requests["watch", resource.kind] += 1
        doing = f"watch {resource.qualified}"
        whole: dict[str, str | int | bool | None] = {
            "sendInitialEvents": True,
            "resourceVersionMatch": "NotOlderThan",
        }
        response = await self.transport.stream(
            paths.collection(resource, namespace),
            {
                "watch": True,
                "allowWatchBookmarks": True,
                "resourceVersion": resource_version,
                "timeoutSeconds": int(self._random.uniform(*WATCH_SECONDS)),
                "labelSelector": label_selector,
                "fieldSelector": field_selector,
                **({} if resource_version else whole),
            },
            doing,
        )
        endpoint = self.transport.access.endpoint
        watch = KubeWatch(response, endpoint, doing, over=self._watches.discard, heard=self._hear)
        self._watches.add(watch)
        return watch

    # ---------------------------------------------------------------------------------------------- write

    async def create(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, dry_run: bool = False
    ) -> JsonObject:
        """See `Store.create`."""
        self.requests["create", resource.kind] += 1
        body, namespace = addressed(resource, obj)
        if body["metadata"].get("resourceVersion"):
            raise BadRequest("resourceVersion should not be set on objects to be created")
        parameters = writing(field_manager) | {"dryRun": "All" if dry_run else None}
        doing = f"create {resource.qualified}"
        path = paths.collection(resource, namespace)
        return await self._write("POST", path, parameters, body, doing)

    async def replace(
        self, resource: Resource, obj: JsonObject, *, field_manager: str, subresource: Subresource = ""
    ) -> JsonObject:
        """See `Store.replace`."""
        self.requests["replace", resource.kind] += 1
        body, namespace = addressed(resource, obj)
        path = paths.member(resource, name_of(obj), namespace, subresource)
        doing = words("replace", resource, subresource, name_of(obj))
        return await self._write("PUT", path, writing(field_manager), body, doing)

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
        """See `Store.patch`. Preconditions travel in the patch's own metadata."""
        self.requests["patch", resource.kind] += 1
        path = paths.member(resource, name, namespace, subresource)
        doing = words("patch", resource, subresource, name)
        parameters = writing(field_manager)

        async def send(uid: str, version: str) -> JsonObject:
            body = conditioned(patch, uid, version)
            return await self._write("PATCH", path, parameters, body, doing, MERGE_PATCH)

        if uid and not resource_version and subresource and resource.generation:
            return await self._compared(resource, path, uid, doing, send)
        return await _meant_for(resource, name, uid, send(uid, resource_version))

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
        body, namespace = addressed(resource, obj)
        path = paths.member(resource, name_of(obj), namespace, subresource)
        doing = words("apply", resource, subresource, name_of(obj))
        parameters = writing(field_manager) | {"force": force}
        given: JsonObject = body["metadata"]
        uid = str(given.get("uid") or "")

        async def send(uid: str, version: str) -> JsonObject:
            sent = conditioned(body, uid, version)
            return await self._write("PATCH", path, parameters, sent, doing, APPLY_PATCH)

        if uid and not given.get("resourceVersion") and subresource and resource.generation:
            return await self._compared(resource, path, uid, doing, send)
        return await _meant_for(resource, given["name"], uid, send("", ""))

    async def _compared(
        self,
        resource: Resource,
        path: str,
        uid: str,
        doing: str,
        send: Callable[[str, str], Awaitable[JsonObject]],
    ) -> JsonObject:
        """A custom resource's status endpoint drops a uid given to it, but minds a version: so look, then compare.

        (Measured on 1.36.3: merge patch and apply of a status with another metadata.uid are both accepted.)
        """
        for left in reversed(range(STATUS_TRIES)):
            meta = object_of(await self.transport.read(path, {}, doing), doing)["metadata"]
            if meta["uid"] != uid:
                raise other_uid(resource, meta["name"], uid)
            try:
                return await send("", meta["resourceVersion"])
            except Conflict as error:
                if not left or error.causes:
                    raise
        raise AssertionError("the last try returns or raises")

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
        options: JsonObject = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        conditions = {"uid": uid, "resourceVersion": resource_version}
        if kept := {key: value for key, value in conditions.items() if value}:
            options["preconditions"] = kept
        path = paths.member(resource, name, namespace)
        await self._write("DELETE", path, {}, options, words("delete", resource, "", name))

    async def evict(
        self, name: str, namespace: str, *, uid: str = "", grace_seconds: int | None = None
    ) -> None:
        """See `Store.evict`."""
        self.requests["evict", POD.kind] += 1
        options: JsonObject = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid:
            options["preconditions"] = {"uid": uid}
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": options,
        }
        path = paths.member(POD, name, namespace, "eviction")
        await self._write("POST", path, {}, body, words("evict", POD, "", name))

    # ---------------------------------------------------------------------------------------------- scale

    async def served(self, group: str, plural: str) -> tuple[str, ...]:
        """See `Store.served`."""
        self.requests["discover", plural] += 1
        return await offering.served(self.transport, group, plural)

    async def get_scale(self, resource: Resource, name: str, namespace: str = "") -> Scale:
        """See `Store.get_scale`."""
        self.requests["get_scale", resource.kind] += 1
        doing = words("get", resource, "scale", name)
        path = paths.member(resource, name, namespace, "scale")
        return scale_of(object_of(await self.transport.read(path, {}, doing), doing))

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
        self.requests["put_scale", resource.kind] += 1
        doing = words("scale", resource, "scale", name)
        path = paths.member(resource, name, namespace, "scale")
        body = conditioned({"spec": {"replicas": replicas}}, "", resource_version)
        return scale_of(await self._write("PATCH", path, writing(field_manager), body, doing, MERGE_PATCH))

    async def _write(
        self,
        method: str,
        path: str,
        parameters: Parameters,
        body: JsonObject,
        doing: str,
        content_type: str = "application/json",
    ) -> JsonObject:
        asked = Asked(
            method=method, path=path, parameters=parameters, doing=doing, body=body, content_type=content_type
        )
        return object_of(await self.transport.write(asked), doing)


async def _meant_for(resource: Resource, name: str, uid: str, write: Awaitable[JsonObject]) -> JsonObject:
    """The server calls another uid an immutable field that somebody tried to change: it is a conflict."""
    try:
        return await write
    except Invalid as error:
        if uid and any(cause.field == "metadata.uid" for cause in error.causes):
            raise other_uid(resource, name, uid) from error
        raise
