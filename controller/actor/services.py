"""Kubernetes Services of our objects: kept as they should be, owned by the user's object, never taken from others.

Neither is in a request's way: clients talk to the gateways, which own their streams (DESIGN §6). A ModelService's is
headless over its ready replicas, for scraping and for looking at one; a TrainingJob's is headless over its ranks, and
gives them the host names that their rendezvous needs.
"""

from __future__ import annotations

import logging
from typing import Any

from cluster.base import Ref
from cluster.reasons import Quantity, Reason, Verdict
from controller.actor.pods import (
    ENGINE_PORT,
    RENDEZVOUS_PORT,
    engines_name,
    label_value,
    owner_reference,
    ranks_name,
    split_key,
)
from controller.observe import labels
from controller.observe.world import World
from controller.resources.core import SERVICE, ServiceObject
from controller.store.errors import AlreadyExists, Conflict, HeldBack, NotFound, StoreError
from controller.store.interface import JsonObject, Resource, Store

log = logging.getLogger("plimsoll.services")

RETRY_SECONDS = 10.0
"""How long a Service that could not be written is left alone."""
WRITES_PER_ROUND = 50
ENDED = ("Succeeded", "Failed")


def engines_service(key: str, uid: str) -> JsonObject:
    """The Service over a ModelService's ready replicas."""
    namespace, name = split_key(key)
    spec = {
        "clusterIP": "None",
        "selector": {labels.SERVICE: name},
        "ports": [{"name": "http", "port": ENGINE_PORT, "targetPort": ENGINE_PORT, "protocol": "TCP"}],
    }
    return _service(engines_name(name), namespace, owner_reference("ModelService", key, uid), spec)


def ranks_service(key: str, uid: str) -> JsonObject:
    """The Service that names a TrainingJob's ranks. Ranks look for each other before any of them is ready."""
    namespace, name = split_key(key)
    port = {"name": "rendezvous", "port": RENDEZVOUS_PORT, "targetPort": RENDEZVOUS_PORT, "protocol": "TCP"}
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {labels.JOB: name},
        "ports": [port],
    }
    return _service(ranks_name(name), namespace, owner_reference("TrainingJob", key, uid), spec)


def _service(name: str, namespace: str, owner: JsonObject, spec: JsonObject) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {
                labels.MANAGED_BY: "plimsoll",
                **{k: label_value(v) for k, v in spec["selector"].items()},
            },
            "ownerReferences": [owner],
        },
        "spec": spec,
    }


class Services:
    """Creates what is missing, mends what was changed, and says what somebody else holds."""

    def __init__(self, store: Store) -> None:
        """Bind to a store."""
        self._store = store
        self._not_before: dict[str, float] = {}
        self.taken: dict[tuple[str, str], str] = {}
        """Our objects by (kind, key) whose Service's name is somebody else's: the Service's key."""

    async def keep(self, world: World, now_seconds: float) -> list[tuple[Resource, JsonObject]]:
        """Bring a bounded number of Services to what they should be; those written, as they were answered."""
        self._not_before = {key: at for key, at in self._not_before.items() if at > now_seconds}
        wanted = _wanted(world)
        self.taken = {of: key for of, key in self.taken.items() if of in wanted}
        written: list[tuple[Resource, JsonObject]] = []
        for of, service in wanted.items():
            meta = service["metadata"]
            key = f"{meta['namespace']}/{meta['name']}"
            found: ServiceObject | None = world.objects["Service"].get(key)
            if key in self._not_before or (found is not None and _as_wanted(found, service)):
                continue
            if len(written) >= WRITES_PER_ROUND:
                break
            answer = await self._write(of, key, found, service)
            if answer is None:
                self._not_before[key] = now_seconds + RETRY_SECONDS
            else:
                self.taken.pop(of, None)
                written.append((SERVICE, answer))
        return written

    async def _write(
        self, of: tuple[str, str], key: str, found: ServiceObject | None, service: JsonObject
    ) -> JsonObject | None:
        meta = service["metadata"]
        try:
            if found is None:
                return await self._store.create(SERVICE, service, field_manager=labels.MANAGER)
            if _owner_uid(found) != meta["ownerReferences"][0]["uid"]:
                return None  # of a predecessor of the same name: the garbage collector takes it
            theirs = dict.fromkeys(found.spec.get("selector", {}))  # null removes what is not wanted
            spec = {**service["spec"], "selector": {**theirs, **service["spec"]["selector"]}}
            patch = {"metadata": {"labels": meta["labels"]}, "spec": spec}
            return await self._store.patch(
                SERVICE,
                meta["name"],
                patch,
                meta["namespace"],
                field_manager=labels.MANAGER,
                uid=found.metadata.uid,
            )
        except AlreadyExists:
            # Ours are in the cache, by their label; so this one is somebody else's, or the cache is late.
            self.taken[of] = key
        except (NotFound, Conflict, HeldBack):
            return None
        except StoreError as error:
            log.warning("Service %s not written: %s", key, error)
        return None

    def reasons(self, world: World) -> list[Reason]:
        """What to tell the owners of objects whose Service's name is taken."""
        return [
            Reason(
                code="ServiceNameTaken",
                subject=world.subject(kind, key),
                verdict=Verdict.BLOCKED,
                choice=service,
                need=Quantity("owned", 1.0, "objects"),
                have=Quantity("found", 0.0, "objects"),
                refs=(Ref("Service", service),),
            )
            for (kind, key), service in sorted(self.taken.items())
            if not _ours(world, service)
        ]


def _ours(world: World, key: str) -> bool:
    return key in world.objects["Service"]


def _wanted(world: World) -> dict[tuple[str, str], JsonObject]:
    """The Service of every object that still lives, by the object's kind and key."""
    found: dict[tuple[str, str], JsonObject] = {}
    for key, obj in sorted(world.objects["ModelService"].items()):
        if obj.metadata.deletion_timestamp is None and not _held(world, "services", key):
            found["ModelService", key] = engines_service(key, obj.metadata.uid)
    for key, obj in sorted(world.objects["TrainingJob"].items()):
        ended = obj.status.phase in ENDED or _held(world, "jobs", key)
        if obj.metadata.deletion_timestamp is None and not ended:
            found["TrainingJob", key] = ranks_service(key, obj.metadata.uid)
    return found


def _held(world: World, mapping: str, key: str) -> bool:
    """Whether an object is left as it is, and its Service with it."""
    noun = world.observer.live(mapping).get(key)
    return noun is not None and bool(noun.held)


def _as_wanted(found: ServiceObject, service: JsonObject) -> bool:
    owner = service["metadata"]["ownerReferences"][0]["uid"]
    selects = found.spec.get("selector") == service["spec"]["selector"]
    return _owner_uid(found) == owner and selects and _covers(found.spec, service["spec"])


def _owner_uid(found: ServiceObject) -> str:
    return found.metadata.owner_references[0].uid if found.metadata.owner_references else ""


def _covers(has: Any, wanted: Any) -> bool:
    """Whether `has` says all that is wanted; what the server filled in beside it is the server's."""
    if isinstance(wanted, dict):
        return isinstance(has, dict) and all(
            name in has and _covers(has[name], entry) for name, entry in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(has, list) and len(has) == len(wanted) and all(map(_covers, has, wanted))
    return bool(has == wanted)
