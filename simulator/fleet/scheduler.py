"""Binds pods where nobody else does: on a store that runs no controllers of its own.

It decides as kube-scheduler does, reduced to what this fleet can run into: the node must exist, be ready, not be
cordoned, have no taint that the pod does not tolerate, and have room for what the pod's containers ask for. A pod
that was told its devices by number waits for those very ones. What does not fit stays Pending.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import msgspec

from controller.store.errors import StoreError
from simulator.fleet.index import PodIndex, Seat
from simulator.fleet.objects import Node, Pod, Taint, offered

logger = logging.getLogger(__name__)

SCHEDULER = "kube-scheduler"
_EPSILON = 1e-9


@runtime_checkable
class ControlPlane(Protocol):
    """What a cluster does by itself, offered by a store that does not do it unasked."""

    async def bind(self, name: str, namespace: str, *, uid: str, node: str) -> None:
        """POST of a Binding: sets the pod's node. Raises `Conflict` when it has one or its uid differs, `NotFound`."""

    async def collect_garbage(self) -> int:
        """Deletes objects whose owners are gone, once; how many were removed or changed."""


class Fitting:
    """Which node a waiting pod fits on, and why on none: what a scheduler must find, whoever it is."""

    def __init__(self, index: PodIndex, nodes: Mapping[str, Node]) -> None:
        self._index = index
        self._nodes = nodes
        self.why: dict[str, str] = {}
        """Why each waiting pod waits, by key."""

    def waiting(self) -> list[Pod]:
        """Pods that want a node, most important first."""
        found = self._index.waiting
        self.why = {key: text for key, text in self.why.items() if key in found}
        return [found[key] for key in sorted(found, key=lambda key: (-found[key].spec.priority, key))]

    def place(self, pod: Pod) -> str:
        """The node it fits on; empty, with the reason in `why`, when there is none."""
        seat = self._index.seat(pod)
        pinned = pod.pinned_to
        candidates = [pinned] if pinned else sorted(self._nodes)
        why = ""
        for name in candidates:
            why = self._obstacle(pod, seat, name)
            if not why:
                self.why.pop(pod.metadata.key, None)
                return name
        where = f"node {pinned}" if pinned else f"any of {len(candidates)} nodes"
        self.why[pod.metadata.key] = f"not on {where}: {why or 'there are none'}"
        return ""

    def _obstacle(self, pod: Pod, seat: Seat, name: str) -> str:
        """What keeps a pod off a node; empty when nothing does."""
        node = self._nodes.get(name)
        if node is None:
            return "there is no such node"
        if node.readiness != "True":
            return "it is not ready"
        if node.spec.unschedulable:
            return "it is cordoned"
        if any(node.metadata.labels.get(k) != v for k, v in pod.spec.node_selector.items()):
            return "its labels do not match"
        repelling = repels(node, pod)
        if repelling is not None:
            return f"its taint {repelling.key}:{repelling.effect} is not tolerated"
        return self._shortage(seat, node)

    def _shortage(self, seat: Seat, node: Node) -> str:
        used, devices = self._index.used(node.metadata.name)
        wanted = {**seat.requests, "pods": 1.0}
        for resource, quantity in wanted.items():
            free = offered(node, resource) - used.get(resource, 0.0)
            if quantity > free + _EPSILON:
                return f"{quantity:g} of {resource} are asked for, {max(free, 0.0):g} are free"
        filled = self._index.filled(node.metadata.name)
        full = (index for index in seat.devices if filled.get(index, 0) + seat.milli > 1_000)
        clash = next(full, None)
        if clash is not None:
            return f"device {clash} is held by {devices[clash]}"
        return ""


class Scheduler:
    """Looks at waiting pods whenever a pod came, a pod left or a node changed."""

    def __init__(self, plane: ControlPlane, index: PodIndex, nodes: Mapping[str, Node]) -> None:
        self._plane = plane
        self._index = index
        self._fitting = Fitting(index, nodes)
        self.bound = 0

    @property
    def why(self) -> Mapping[str, str]:
        """Why each waiting pod waits, by key."""
        return self._fitting.why

    async def step(self) -> list[str]:
        """Binds what fits, most important first; returns the keys of the pods that were bound."""
        bound = []
        for pod in self._fitting.waiting():
            node = self._fitting.place(pod)
            if node and await self._bind(pod, node):
                bound.append(pod.metadata.key)
        return bound

    async def _bind(self, pod: Pod, node: str) -> bool:
        meta = pod.metadata
        try:
            await self._plane.bind(meta.name, meta.namespace, uid=meta.uid, node=node)
        except StoreError as error:
            logger.info("pod %s not bound: %s", meta.key, error)
            return False
        self.bound += 1
        # The watch will tell; until then the seat must not be given twice.
        self._index.put(msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, node_name=node)))
        return True


def repels(node: Node, pod: Pod) -> Taint | None:
    """The first taint of a node that keeps a pod from being bound to it."""
    for taint in node.spec.taints:
        if taint.effect in {"NoSchedule", "NoExecute"} and not any(
            toleration.tolerates(taint) for toleration in pod.spec.tolerations
        ):
            return taint
    return None
