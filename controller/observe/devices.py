"""The devices of a node that pods can have: what agent, kubelet and drivers say of them, each believed for less.

A device is usable when its driver calls it healthy, the kubelet would give it out and, for classes of `sharing: dra`,
it is announced in a ResourceSlice. One in two of these lists is one device.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from cluster.hardware import AcceleratorClass, Device
from controller.hub.messages import DeviceSeen, InventorySeen
from controller.observe.dra import Announced
from controller.observe.quantities import quantity_of
from controller.resources.core import Node as NodeObject

SLICED = ("mig", "timeSlicing")
"""Ways of sharing in which a pod gets a part of a board, so that the kubelet's count is all there is to number."""


class Holding(NamedTuple):
    """What pods have of a node's devices: those whose number is known, and how many of unknown number."""

    numbered: frozenset[int] = frozenset()
    unnumbered: int = 0


class Devices(NamedTuple):
    """A node's devices, and of how many that are in use nobody else may have one that comes free."""

    devices: tuple[Device, ...]
    lost: int = 0
    allocatable: int = 0
    """What the API server says the node offers of the class's resource, or drivers announce (`sharing: dra`)."""
    present: int = 0
    """What the node has: by its agent, else by its kubelet's capacity."""


def devices_of(
    obj: NodeObject,
    inventory: InventorySeen | None,
    accelerator: AcceleratorClass,
    holding: Holding = Holding(),  # noqa: B008 - immutable
    announced: Sequence[Announced] = (),
    offered: Collection[int] | None = None,
) -> Devices:
    """The devices of a node as its class lets pods have them. `offered`: indices that the kubelet would give out."""
    found = inventory.devices if inventory is not None else ()
    if accelerator.sharing == "dra":
        whole = [gpu for gpu in announced if not gpu.parent]
        devices = _announced_devices(found, whole)
        return Devices(devices, 0, sum(gpu.usable for gpu in whole), len(found) or len(whole))
    allocatable = quantity_of(obj.status.allocatable, accelerator.resource_name)
    if not found or accelerator.sharing in SLICED:
        size = max(
            allocatable,
            quantity_of(obj.status.capacity, accelerator.resource_name),
            max(holding.numbered, default=-1) + 1,
        )
        made = [Device(uuid=f"{obj.metadata.name}-{i}", index=i) for i in range(size)]
    else:
        made = [_device(each) for each in sorted(found, key=lambda d: d.index)]
    devices, lost = _within(made, allocatable, holding, offered)
    return Devices(devices, lost, allocatable, len(made))


def _device(seen: DeviceSeen) -> Device:
    return Device(uuid=seen.uuid, index=seen.index, numa=seen.numa, clique=seen.clique, healthy=seen.healthy)


def _within(
    made: Sequence[Device], allocatable: int, holding: Holding, offered: Collection[int] | None
) -> tuple[tuple[Device, ...], int]:
    """As many usable devices as the scheduler would bind pods to, and how many of those in use are too many.

    Those that the kubelet does not offer go first, then the last. One that a pod has is not taken from it: instead as
    many of what comes free are kept from everybody.
    """
    healthy = {device.index for device in made if device.healthy}
    over = max(0, len(healthy | holding.numbered) - allocatable)
    if not over:
        return tuple(made), 0
    free = sorted(healthy - holding.numbered, key=lambda index: (offered is None or index in offered, -index))
    out = set(free[: min(over, max(0, len(free) - holding.unnumbered))])
    devices = tuple(
        device if device.index not in out else Device(
            uuid=device.uuid, index=device.index, numa=device.numa, clique=device.clique, healthy=False
        )
        for device in made
    )  # fmt: skip
    return devices, over - len(out)


def _announced_devices(found: Sequence[DeviceSeen], whole: Sequence[Announced]) -> tuple[Device, ...]:
    """Announced GPUs; with an agent's inventory its devices, usable where they are announced and usable."""
    if not found:
        return tuple(
            Device(uuid=gpu.uuid or f"{gpu.pool}/{gpu.name}", index=place, healthy=gpu.usable)
            for place, gpu in enumerate(whole)
        )
    seen = sorted(found, key=lambda d: d.index)
    usable = {index for gpu, index in zip(whole, indices(seen, whole), strict=True) if gpu.usable}
    return tuple(
        Device(
            uuid=d.uuid, index=d.index, numa=d.numa, clique=d.clique, healthy=d.healthy and d.index in usable
        )
        for d in seen
    )


def indices(found: Sequence[DeviceSeen] | Sequence[Device], gpus: Sequence[Announced]) -> list[int]:
    """The node's number of each announced GPU: by uuid (its board's for a slice), else by the number it says; -1 unknown."""
    by_uuid = {device.uuid: device.index for device in found}
    known = set(by_uuid.values())

    def number(gpu: Announced) -> int:
        if gpu.parent or gpu.uuid:
            place = by_uuid.get(gpu.parent or gpu.uuid, by_uuid.get(f"{gpu.pool}/{gpu.name}", -1))
            if place >= 0:
                return place
        named = by_uuid.get(f"{gpu.pool}/{gpu.name}", -1)
        return named if named >= 0 else gpu.number if gpu.number in known else -1

    return [number(gpu) for gpu in gpus]
