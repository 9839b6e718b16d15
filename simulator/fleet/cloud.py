"""Nodes in the store: their objects, their Ready condition, their leases. What a kubelet does for its machine.

Writes are idempotent and tried again at the next tick: a store that does not answer costs time, nothing else.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from controller.store.errors import AlreadyExists, Conflict, NotFound, StoreError
from controller.store.interface import JsonObject, Store
from simulator.fleet.objects import GPU_RESOURCE, LEASE, NODE, NOT_READY, SIMULATED
from simulator.fleet.slices import offers
from simulator.fleet.specs import NodeSpec

logger = logging.getLogger(__name__)

KUBELET = "kubelet"
LEASE_NAMESPACE = "kube-node-lease"
LEASE_DURATION_SECONDS = 40
"""What a kubelet writes into its lease: four missed renewals make a node silent."""


KUBELET_PORT = 10250
MACHINE = {
    "machineID": "",
    "systemUUID": "",
    "bootID": "",
    "kernelVersion": "6.8.0",
    "osImage": "Simulated",
    "containerRuntimeVersion": "simulated://1.0.0",
    "kubeletVersion": "v1.36.3",
    "kubeProxyVersion": "",
    "operatingSystem": "linux",
    "architecture": "amd64",
}
"""What a kubelet tells about its machine (`kubectl get nodes` shows some of it)."""


def utc(seconds: float) -> str:
    """RFC 3339, whole seconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_micro(seconds: float) -> str:
    """RFC 3339 with microseconds, as leases have it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cores(millis: int) -> str:
    """A quantity of CPU as the API server writes it."""
    return f"{millis}m" if millis % 1000 else str(millis // 1000)


def node_object(spec: NodeSpec) -> JsonObject:
    """The machine as its kubelet registers it: labels of feature discovery, capacity, not ready yet."""
    labels = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": "amd64",
        "node.kubernetes.io/instance-type": f"{spec.gpu.product.lower()}-{spec.gpus}x",
        "topology.kubernetes.io/zone": spec.zone,
        "topology.kubernetes.io/region": spec.zone.rpartition("-")[0] or spec.zone,
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": spec.product,
        "nvidia.com/gpu.count": str(spec.gpus),
        "nvidia.com/gpu.memory": str(spec.gpu.memory_bytes // 2**20),
    }
    if spec.island:
        labels["plimsoll.dev/island"] = spec.island
    if spec.pool:
        labels["plimsoll.dev/pool"] = spec.pool
    sliced, marks = offers(spec.slices, spec.product)
    labels |= marks
    resources: JsonObject = {
        GPU_RESOURCE: str(0 if sliced else spec.gpus),
        **sliced,
        "cpu": _cores(spec.cpu_millis or 8_000 * spec.gpus),
        "memory": str(spec.memory_bytes or 64 * 2**30 * spec.gpus),
        "pods": "110",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": spec.name, "labels": labels | spec.labels, "annotations": {SIMULATED: "true"}},
        "spec": {
            "providerID": f"simulated://{spec.zone}/{spec.name}",
            "taints": [{"key": NOT_READY, "effect": "NoSchedule"}],
        },
        "status": {"capacity": resources, "allocatable": dict(resources), "nodeInfo": dict(MACHINE)}
        | {"daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}}},
    }


HEALTHY = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)
"""Type, status, reason and message of the conditions that a healthy kubelet posts."""


def healthy_conditions(now_seconds: float) -> list[JsonObject]:
    """What a healthy kubelet says when it turns ready."""
    at = {"lastHeartbeatTime": utc(now_seconds), "lastTransitionTime": utc(now_seconds)}
    names = ("type", "status", "reason", "message")
    return [dict(zip(names, condition, strict=True)) | at for condition in HEALTHY]


class Registration:
    """One machine's Node and Lease in the store."""

    def __init__(self, store: Store, spec: NodeSpec) -> None:
        self._store = store
        self._spec = spec
        self._registered = False
        self._ready = False
        self._retired = False
        self._lease: JsonObject | None = None
        self._gpus = self._told_gpus = spec.gpus
        self.uid = ""
        """Of the Node object, once registered."""

    @property
    def complete(self) -> bool:
        """Whether all that is to be said about the machine was said."""
        return self._retired or (self._registered and self._ready and self._gpus == self._told_gpus)

    def offer(self, gpus: int) -> None:
        """The device plugin has so many healthy GPUs from now on; a partitioned machine goes on offering its slices."""
        if not self._spec.slices:
            self._gpus = gpus

    def removed(self, uid: str) -> None:
        """Its Node object was deleted: a kubelet does not register again before it is started again."""
        if self._registered and uid == self.uid:
            self._retired = True

    def forget(self) -> None:
        """The kubelet starts anew: it finds its objects, and says Ready again."""
        self._registered = self._ready = self._retired = False
        self._lease = None
        self._gpus = self._spec.gpus

    def not_ready(self) -> None:
        """Somebody else wrote the condition: a living kubelet says Ready again."""
        self._ready = False

    async def tend(self, now_seconds: float, lease_seconds: float | None = None) -> bool:
        """Registers and says Ready where that is missing. False when the store did not take it.

        `lease_seconds` is the time of whoever judges nodes, where that is another one than ours: the lease is renewed by it before
        Ready is said, as a kubelet's is. A life cycle controller goes on from what it knew of an earlier node of that name.
        """
        try:
            if not self._registered:
                await self._register()
            if not self._ready:
                if lease_seconds is not None:
                    await self.renew(lease_seconds)
                await self._say_ready(now_seconds)
            if self._gpus != self._told_gpus:
                await self._say_gpus()
        except StoreError as error:
            logger.info("node %s not written: %s", self._spec.name, error)
            return False
        return True

    async def renew(self, now_seconds: float) -> bool:
        """Renews the lease, under the version it has (the server refuses an update without). False: try again."""
        if self._retired:
            return True
        try:
            if self._lease is None:
                self._lease = await self._own_lease(now_seconds)
                return True
            self._lease["spec"]["renewTime"] = utc_micro(now_seconds)
            self._lease = await self._store.replace(LEASE, self._lease, field_manager=KUBELET)
        except (Conflict, NotFound):
            self._lease = None
            return False
        except StoreError:
            return False
        return True

    async def _register(self) -> None:
        try:
            made = await self._store.create(NODE, node_object(self._spec), field_manager=KUBELET)
        except AlreadyExists:
            made = await self._store.get(NODE, self._spec.name)
        self.uid = made["metadata"]["uid"]
        self._registered = True

    async def _say_ready(self, now_seconds: float) -> None:
        await self._say({"conditions": healthy_conditions(now_seconds)})
        self._ready = True

    async def _say_gpus(self) -> None:
        gpus = self._gpus
        await self._say({"allocatable": {GPU_RESOURCE: str(gpus)}})
        self._told_gpus = gpus

    async def _say(self, status: JsonObject) -> None:
        await self._store.patch(
            NODE,
            self._spec.name,
            {"status": status},
            field_manager=KUBELET,
            uid=self.uid,
            subresource="status",
        )

    async def _own_lease(self, now_seconds: float) -> JsonObject:
        lease: JsonObject = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self._spec.name,
                "namespace": LEASE_NAMESPACE,
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": self._spec.name, "uid": self.uid}
                ],
            },
            "spec": {
                "holderIdentity": self._spec.name,
                "leaseDurationSeconds": LEASE_DURATION_SECONDS,
                "renewTime": utc_micro(now_seconds),
            },
        }
        try:
            return await self._store.create(LEASE, lease, field_manager=KUBELET)
        except AlreadyExists:
            found = await self._store.get(LEASE, self._spec.name, LEASE_NAMESPACE)
            found["spec"]["renewTime"] = utc_micro(now_seconds)
            return await self._store.replace(LEASE, found, field_manager=KUBELET)
