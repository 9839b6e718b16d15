"""Free space on nodes: what claims and other owners' reservations leave over.

One scan over claims; kept by `Overlay`, which charges every accepted action at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cluster.base import Ref
from cluster.hardware import Node, Offer, Slot
from cluster.occupancy import Claim, Reservation


class Space:
    """Free milli-GPU per device, free CPU and memory per node.

    A device that is unhealthy or unknown has no room. Reservations are kept apart from claims so that
    their owner may use them: `lacking(slot, owner)`. A negative index claims a device nobody has told
    us the number of (another's pod): the last free ones of the node are then left alone.
    """

    __slots__ = ("_cpu", "_machine", "_memory", "_milli", "_nodes", "_reserved", "_unnumbered")

    def __init__(
        self, nodes: Mapping[str, Node], claims: Iterable[Claim], reservations: Iterable[Reservation] = ()
    ) -> None:
        """Scan claims and reservations over the nodes given."""
        self._nodes = nodes
        self._machine: dict[str, str] = {name: node.machine for name, node in nodes.items()}
        self._milli: dict[str, list[int]] = {}
        self._cpu: dict[str, int] = {}
        self._memory: dict[str, int] = {}
        self._reserved: dict[tuple[str, int], tuple[str, int]] = {}
        self._unnumbered: dict[str, int] = {}
        for name, node in nodes.items():
            size = max((d.index for d in node.devices), default=-1) + 1
            free = [0] * size
            for device in node.devices:
                free[device.index] = 1000 if device.healthy else 0
            self._milli[name] = free
            self._cpu[node.machine] = node.cpu_millis
            self._memory[node.machine] = node.memory_bytes
        for claim in claims:
            self.take(claim.slot)
        for reservation in reservations:
            self.reserve(reservation)

    def take(self, slot: Slot) -> None:
        """Charge a slot; over-commitment shows as negative room, it is never hidden."""
        self._add(slot, -1)

    def give(self, slot: Slot) -> None:
        """Give a slot back."""
        self._add(slot, 1)

    def _add(self, slot: Slot, sign: int) -> None:
        free = self._milli.get(slot.node)
        if free is None:
            return
        for index in slot.devices:
            if 0 <= index < len(free):
                free[index] += sign * slot.milli_per_device
            elif index < 0:
                self._unnumbered[slot.node] = self._unnumbered.get(slot.node, 0) - sign
        machine = self._machine[slot.node]
        self._cpu[machine] += sign * slot.cpu_millis
        self._memory[machine] += sign * slot.memory_bytes

    def reserve(self, reservation: Reservation) -> None:
        """Mark the reservation's devices for its owner, unless a higher priority has them."""
        for slot in reservation.slots:
            for index in slot.devices:
                held = self._reserved.get((slot.node, index))
                if held is None or held[1] < reservation.priority:
                    self._reserved[slot.node, index] = (_name(reservation.owner), reservation.priority)

    def release(self, reservation: Reservation) -> None:
        """Remove the reservation's marks."""
        for slot in reservation.slots:
            for index in slot.devices:
                if self._reserved.get((slot.node, index), ("", 0))[0] == _name(reservation.owner):
                    del self._reserved[slot.node, index]

    def free_devices(self, node: str, owner: Ref | None = None, priority: int | None = None) -> list[int]:
        """Indices of wholly free devices of a node that `owner` may use, in rising order.

        An unknown or not open node has none. `priority` as in `lacking`.
        """
        known = self._nodes.get(node)
        if known is None or known.offer is not Offer.OPEN:
            return []
        free = self._milli[node]
        usable = [i for i in range(len(free)) if free[i] == 1000 and self._open_to(node, i, owner, priority)]
        return usable[: max(0, len(usable) - self._unnumbered.get(node, 0))]

    def free_levels(
        self, node: str, owner: Ref | None = None, priority: int | None = None
    ) -> list[tuple[int, int]]:
        """(index, free thousandths) of devices of a node that have any left for `owner`, in rising order.

        Claims on devices of unknown number leave the last wholly free ones alone, and all that are in part use where
        those do not suffice. Else as `free_devices`.
        """
        known = self._nodes.get(node)
        if known is None or known.offer is not Offer.OPEN:
            return []
        whole = self.free_devices(node, owner, priority)
        free = self._milli[node]
        if self._unnumbered.get(node, 0) > 0 and not whole:
            return []
        part = [
            i for i, left in enumerate(free) if 0 < left < 1000 and self._open_to(node, i, owner, priority)
        ]
        return [(index, free[index]) for index in sorted((*whole, *part))]

    def free_milli(self, node: str, device: int) -> int:
        """Free milli-GPU of one device (0 when unknown)."""
        free = self._milli.get(node, [])
        return free[device] if 0 <= device < len(free) else 0

    def is_kept(self, node: str, device: int) -> bool:
        """Whether a device is reserved for somebody."""
        return (node, device) in self._reserved

    def free_cpu_millis(self, node: str) -> int:
        """Free CPU of a node; parts of one machine share it."""
        return self._cpu.get(self._machine.get(node, node), 0)

    def free_memory_bytes(self, node: str) -> int:
        """Free memory of a node; parts of one machine share it."""
        return self._memory.get(self._machine.get(node, node), 0)

    def _open_to(self, node: str, device: int, owner: Ref | None, priority: int | None = None) -> bool:
        held = self._reserved.get((node, device))
        if held is None or (priority is not None and held[1] < priority):
            return True
        return owner is not None and held[0] == _name(owner)

    def lacking(self, slot: Slot, owner: Ref | None = None, priority: int | None = None) -> int:
        """How many of the slot's devices are not free for `owner`; CPU or memory short counts as one.

        0 means that the slot fits; an unknown or not open node lacks them all. Others' reservations below
        `priority` do not count (None: all of them do).
        """
        known = self._nodes.get(slot.node)
        if known is None or known.offer is not Offer.OPEN:
            return max(1, slot.gpus)
        lacking = sum(
            1
            for index in slot.devices
            if self.free_milli(slot.node, index) < slot.milli_per_device
            or not self._open_to(slot.node, index, owner, priority)
        )
        if self._unnumbered.get(slot.node):
            usable = {index for index, _ in self.free_levels(slot.node, owner, priority)}
            lacking = max(lacking, sum(1 for index in slot.devices if index not in usable))
        cpu, memory = self.free_cpu_millis(slot.node), self.free_memory_bytes(slot.node)
        if slot.cpu_millis > cpu or slot.memory_bytes > memory:
            lacking = max(lacking, 1)
        return lacking


def _name(owner: Ref) -> str:
    """An owner's identity: a new version of its spec keeps what it had reserved."""
    return f"{owner.kind}/{owner.name}"
