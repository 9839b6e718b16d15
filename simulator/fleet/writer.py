"""Writes what kubelets have to say about pods, and removes the objects of those that have stopped.

Only differences are written. A write that the store does not take is tried again at the next tick; every one
carries the pod's uid, so that it can never hit a later pod of the same name.
"""

from __future__ import annotations

import logging
from ipaddress import ip_address

import msgspec

from cluster.seeds import stable_hash
from controller.store.errors import NotFound, StoreError
from controller.store.interface import JsonObject, Store
from simulator.fleet.cloud import KUBELET, utc
from simulator.fleet.kubelet import Kubelet, Run
from simulator.fleet.objects import ENDPOINT, POD
from simulator.fleet.reports import Report

logger = logging.getLogger(__name__)

SANDBOX = "PodReadyToStartContainers"
"""Condition of a pod that is False while its volumes or its network are not there."""
POD_ADDRESSES = ip_address("198.18.0.0")
"""Of the network for benchmarks (RFC 2544): endpoints of a real API server may not be in the loopback range. Nobody
dials these; an engine's own address stands in an annotation.
"""


def pod_address(key: str) -> str:
    """The address of a pod, the same in every run."""
    return str(POD_ADDRESSES + 1 + stable_hash(key) % (2**17 - 2))


class PodWriter:
    """Status of pods into the store. `writes` counts requests, `failures` those that were not taken."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.writes = 0
        self.failures = 0

    async def flush(self, kubelet: Kubelet, endpoint: str, now_seconds: float) -> None:
        """Write what is due for one node. `endpoint` is host:port of its engines' server."""
        for key in sorted(kubelet.dirty):
            run = kubelet.runs[key]
            try:
                await self._write(run, endpoint, now_seconds)
            except NotFound:
                run.told = run.report  # the watch will tell that it is gone
            except StoreError as error:
                self.failures += 1
                logger.info("pod %s not written: %s", key, error)
                continue
            kubelet.dirty.discard(key)

    async def _write(self, run: Run, endpoint: str, now: float) -> None:
        meta = run.pod.metadata
        if run.gone:
            if meta.finalizers and not run.pod.finished:
                # A kubelet says how the containers ended before it lets the object go; somebody waits to read it.
                run.report = msgspec.structs.replace(run.report, phase="Failed", ready=False)
                self.writes += 1
                await self._say(run, now)
            self.writes += 1
            await self._store.delete(POD, meta.name, meta.namespace, uid=meta.uid, grace_seconds=0)
            return
        if run.report.served and not run.endpoint_told:
            self.writes += 1
            patch: JsonObject = {"metadata": {"annotations": {ENDPOINT: endpoint}}}
            await self._store.patch(
                POD, meta.name, patch, meta.namespace, field_manager=KUBELET, uid=meta.uid
            )
            run.endpoint_told = True
        if run.report != run.told:
            self.writes += 1
            await self._say(run, now)
            run.told = run.report

    async def _say(self, run: Run, now: float) -> None:
        """Apply the status: conditions that are not the kubelet's (gates, disruption) are left as they are."""
        meta = run.pod.metadata
        wanted: JsonObject = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
            "status": status_of(run.report, now, run.key) | {"containerStatuses": _containers(run, now)},
        }
        await self._store.apply(POD, wanted, field_manager=KUBELET, force=True, subresource="status")


def status_of(report: Report, now_seconds: float, key: str) -> JsonObject:
    """A pod's status as its kubelet applies it: what is not there is not so any more."""
    status: JsonObject = {"phase": report.phase, "conditions": _conditions(report, now_seconds)}
    if report.held:
        return status  # only its container says why
    if report.reason:
        status["reason"] = report.reason
    if report.message:
        status["message"] = report.message[:1024]
    if report.phase == "Running":
        address = pod_address(key)
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    if report.started_seconds is not None:
        status["startTime"] = utc(report.started_seconds)
    return status


def _containers(run: Run, now_seconds: float) -> list[JsonObject]:
    """What became of each container: the column READY of `kubectl get pods`, and `kubectl describe`, read it."""
    report = run.report
    began = utc(report.started_seconds if report.started_seconds is not None else now_seconds)
    state: JsonObject = {"waiting": {"reason": report.reason or "ContainerCreating"}}
    if report.message and (report.held or report.fault):
        state["waiting"]["message"] = report.message
    elif report.phase == "Running":
        state = {"running": {"startedAt": began}}
    elif report.phase in {"Succeeded", "Failed"}:
        well = report.phase == "Succeeded"
        state = {
            "terminated": {
                "exitCode": 0 if well else 1,
                "reason": "Completed" if well else "Error",
                "startedAt": began,
                "finishedAt": utc(now_seconds),
            }
        }
    return [
        {
            "name": container.name,
            "image": container.image,
            "imageID": "",
            "ready": report.ready,
            "started": report.phase == "Running",
            "restartCount": report.restarts,
            "state": state,
            "lastState": {},
        }
        for container in run.pod.spec.containers
    ]


def _conditions(report: Report, now_seconds: float) -> list[JsonObject]:
    up = report.ready
    since = report.ready_since_seconds if up else now_seconds
    ready = {"type": "Ready", "status": "True" if up else "False", "lastTransitionTime": utc(since)}
    if not up:
        ready["reason"] = "ContainersNotReady"
    elif report.closed_gates:
        ready |= {"status": "False", "reason": "ReadinessGatesNotReady"}
        ready["message"] = "; ".join(
            f'corresponding condition of pod readiness gate "{gate}" does not exist.'
            for gate in report.closed_gates
        )
    unmounted = {"type": SANDBOX, "status": "False", "lastTransitionTime": utc(now_seconds)}
    return [
        *([unmounted] if report.unmounted else []),
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": utc(now_seconds)},
        {"type": "ContainersReady", "status": "True" if up else "False", "lastTransitionTime": utc(since)},
        ready,
    ]
