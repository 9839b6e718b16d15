"""Dynamic resource allocation (resource.k8s.io/v1), reduced to what says which GPUs there are and who has them.

A driver announces the devices of its node in ResourceSlices; the scheduler writes which of them a ResourceClaim got
into the claim's status. Neither shows in a node's allocatable nor in a pod's requests.
"""

from __future__ import annotations

import msgspec

from controller.resources.base import ObjectMeta
from controller.resources.core import CoreStruct
from controller.store.interface import Resource

GROUP = "resource.k8s.io"
RESOURCE_SLICE = Resource(
    group=GROUP,
    version="v1",
    kind="ResourceSlice",
    plural="resourceslices",
    namespaced=False,
    generation=True,
    selectable=("spec.nodeName", "spec.driver"),
)
RESOURCE_CLAIM = Resource(
    group=GROUP, version="v1", kind="ResourceClaim", plural="resourceclaims", has_status=True
)
CLAIM_TEMPLATE = Resource(
    group=GROUP, version="v1", kind="ResourceClaimTemplate", plural="resourceclaimtemplates"
)

DRA_RESOURCES: tuple[Resource, ...] = (RESOURCE_SLICE, RESOURCE_CLAIM, CLAIM_TEMPLATE)
"""The kinds of the group that the operator reads or makes."""

EXTENDED = "resource.kubernetes.io/extended-resource-claim"
"""Annotation of a claim that the scheduler made for a pod's extended resource: the pod's request counts, not both."""


class Attribute(CoreStruct, frozen=True, kw_only=True):
    """One attribute of a device: a string, a number, a truth or a version; only the first two are read."""

    string: str = ""
    int_: int | None = msgspec.field(name="int", default=None)


class DeviceTaint(CoreStruct, frozen=True, kw_only=True):
    """What keeps a device from being given out: effect NoSchedule or NoExecute."""

    key: str = ""
    effect: str = ""


class Capacity(CoreStruct, frozen=True, kw_only=True):
    """How much of something a device has, as a quantity."""

    value: str | int = 0


class SliceDevice(CoreStruct, frozen=True, kw_only=True):
    """One device as its driver announces it; attributes and capacities by their name, with the driver's domain or without.

    With `allow_multiple_allocations` several claims may have a part of its capacities each.
    """

    name: str
    attributes: dict[str, Attribute] = {}
    capacity: dict[str, Capacity] = {}
    allow_multiple_allocations: bool | None = None
    taints: list[DeviceTaint] = []

    def text(self, name: str) -> str:
        """A string attribute, empty when it is not there."""
        found = self._attribute(name)
        return found.string if found is not None else ""

    def number(self, *names: str) -> int | None:
        """The first of these attributes that is a number."""
        given = (self._attribute(name) for name in names)
        return next((each.int_ for each in given if each is not None and each.int_ is not None), None)

    def _attribute(self, name: str) -> Attribute | None:
        return next((value for key, value in self.attributes.items() if key.rpartition("/")[2] == name), None)


class SlicePool(CoreStruct, frozen=True, kw_only=True):
    """The pool a slice belongs to: only slices of its newest generation count."""

    name: str = ""
    generation: int = 0


class SliceSpec(CoreStruct, frozen=True, kw_only=True):
    """Devices of one node by one driver; a slice without a node's name is none of a GPU's."""

    driver: str = ""
    node_name: str = ""
    pool: SlicePool = SlicePool()
    devices: list[SliceDevice] = []


class ResourceSlice(CoreStruct, frozen=True, kw_only=True):
    """Devices that a driver announces."""

    metadata: ObjectMeta
    spec: SliceSpec = SliceSpec()


class Allotted(CoreStruct, frozen=True, kw_only=True):
    """One device that a claim got. With `admin_access` it looks on, and takes nothing. `consumed_capacity` is what it has of a
    device that several claims may have a part of.
    """

    driver: str = ""
    pool: str = ""
    device: str = ""
    admin_access: bool | None = None
    consumed_capacity: dict[str, str | int] = {}


class AllottedDevices(CoreStruct, frozen=True, kw_only=True):
    """All devices of a claim."""

    results: list[Allotted] = []


class Allocation(CoreStruct, frozen=True, kw_only=True):
    """What the scheduler gave a claim."""

    devices: AllottedDevices = AllottedDevices()


class Consumer(CoreStruct, frozen=True, kw_only=True):
    """Who may use an allocated claim."""

    resource: str = ""
    name: str = ""
    uid: str = ""


class ClaimStatus(CoreStruct, frozen=True, kw_only=True):
    """How far a claim is."""

    allocation: Allocation | None = None
    reserved_for: list[Consumer] = []


class ResourceClaim(CoreStruct, frozen=True, kw_only=True):
    """A wish for devices, and what came of it."""

    metadata: ObjectMeta
    status: ClaimStatus = ClaimStatus()

    @property
    def results(self) -> list[Allotted]:
        """Devices that nobody else can have while the claim holds them."""
        if self.status.allocation is None or self.metadata.annotations.get(EXTENDED) == "true":
            return []
        return [each for each in self.status.allocation.devices.results if not each.admin_access]
