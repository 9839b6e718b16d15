"""Which nodes take pods of one service or job: what its volumes reach, its tolerations stand, and its CPU fits into.

What a node takes at all (its `offer`) and which devices are free on it is asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cluster.drops import Drop
from cluster.hardware import Node, Slot
from cluster.overlay import Overlay
from cluster.space import Space
from cluster.taints import Toleration, unstood

UNSTOOD = "taints that its pods do not tolerate"


class Wishes(Protocol):
    """What a service and a job say about where their pods can be."""

    @property
    def tolerates(self) -> tuple[Toleration, ...]:
        """Taints that the pods stand."""

    @property
    def confined_to(self) -> tuple[str, ...] | None:
        """Nodes that the pods' volumes can be reached from; None: any."""

    @property
    def confined_by(self) -> str:
        """What confines them, in words."""

    @property
    def cpu_millis(self) -> int:
        """CPU of one pod."""

    @property
    def memory_bytes(self) -> int:
        """Memory of one pod."""


class Fence:
    """The nodes that one service or job may use."""

    __slots__ = ("_names", "_nodes", "_stood", "who")

    def __init__(self, who: Wishes, nodes: Mapping[str, Node]) -> None:
        self.who = who
        self._nodes = nodes
        self._names = None if who.confined_to is None else frozenset(who.confined_to)
        self._stood: dict[tuple[object, ...], bool] = {}

    def permits(self, name: str) -> bool:
        """Whether volumes and taints let the pods onto a node."""
        node = self._nodes.get(name)
        if node is None or (self._names is not None and node.machine not in self._names):
            return False
        if not node.taints:
            return True
        found = self._stood.get(node.taints)
        if found is None:
            found = self._stood[node.taints] = unstood(node.taints, self.who.tolerates) is None
        return found

    def admits(self, name: str, space: Space) -> bool:
        """Whether a pod may go there now: its CPU and memory are free as well."""
        return (
            self.who.cpu_millis <= max(0, space.free_cpu_millis(name))
            and self.who.memory_bytes <= max(0, space.free_memory_bytes(name))
            and self.permits(name)
        )

    def pods_on(self, name: str) -> int | None:
        """How many pods the whole node's CPU and memory hold; None: no bound, 0 where none may come."""
        if not self.permits(name):
            return 0
        node, bounds = self._nodes[name], []
        if self.who.cpu_millis:
            bounds.append(node.cpu_millis // self.who.cpu_millis)
        if self.who.memory_bytes:
            bounds.append(node.memory_bytes // self.who.memory_bytes)
        return min(bounds) if bounds else None

    @property
    def text(self) -> str:
        """What keeps pods off the other nodes, in words."""
        parts = [self.who.confined_by] if self.who.confined_by else []
        if any(node.taints for node in self._nodes.values()):
            parts.append(UNSTOOD)
        if self.who.cpu_millis or self.who.memory_bytes:
            parts.append("its CPU and memory")
        return " and ".join(parts) or "nothing"


class Fences:
    """Fences over one set of nodes; None for whoever may go anywhere, which costs nothing."""

    __slots__ = ("_nodes", "_tainted")

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes
        self._tainted = any(node.taints for node in nodes.values())

    def of(self, who: Wishes) -> Fence | None:
        """The fence of a service or job."""
        free = who.confined_to is None and not (who.cpu_millis or who.memory_bytes or self._tainted)
        return None if free else Fence(who, self._nodes)


def slot_for(slot: Slot, who: Wishes) -> Slot:
    """The slot with what a pod asks for beside its devices."""
    if not (who.cpu_millis or who.memory_bytes):
        return slot
    return Slot(
        node=slot.node,
        devices=slot.devices,
        milli_per_device=slot.milli_per_device,
        cpu_millis=who.cpu_millis,
        memory_bytes=who.memory_bytes,
    )


def kept_out(overlay: Overlay, slots: tuple[Slot, ...], who: Wishes, what: str) -> Drop | None:
    """A `Taken` drop when taints or volumes keep the pods off a slot's node as it is now."""
    nodes = overlay.read("nodes")
    fence = Fence(who, nodes)
    out = sorted({slot.node for slot in slots if slot.node in nodes and not fence.permits(slot.node)})
    if not out:
        return None
    wanted = len({slot.node for slot in slots})
    why = f"{what} on {', '.join(out)}, closed to it by {fence.text}"
    return Drop("Taken", why, wanted, wanted - len(out), 0, "nodes")
