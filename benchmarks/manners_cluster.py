"""The cluster of the benchmark `manners`: nodes without kubelets, somebody who does kubelets' work, the audit log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.base import BenchmarkError
from console.controlplane.components import Component
from controller.resources.core import NODE, POD
from controller.resources.kinds import MODEL_SERVICE
from controller.store.errors import Conflict, NotFound, StoreError
from controller.store.interface import JsonObject, Resource
from controller.store.kube import KubeStore

SPACE, FULL, USER = "manners", "manners-full", "plimsoll-manners"
MANAGER = "benchmark"
AT_ONCE = 16
AUDIT = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, users: [USER]}
  - {level: None}
"""
GATE = "plimsoll.dev/registered"


def audited(folder: Path) -> dict[str, list[str]]:
    """Flags of a control plane whose audit log has what the operator asked."""
    policy = folder / "audit.yaml"
    policy.write_text(AUDIT.replace("USER", USER))
    return {
        Component.API_SERVER: [
            f"--audit-policy-file={policy}",
            f"--audit-log-path={folder / 'audit.log'}",
            "--audit-log-mode=blocking",
        ],
        Component.CONTROLLER_MANAGER: ["--node-monitor-grace-period=3600s"],
    }


def requests_seen(folder: Path) -> dict[str, float]:
    """Requests of the operator by the audit log: id to wall time at which it was received."""
    found: dict[str, float] = {}
    for line in (folder / "audit.log").read_text().splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            stamp = msgspec.convert(event["requestReceivedTimestamp"], type=datetime)
            found[event["auditID"]] = stamp.timestamp()
    return found


# ---------------------------------------------------------------------------------------------------------- objects


def node_name(number: int) -> str:
    """Name of a node."""
    return f"node-{number:04d}"


def node(number: int, gpus: int) -> JsonObject:
    """A node as a kubelet registers it."""
    offered = {"nvidia.com/gpu": str(gpus), "cpu": "64", "memory": "512Gi", "pods": "110"}
    marks = {"kubernetes.io/hostname": node_name(number), "nvidia.com/gpu.product": "NVIDIA-L4"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node_name(number), "labels": marks},
        "status": {"capacity": offered, "allocatable": offered, "conditions": [ready_now()]},
    }


def ready_now() -> JsonObject:
    """A kubelet's heartbeat."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status",
        "lastHeartbeatTime": stamp, "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip


def product() -> JsonObject:
    """The nodes' product."""
    pool = {"name": "l4", "dollarsPerGpuHour": 0.8, "pricedAt": "2026-07-20", "source": "list"}
    return {
        "apiVersion": MODEL_SERVICE.api_version,
        "kind": "AcceleratorClass",
        "metadata": {"name": "l4"},
        "spec": {
            "displayName": "L4", "aliases": ["NVIDIA-L4"], "memoryBytes": 25_769_803_776,
            "bandwidthBytesPerSecond": 300_000_000_000, "flops": {"bf16": 121.0e12}, "minWatts": 40, "maxWatts": 72,
            "tdpWatts": 72, "safeWatts": 60, "pools": [pool],
        },
    }  # fmt: skip


def service(name: str, namespace: str, replicas: int) -> JsonObject:
    """A service of an exact size."""
    return {
        "apiVersion": MODEL_SERVICE.api_version,
        "kind": "ModelService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "model": {"name": "llama-3.2-3b"}, "mode": "Off", "replicas": replicas, "minReplicas": 0,
            "variants": [{"accelerator": "l4"}],
            "objectives": [{"class": "default", "ttftSeconds": 5.0, "tpotSeconds": 0.2, "percentile": 0.95}],
            "expectedLoad": {"requestsPerSecond": 1.0, "inputTokens": 1155, "outputTokens": 211},
        },
    }  # fmt: skip


async def together(work: Iterable[Awaitable[Any]]) -> None:
    """All of it, a few at a time."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(each: Awaitable[Any]) -> None:
        async with free:
            await each

    await asyncio.gather(*(one(each) for each in work))


async def made(store: KubeStore, resource: Resource, objects: Iterable[JsonObject]) -> None:
    """Create them all."""
    await together(store.create(resource, obj, field_manager=MANAGER) for obj in objects)


# --------------------------------------------------------------------------------------------------------- kubelets


class Kubelets:
    """What kubelets do for pods of ours: containers come up at once, readiness follows gates, deletions end."""

    def __init__(self, store: KubeStore) -> None:
        self._store = store
        self.ready: dict[str, str] = {}
        """Image of each ready pod by namespace/name."""

    async def run(self) -> None:
        """Until cancelled."""
        since = (await self._store.list(POD)).resource_version
        busy: set[asyncio.Task[None]] = set()
        while True:
            with contextlib.suppress(StoreError):
                watch = await self._store.watch(POD, resource_version=since)
                while not watch.ended:
                    await watch.wait()
                    for event in watch.drain():
                        since = event.resource_version
                        task = asyncio.create_task(self._seen(event.type.value, event.object))
                        busy.add(task)
                        task.add_done_callback(busy.discard)

    async def _seen(self, kind: str, pod: JsonObject) -> None:
        meta = pod["metadata"]
        if kind == "BOOKMARK":
            return
        key = f"{meta.get('namespace')}/{meta['name']}"
        if kind == "DELETED" or meta.get("deletionTimestamp"):
            self.ready.pop(key, None)
        if kind == "DELETED" or not pod["spec"].get("nodeName"):
            return
        with contextlib.suppress(NotFound, Conflict):
            if meta.get("deletionTimestamp"):
                await self._store.delete(
                    POD, meta["name"], meta["namespace"], grace_seconds=0, uid=meta["uid"]
                )
                return
            await self._up(key, pod)

    async def _up(self, key: str, pod: JsonObject) -> None:
        has = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
        gates = [g["conditionType"] for g in pod["spec"].get("readinessGates", [])]
        open_now = all(has.get(gate) == "True" for gate in gates)
        if has.get("Ready") == "True":
            self.ready[key] = pod["spec"]["containers"][0]["image"]
        elif has.get("ContainersReady") != "True" or open_now:
            others = [c for c in pod["status"].get("conditions", []) if c["type"] in (*gates, "PodScheduled")]
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            own = [
                {"type": "Initialized", "status": "True", "lastTransitionTime": stamp},
                {"type": "ContainersReady", "status": "True", "lastTransitionTime": stamp},
                {"type": "Ready", "status": "True" if open_now else "False", "lastTransitionTime": stamp},
            ]
            patch = {"status": {"phase": "Running", "conditions": [*others, *own]}}
            meta = pod["metadata"]
            await self._store.patch(
                POD, meta["name"], patch, meta["namespace"], field_manager="kubelet", subresource="status",
                uid=meta["uid"], resource_version=meta["resourceVersion"],
            )  # fmt: skip


async def heartbeats(store: KubeStore, nodes: int, every_seconds: float = 300.0) -> None:
    """Each node's status every five minutes, as kubelets write it when nothing changes. Until cancelled."""
    while True:
        for number in range(nodes):
            patch = {"status": {"conditions": [ready_now()]}}
            with contextlib.suppress(StoreError):
                await store.patch(
                    NODE, node_name(number), patch, field_manager="kubelet", subresource="status"
                )
            await asyncio.sleep(every_seconds / nodes)


async def until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for it. Raises: BenchmarkError."""
    try:
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - a count is waited for
                await asyncio.sleep(0.1)
    except TimeoutError as error:
        raise BenchmarkError(f"Not within {seconds:g} s: {what}.") from error
