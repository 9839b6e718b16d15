"""What the controller manager does about nodes, on a store that runs no controllers of its own.

A node whose lease is not renewed for 40 s becomes NotReady and gets the unreachable taints; pods that do not
tolerate them are deleted when their toleration ends; pods of a Node that is gone, or that carries the out-of-service
taint, are removed without waiting for a kubelet. Figures: research/test-cluster.md §3.3b, measured on 1.36.3
(NotReady after 40.5 s; when *every* node is silent, nothing is evicted: then the fault is rather ours).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable, Mapping

from controller.store.errors import NotFound, StoreError
from controller.store.interface import JsonObject, Store
from simulator.fleet.cloud import utc
from simulator.fleet.feed import Change
from simulator.fleet.index import PodIndex
from simulator.fleet.objects import (
    NODE,
    NOT_READY,
    OUT_OF_SERVICE,
    POD,
    UNREACHABLE,
    UNSCHEDULABLE,
    Lease,
    Node,
    Pod,
    Taint,
)
from simulator.fleet.scheduler import ControlPlane

logger = logging.getLogger(__name__)

MANAGER = "kube-controller-manager"
LOST = Taint(key=UNREACHABLE, effect="NoExecute")
GRACE_SECONDS = 40.0
"""node-monitor-grace-period of the releases this was measured on."""
OURS = (NOT_READY, UNREACHABLE, UNSCHEDULABLE)
"""Taints that are the node life cycle controller's."""


class NodeLifecycle:
    """Nodes' readiness as their leases show it, and what follows for their pods. Pumped by `step`."""

    def __init__(self, store: Store, plane: ControlPlane, index: PodIndex, nodes: Mapping[str, Node]) -> None:
        self._store = store
        self._plane = plane
        self._index = index
        self._nodes = nodes
        self._heard: dict[str, float] = {}
        self._silent_since: dict[str, float] = {}
        self._tainted_since: dict[tuple[str, str, str], float] = {}
        self.evicted = 0
        self.collected = 0

    def heard(self, changes: Iterable[Change[Lease]], now_seconds: float) -> None:
        """Leases that changed: their nodes live. The clock that counts is the observer's, as in Kubernetes."""
        for change in changes:
            if change.new is not None:
                self._heard[change.new.metadata.name] = now_seconds

    def pardon(self, now_seconds: float) -> None:
        """The store was out of reach: nobody could be heard, so nobody was silent."""
        self._heard = dict.fromkeys(self._heard, now_seconds)

    async def step(self, now_seconds: float) -> None:
        """One look at all nodes. What the store does not take is tried again at the next."""
        for gone in [name for name in self._heard if name not in self._nodes]:
            del self._heard[gone]
            self._silent_since.pop(gone, None)
        await self._judge(now_seconds)
        if len(self._silent_since) < len(self._nodes):
            for name in self._silent_since:
                await self._evict(self._nodes[name], now_seconds)
        for node in self._nodes.values():
            await self._chase(node, now_seconds)
        await self._bury()
        await self._guarded(self._collect())

    async def _judge(self, now_seconds: float) -> None:
        """Conditions and taints of all nodes, and readiness of the pods on silent ones."""
        for name, node in self._nodes.items():
            silent = now_seconds - self._heard.setdefault(name, now_seconds) > GRACE_SECONDS
            if silent:
                self._silent_since.setdefault(name, now_seconds)
            elif name in self._silent_since:
                del self._silent_since[name]
            if silent and node.readiness == "True":
                await self._guarded(self._say_unknown(node, now_seconds))
            if silent:
                for pod in [pod for pod in self._index.pods_on(name).values() if pod.ready]:
                    await self._guarded(self._mark(pod, now_seconds))
            taints = _taints(node, now_seconds, silent=silent or node.readiness == "Unknown")
            if taints is not None:
                await self._guarded(self._taint(node, taints))

    async def _taint(self, node: Node, taints: list[JsonObject]) -> None:
        patch: JsonObject = {"spec": {"taints": taints or None}}
        meta = node.metadata
        await self._store.patch(NODE, meta.name, patch, field_manager=MANAGER, uid=meta.uid)

    async def _say_unknown(self, node: Node, now: float) -> None:
        """Nothing is known of the node any more, and none of its pods counts as ready."""
        unknown: JsonObject = {
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastTransitionTime": utc(now),
        }
        meta = node.metadata
        found = (await self._store.get(NODE, meta.name))["status"].get("conditions", [])
        patch: JsonObject = {"status": {"conditions": [condition | unknown for condition in found]}}
        await self._store.patch(
            NODE, meta.name, patch, field_manager=MANAGER, uid=meta.uid, subresource="status"
        )
        logger.warning("node %s renewed no lease for %.0f s: not ready", meta.name, GRACE_SECONDS)

    async def _mark(self, pod: Pod, now: float) -> None:
        meta = pod.metadata
        found = (await self._store.get(POD, meta.name, meta.namespace))["status"].get("conditions", [])
        turned = {"status": "False", "lastTransitionTime": utc(now)}
        conditions = [each | turned if each["type"] == "Ready" else each for each in found]
        patch: JsonObject = {"status": {"conditions": conditions}}
        await self._store.patch(
            POD, meta.name, patch, meta.namespace, field_manager=MANAGER, uid=meta.uid, subresource="status"
        )

    async def _evict(self, node: Node, now: float) -> None:
        """Deletes pods whose toleration of the node's silence has ended; without a kubelet they stay Terminating."""
        silent_seconds = now - self._silent_since[node.metadata.name]
        for pod in list(self._index.pods_on(node.metadata.name).values()):
            if pod.deleted or silent_seconds < tolerated_seconds(pod, LOST):
                continue
            if await self._guarded(self._delete(pod, None)):
                self.evicted += 1

    async def _chase(self, node: Node, now: float) -> None:
        """Deletes pods that do not stand a NoExecute taint which somebody put on their node, or no longer do."""
        for key in [key for key in self._tainted_since if key[0] == node.metadata.name]:
            if key[1:] not in {(t.key, t.value) for t in chasing(node)}:
                del self._tainted_since[key]
        for taint in chasing(node):
            since = self._tainted_since.setdefault((node.metadata.name, taint.key, taint.value), now)
            for pod in list(self._index.pods_on(node.metadata.name).values()):
                stays = pod.deleted or pod.finished or now - since < tolerated_seconds(pod, taint)
                if not stays and await self._guarded(self._delete(pod, None)):
                    self.evicted += 1

    async def _bury(self) -> None:
        """Pods of nodes that are gone for good: no kubelet will ever finish their deletion."""
        for name in [name for name in self._index.on if self._gone(name)]:
            for pod in list(self._index.pods_on(name).values()):
                if pod.deleted or name not in self._nodes:
                    await self._guarded(self._delete(pod, 0))

    def _gone(self, name: str) -> bool:
        node = self._nodes.get(name)
        return node is None or any(taint.key == OUT_OF_SERVICE for taint in node.spec.taints)

    async def _delete(self, pod: Pod, grace_seconds: int | None) -> None:
        meta = pod.metadata
        await self._store.delete(POD, meta.name, meta.namespace, uid=meta.uid, grace_seconds=grace_seconds)

    async def _collect(self) -> None:
        self.collected += await self._plane.collect_garbage()

    async def _guarded(self, work: Awaitable[None]) -> bool:
        try:
            await work
        except NotFound:
            return False
        except StoreError as error:
            logger.info("node life cycle: %s", error)
            return False
        return True


def chasing(node: Node) -> list[Taint]:
    """NoExecute taints that are not the node life cycle's own: pods that do not stand them are deleted."""
    return [taint for taint in node.spec.taints if taint.effect == "NoExecute" and taint.key not in OURS]


def taints_due(node: Node, *, silent: bool) -> set[tuple[str, str]]:
    """Key and effect of the taints that a node should have from its life cycle."""
    due = {(UNSCHEDULABLE, "NoSchedule")} if node.spec.unschedulable else set()
    if silent:
        return due | {(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")}
    return due if node.readiness == "True" else due | {(NOT_READY, "NoSchedule")}


def _taints(node: Node, now: float, *, silent: bool) -> list[JsonObject] | None:
    """The taints a node should have, or None when it has them."""
    due = taints_due(node, silent=silent)
    if {(taint.key, taint.effect) for taint in node.spec.taints if taint.key in OURS} == due:
        return None
    kept = [taint for taint in node.spec.taints if taint.key not in OURS or (taint.key, taint.effect) in due]
    new = due - {(taint.key, taint.effect) for taint in kept}
    added = [Taint(key=key, effect=effect, time_added=utc(now)) for key, effect in sorted(new)]
    return [_plain(taint) for taint in (*kept, *added)]


def _plain(taint: Taint) -> JsonObject:
    given = {"key": taint.key, "value": taint.value, "effect": taint.effect, "timeAdded": taint.time_added}
    return {name: value for name, value in given.items() if value}


def tolerated_seconds(pod: Pod, taint: Taint) -> float:
    """How long a pod stays on a node with a taint: the least of its tolerations of it; for ever with none finite."""
    found = [t.toleration_seconds for t in pod.spec.tolerations if t.tolerates(taint)]
    if not found:
        return 0.0
    finite = [seconds for seconds in found if seconds is not None]
    return float(min(finite)) if finite else float("inf")
