"""Kubernetes Events out of reasons: written when a reason is news, one object a (code, subject, choice)."""

from __future__ import annotations

import logging
from typing import Any

from cluster.reasons import Reason, render
from cluster.seeds import stable_hash
from controller.actor.pods import split_key
from controller.observe import labels
from controller.resources.base import API_VERSION
from controller.resources.core import EVENT
from controller.store.errors import AlreadyExists, NotFound, StoreError
from controller.store.interface import Store
from controller.telling.clock_text import rfc3339

log = logging.getLogger("plimsoll.events")

OURS = frozenset({"ModelService", "TrainingJob", "PowerDomain", "AcceleratorClass", "AcceleratorNode"})
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


async def write_event(store: Store, event: dict[str, Any]) -> None:
    """Create the event, or count it up when it exists. An event that cannot be written is logged, never retried."""
    meta = event["metadata"]
    try:
        await store.create(EVENT, event, field_manager=labels.MANAGER)
    except AlreadyExists:
        try:
            found = await store.get(EVENT, meta["name"], meta["namespace"])
            patch = {
                "count": int(found.get("count", 1)) + 1,
                "message": event["message"],
                "lastTimestamp": event["lastTimestamp"],
            }
            await store.patch(EVENT, meta["name"], patch, meta["namespace"], field_manager=labels.MANAGER)
        except NotFound:
            return
        except StoreError as error:
            log.warning("event %s not counted up: %s", meta["name"], error)
    except StoreError as error:
        log.warning("event %s not written: %s", meta["name"], error)
