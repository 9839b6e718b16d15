"""Who holds which GPU of this node, as its kubelet says. Facts only; `agent.podresources` asks for them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from agent.node.drivers.base import Device
from wire import agent_pb2 as pb
from wire import podresources_pb2 as kubelet

MOST_HOLDERS = 512
"""Rows told of one node: eight GPUs in seven slices each, shared by nine."""
MOST_NAME = 253
NOBODY = -1
"""In place of a device's index: the kubelet names a device that the driver does not know."""

_GPU_RESOURCE = re.compile(r"[^/]+/(gpu|mig-)[^/]*")
_SHARED = re.compile(r"::\d+$")
_OLD_SLICE = re.compile(r"MIG-(GPU-[0-9a-f-]+)/\d+/\d+")
_CLAIMED = re.compile(r"gpu-(\d+)(?:-.*)?")
_BY_INDEX = re.compile(r"(\d{1,4})(?::\d+)?")


class Holder(msgspec.Struct, frozen=True, gc=False, kw_only=True, order=True):
    """One device, or slice of it, in the hands of one container. `device`: index in the inventory, or `NOBODY`.

    `pod` is `namespace/name`; `resource` the resource's name, or `driver (claim namespace/name)` of a claim.
    """

    device: int
    device_id: str
    pod: str
    container: str
    resource: str


class Holders(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Everybody who holds a GPU of the node. `known` False: nobody can say, and `fault` says why.

    `offered`: indices of the devices that the kubelet would give to pods; None where it does not say, or names
    devices that the driver does not know.
    """

    rows: tuple[Holder, ...] = ()
    known: bool = False
    fault: str = ""
    offered: tuple[int, ...] | None = None


class DeviceNames:
    """Finds a device by whatever name a device plugin or a claim gives it."""

    def __init__(self, devices: Iterable[Device]) -> None:
        self._by_name: dict[str, int] = {}
        self._count = 0
        for place, device in enumerate(devices):
            self._count += 1
            self._by_name[device.uuid] = place
            for slice_uuid in device.slices:
                self._by_name[slice_uuid] = place

    def place(self, name: str) -> int:
        """The device's place in the inventory; `NOBODY` when none has that name.

        Names: UUID of a GPU or of a MIG slice (of either form), with `::N` behind it where it is shared, or an index.
        """
        bare = _SHARED.sub("", name)
        if bare in self._by_name:
            return self._by_name[bare]
        if (old := _OLD_SLICE.fullmatch(bare)) is not None:
            return self._by_name.get(old[1], NOBODY)
        if (index := _BY_INDEX.fullmatch(bare)) is not None:
            return self._within(int(index[1]))
        return NOBODY

    def claimed(self, name: str) -> int:
        """The device that a resource claim calls `gpu-N` (or `gpu-N-mig-…`): N is the driver's minor number, which is
        the index unless a board was lost.
        """
        found = _CLAIMED.fullmatch(name)
        return self._within(int(found[1])) if found is not None else NOBODY

    def knows(self, name: str) -> bool:
        """Whether the name is a device's, and no mere index: those of other plugins are numbers too."""
        return self.place(name) != NOBODY and _BY_INDEX.fullmatch(name) is None

    def _within(self, index: int) -> int:
        return index if index < self._count else NOBODY


def holders_of(
    answer: kubelet.ListPodResourcesResponse, names: DeviceNames
) -> tuple[tuple[Holder, ...], int]:
    """The rows of an answer, sorted, at most `MOST_HOLDERS`; and how many more there were."""
    rows = sorted(set(_rows(answer, names)))
    return tuple(rows[:MOST_HOLDERS]), max(0, len(rows) - MOST_HOLDERS)


def _rows(answer: kubelet.ListPodResourcesResponse, names: DeviceNames) -> Iterator[Holder]:
    for pod in answer.pod_resources:
        if not (0 < len(pod.name) <= MOST_NAME and 0 < len(pod.namespace) <= MOST_NAME):
            continue
        key = f"{pod.namespace}/{pod.name}"
        for container in pod.containers:
            for place, name, resource in (*_plugged(container, names), *_claims(container, names)):
                yield Holder(
                    device=place,
                    device_id=name[:MOST_NAME],
                    pod=key,
                    container=container.name[:MOST_NAME],
                    resource=resource[:MOST_NAME],
                )


def _plugged(container: kubelet.ContainerResources, names: DeviceNames) -> Iterator[tuple[int, str, str]]:
    """Devices of device plugins that are GPUs, by their resource or by their name."""
    for group in container.devices:
        counts = _GPU_RESOURCE.fullmatch(group.resource_name) is not None
        for name in group.device_ids:
            if counts or names.knows(name):
                yield names.place(name), name, group.resource_name


def _claims(container: kubelet.ContainerResources, names: DeviceNames) -> Iterator[tuple[int, str, str]]:
    """Devices of resource claims whose driver is one of GPUs."""
    for claim in container.dynamic_resources:
        for device in claim.claim_resources:
            if device.driver_name.startswith("gpu."):
                resource = f"{device.driver_name} ({claim.claim_namespace}/{claim.claim_name})"
                yield names.claimed(device.device_name), f"{device.pool_name}/{device.device_name}", resource


def offered_of(answer: kubelet.AllocatableResourcesResponse, names: DeviceNames) -> tuple[int, ...] | None:
    """Devices that may be given to pods; None when one of them is unknown, so that nobody can judge the rest."""
    places = {
        names.place(name)
        for group in answer.devices
        if _GPU_RESOURCE.fullmatch(group.resource_name) is not None
        for name in group.device_ids
    }
    return None if NOBODY in places else tuple(sorted(places))


def put_holders(into: pb.HolderRows, holders: Holders) -> None:
    """Fills the section."""
    into.known = holders.known
    into.fault = holders.fault
    into.offered_known = holders.offered is not None
    into.offered.extend(holders.offered or ())
    for row in holders.rows:
        into.rows.add(
            device=row.device,
            device_id=row.device_id,
            pod=row.pod,
            container=row.container,
            resource=row.resource,
        )
