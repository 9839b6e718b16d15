"""Kubernetes Events out of reasons: written when a reason is news, one object a (code, subject, choice)."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any

from cluster.reasons import Reason, render
from cluster.seeds import stable_hash
from controller.actor.pods import split_key
from controller.observe import labels
from controller.resources.base import API_VERSION
from controller.resources.core import EVENT
from controller.store.errors import AlreadyExists, HeldBack, NotFound, StoreError
from controller.store.interface import Store
from controller.telling.clock_text import rfc3339

log = logging.getLogger("plimsoll.events")

OURS = frozenset({"ModelService", "TrainingJob", "PowerDomain", "AcceleratorClass", "AcceleratorNode"})
EVENTS_KNOWN = 8_192
"""Events of which it is remembered that they are there."""
MESSAGE_LIMIT = 1024
"""Bytes of an event's message, as the API server bounds it."""


def cut(text: str) -> str:
    """The text within the limit of bytes, never in the middle of a character."""
    return text.encode()[:MESSAGE_LIMIT].decode(errors="ignore")


def event_object(reason: Reason, uid: str, now_seconds: float, epoch: int) -> dict[str, Any]:
    """The Event of one reason. Cluster-scoped subjects' events live in `default`, as kubelet's do."""
    namespace, name = split_key(reason.subject.name)
    stamp = rfc3339(now_seconds)
    digest = (
        f"{stable_hash(reason.code, str(reason.subject.kind), reason.subject.name, uid, reason.choice):016x}"
    )
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{name[:200].rstrip('-.')}.{digest}", "namespace": namespace or "default"},
        "involvedObject": {
            "apiVersion": API_VERSION if reason.subject.kind in OURS else "v1",
            "kind": reason.subject.kind,
            "namespace": namespace,
            "name": name,
            "uid": uid,
        },
        "reason": reason.code,
        "message": cut(render(reason)),
        "type": reason.severity,
        "count": reason.count,
        "source": {"component": "plimsoll"},
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "reportingComponent": "plimsoll.dev/operator",
        "reportingInstance": f"epoch-{epoch}",
    }


class Events:
    """Writes events: created once, counted up when the same comes again.

    One that this process wrote is counted up by one request; of a predecessor's the count is read first. One that
    cannot be written is logged, never retried: the ledger has it.
    """

    def __init__(self, store: Store) -> None:
        """Bind to a store."""
        self._store = store
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def write(self, event: dict[str, Any]) -> None:
        """Write one."""
        key = (event["metadata"]["namespace"], event["metadata"]["name"])
        try:
            count = self._counts.get(key)
            if count is None or not await self._counted(key, event, count):
                count = await self._made(key, event)
        except HeldBack:
            return
        except StoreError as error:
            log.warning("event %s not written: %s", key[1], error)
            return
        self._counts[key] = count + 1
        self._counts.move_to_end(key)
        while len(self._counts) > EVENTS_KNOWN:
            self._counts.popitem(last=False)

    async def _made(self, key: tuple[str, str], event: dict[str, Any]) -> int:
        """Create it, or count up the one that is there; how often it had been told before."""
        try:
            await self._store.create(EVENT, event, field_manager=labels.MANAGER)
        except AlreadyExists:
            namespace, name = key
            found = await self._store.get(EVENT, name, namespace)
            count = int(found.get("count", 1))
            await self._counted(key, event, count)
            return count
        return 0

    async def _counted(self, key: tuple[str, str], event: dict[str, Any], count: int) -> bool:
        """Count it up; False when it is not there any more (events live for an hour)."""
        patch = {"count": count + 1, "message": event["message"], "lastTimestamp": event["lastTimestamp"]}
        namespace, name = key
        try:
            await self._store.patch(EVENT, name, patch, namespace, field_manager=labels.MANAGER)
        except NotFound:
            return False
        return True


async def write_event(store: Store, event: dict[str, Any]) -> None:
    """Write one event of somebody who writes few."""
    await Events(store).write(event)
