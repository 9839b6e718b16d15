"""A PodGroup for each attempt of a gang, where the API server really offers them: then none of its pods is bound alone.

Offered means both: discovery names the kind in a version of which we know the fields, and a pod sent as a dry run comes
back with its `schedulingGroup`. With the feature gate off the server drops that field without a word, even from a
request that asks for strict validation (measured on 1.36.3). Nothing is asked before a gang forms, and nothing again for
`LOOK_AGAIN_SECONDS`. Where there are none, an attempt that is bound in part is ended after its deadline, as ever.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from cluster.base import Ref
from controller.actor.pods import split_key
from controller.observe import labels
from controller.resources.core import POD
from controller.store.errors import (
    AlreadyExists,
    BadRequest,
    Forbidden,
    HeldBack,
    Invalid,
    NotFound,
    StoreError,
)
from controller.store.interface import JsonObject, Resource, Store

log = logging.getLogger("plimsoll.podgroups")

GROUP = "scheduling.k8s.io"
PLURAL = "podgroups"
SPOKEN = ("v1beta1", "v1alpha3")
"""Versions whose fields we know, the preferred one first (of the Kubernetes Python client 37)."""
LOOK_AGAIN_SECONDS = 600.0
"""How long an answer is believed."""
RIGHTS = "helm/plimsoll/files/rbac/optional/pod-groups.yaml"


def resource_of(version: str) -> Resource:
    """The kind in one version."""
    return Resource(group=GROUP, version=version, kind="PodGroup", plural=PLURAL, has_status=True)


def group_of(pods: Sequence[JsonObject], version: str) -> JsonObject:
    """The PodGroup of an attempt's pods: named `<job>-a<attempt>`, owned as they are, of use only to all together."""
    first = pods[0]
    meta = first["metadata"]
    marks = {name: meta["labels"][name] for name in (labels.MANAGED_BY, labels.JOB, labels.ATTEMPT)}
    spec: JsonObject = {"schedulingPolicy": {"gang": {"minCount": len(pods)}}}
    if first["spec"].get("priorityClassName"):
        spec["priorityClassName"] = first["spec"]["priorityClassName"]
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": "PodGroup",
        "metadata": {
            "name": f"{marks[labels.JOB]}-a{marks[labels.ATTEMPT]}",
            "namespace": meta["namespace"],
            "labels": marks,
            "ownerReferences": meta["ownerReferences"],
        },
        "spec": spec,
    }


class PodGroups:
    """Makes an attempt's PodGroup and removes those of earlier ones. Others' are neither changed nor removed."""

    def __init__(self, store: Store) -> None:
        """Bind to a store; nothing is asked yet."""
        self._store = store
        self._offered: Resource | None = None
        self._keeps = False
        """Whether a pod keeps the field; a dry run has told, if the kind is offered."""
        self._tried = False
        self._look_at = float("-inf")
        self.why = ""
        """Why there are none, in words; empty while they are used, and before anybody looked."""

    async def join(self, pods: Sequence[JsonObject], job: Ref, now_seconds: float) -> None:
        """Let an attempt's pods be of one PodGroup, which is made before them; leave them as they are where there is none.

        Raises `Unavailable` and the like when the API server does not answer: the attempt is not to be made then.
        """
        if not await self._usable(pods[0], now_seconds) or self._offered is None:
            return
        group = group_of(pods, self._offered.version)
        await self._tidy(self._offered, job, group["metadata"]["name"])
        try:
            await self._store.create(self._offered, group, field_manager=labels.MANAGER)
        except AlreadyExists:
            if not await self._ours(group):
                name = group["metadata"]["name"]
                log.warning("attempt %s starts without a PodGroup: the name is somebody else's", name)
                return
        except (Forbidden, HeldBack, Invalid, BadRequest, NotFound) as error:
            self._without(f"none can be made ({error.message}); the rights are in {RIGHTS}")
            return
        _name(pods, group["metadata"]["name"])

    async def leave(self, job: Ref, now_seconds: float) -> None:
        """The job has no attempt any more: its PodGroups go. What could not be removed goes with the job."""
        with contextlib.suppress(StoreError):
            await self._look(now_seconds)
            if self._offered is not None:
                await self._tidy(self._offered, job, "")

    async def _look(self, now_seconds: float) -> None:
        """Ask discovery, rarely."""
        if now_seconds < self._look_at:
            return
        served = await self._store.served(GROUP, PLURAL)
        self._look_at = now_seconds + LOOK_AGAIN_SECONDS
        version = next((each for each in SPOKEN if each in served), "")
        self._offered = resource_of(version) if version else None
        self._tried = False
        if self._offered is None:
            others = f"serves them as {', '.join(served)} and" if served else "serves none of"
            self._without(f"the API server {others} {' and '.join(SPOKEN)}, which this operator knows")

    async def _usable(self, pod: JsonObject, now_seconds: float) -> bool:
        """Whether a pod of the attempt keeps the field."""
        await self._look(now_seconds)
        if self._offered is None:
            return False
        if not self._tried:
            self._keeps = await self._kept(pod)
            self._tried = True
            if self._keeps:
                self.why = ""
                log.info("each attempt of a gang gets a PodGroup (%s)", self._offered.api_version)
        return self._keeps

    async def _kept(self, pod: JsonObject) -> bool:
        named = {**pod["metadata"], "name": f"{pod['metadata']['name']}-trial"}
        trial = {**pod, "metadata": named, "spec": {**pod["spec"]}}
        _name([trial], "trial")
        try:
            answer = await self._store.create(POD, trial, field_manager=labels.MANAGER, dry_run=True)
        except (Invalid, BadRequest) as error:
            self._without(f"a pod with spec.schedulingGroup is refused as a dry run ({error.message})")
            return False
        if answer["spec"].get("schedulingGroup") != trial["spec"]["schedulingGroup"]:
            self._without(
                "a pod does not keep its spec.schedulingGroup: the feature gate GenericWorkload is off"
            )
            return False
        return True

    def _without(self, why: str) -> None:
        """There are none, until we look again; said once."""
        self._keeps = False
        if why != self.why:
            log.info("gangs start without a PodGroup: %s", why)
        self.why = why

    async def _ours(self, group: JsonObject) -> bool:
        meta = group["metadata"]
        assert self._offered is not None  # noqa: S101 - one was just made of it
        found = await self._store.get(self._offered, meta["name"], meta["namespace"])
        return _owned(found, meta["ownerReferences"][0]["uid"])

    async def _tidy(self, resource: Resource, job: Ref, keep: str) -> None:
        """Remove what earlier attempts of this very job had, also those that a dead operator began."""
        namespace, name = split_key(job.name)
        mine = f"{labels.MANAGED_BY}=plimsoll,{labels.JOB}={name}"
        try:
            found = (await self._store.list(resource, namespace, label_selector=mine)).items
            for group in found:
                meta = group["metadata"]
                if meta["name"] != keep and "deletionTimestamp" not in meta and _owned(group, job.uid):
                    await self._store.delete(resource, meta["name"], namespace, uid=meta["uid"])
        except StoreError as error:  # they hold nothing, and go with the job at the latest
            log.info("old PodGroups of %s stay for now: %s", job.name, error.message)


def _name(pods: Sequence[JsonObject], group: str) -> None:
    for pod in pods:
        pod["spec"]["schedulingGroup"] = {"podGroupName": group}


def _owned(obj: JsonObject, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences", ()))
