"""What a pod gets beside its container: its GPUs by name or by claim, shared memory, RDMA and its networks.

Several GPUs of one pod exchange through /dev/shm, which is 64 MB unless it is a volume of its own. Several pods of a
gang exchange through RDMA devices, which want pinned memory; a gang that was laid out on Ethernet asks for none.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from cluster.hardware import AcceleratorClass, Node, Slot
from controller.resources.coredra import CLAIM_TEMPLATE
from controller.resources.podpart import RESERVED_VOLUMES

JsonObject = dict[str, Any]

GIB = 2**30
SHARED_MEMORY_BYTES = 2 * GIB
"""Of /dev/shm for each GPU of a pod, unless its AcceleratorClass says otherwise."""
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the mount point of every libc's shm_open
VOLUME = f"{RESERVED_VOLUMES}shm"
NETWORKS = "k8s.v1.cni.cncf.io/networks"
"""Multus' annotation: network attachments of a pod, by comma."""
CLAIM = "gpus"
"""Name of a pod's claim of GPUs, within the pod."""
RDMA_LINKS = ("infiniband", "roce")


def devices(slot: Slot, accelerator: AcceleratorClass) -> dict[str, str]:
    """Extended resources of a slot: none where they are claimed."""
    return {} if accelerator.sharing == "dra" else {accelerator.resource_name: str(slot.gpus)}


def claim_gpus(pod: JsonObject, template: str) -> None:
    """Let the pod's one container have the GPUs of a claim made from a ResourceClaimTemplate."""
    spec = pod["spec"]
    spec["resourceClaims"] = [{"name": CLAIM, "resourceClaimTemplateName": template}]
    spec["containers"][0]["resources"]["claims"] = [{"name": CLAIM}]


class Share(NamedTuple):
    """A part of one device, as a claim asks for it: thousandths, how much of each capacity, and of which device (uuid)."""

    milli: int
    amounts: tuple[tuple[str, int], ...]
    uuid: str = ""

    @property
    def digest(self) -> str:
        """Eight letters that differ where what is asked for does."""
        return hashlib.blake2b(repr(self).encode(), digest_size=4).hexdigest()


def share_of(slot: Slot, node: Node | None) -> Share | None:
    """What a slot has of its one device; None for whole ones. Amounts are rounded down, so that all parts fit together."""
    if not slot.shares:
        return None
    capacities = node.divisible if node is not None else {}
    amounts = tuple(
        (name, max(1, whole * slot.milli_per_device // 1_000)) for name, whole in capacities.items()
    )
    devices = node.devices if node is not None else ()
    uuid = next((device.uuid for device in devices if device.index in slot.devices), "")
    return Share(slot.milli_per_device, tuple(sorted(amounts)), uuid)


def template_name(
    engines_or_ranks: str, accelerator: AcceleratorClass, gpus: int, share: Share | None = None
) -> str:
    """Name of the template of an object's pods with so many GPUs, or a share; what it asks for follows from its name."""
    size = f"{gpus}" if share is None else f"{share.milli}m-{share.digest}"
    return f"{engines_or_ranks}-{size}-{accelerator.device_class}"


def claim_template(
    pod: JsonObject, accelerator: AcceleratorClass, gpus: int, share: Share | None = None
) -> JsonObject:
    """The ResourceClaimTemplate that a pod names, owned by the pod's owner."""
    meta = pod["metadata"]
    exactly: JsonObject = {
        "deviceClassName": accelerator.device_class,
        "allocationMode": "ExactCount",
        "count": gpus,
    }
    if share is not None:
        exactly["capacity"] = {"requests": {name: str(amount) for name, amount in share.amounts}}
        if share.uuid:
            exactly["selectors"] = [{"cel": {"expression": only(accelerator.device_driver, share.uuid)}}]
    return {
        "apiVersion": CLAIM_TEMPLATE.api_version,
        "kind": CLAIM_TEMPLATE.kind,
        "metadata": {
            "name": pod["spec"]["resourceClaims"][0]["resourceClaimTemplateName"],
            "namespace": meta["namespace"],
            "labels": {name: value for name, value in meta["labels"].items() if name.endswith("managed-by")},
            "ownerReferences": meta["ownerReferences"],
        },
        "spec": {"spec": {"devices": {"requests": [{"name": CLAIM, "exactly": exactly}]}}},
    }


def only(driver: str, uuid: str) -> str:
    """CEL that holds of the device with this uuid, and of those whose driver does not say theirs: the scheduler gives a
    share of the device that was chosen, not of the first with room.
    """
    of = f'device.attributes["{driver}"]'
    return f'!("uuid" in {of}) || {of}.uuid == "{uuid}"'


def share_memory(pod: JsonObject, slot: Slot, accelerator: AcceleratorClass) -> None:
    """Give a pod a /dev/shm of its own in memory, unless its user mounts one.

    What is written there counts as the container's memory: it has at most half of the memory that the pod may have.
    """
    spec = pod["spec"]
    container = spec["containers"][0]
    mounts = container.get("volumeMounts", [])
    if any(mount["mountPath"].rstrip("/") == SHARED_MEMORY for mount in mounts):
        return
    size = accelerator.shared_memory_bytes or SHARED_MEMORY_BYTES * slot.gpus
    if slot.memory_bytes:
        size = min(size, slot.memory_bytes // 2)
    volume = {"name": VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": str(size)}}
    spec["volumes"] = [*spec.get("volumes", []), volume]
    container["volumeMounts"] = [*mounts, {"name": VOLUME, "mountPath": SHARED_MEMORY}]


def reach_others(pod: JsonObject, accelerator: AcceleratorClass, node: Node | None, network: str) -> None:
    """Give a gang's pod the RDMA devices, networks and pinned memory that its class names, on a network of that kind."""
    if network not in RDMA_LINKS or not accelerator.rdma_resource:
        return
    container = pod["spec"]["containers"][0]
    count = str(rdma_devices(accelerator, node))
    for part in ("limits", "requests"):
        container["resources"][part][accelerator.rdma_resource] = count
    if accelerator.networks:
        notes = pod["metadata"]["annotations"]
        notes[NETWORKS] = ",".join([*filter(None, [notes.get(NETWORKS)]), *accelerator.networks])
    if accelerator.ipc_lock:
        capabilities = container["securityContext"]["capabilities"]
        capabilities["add"] = sorted({*capabilities.get("add", ()), "IPC_LOCK"})


def rdma_devices(accelerator: AcceleratorClass, node: Node | None) -> int:
    """How many a pod asks for: as the class says, else one for each RDMA port, as far as the node offers them."""
    if accelerator.rdma_count:
        return accelerator.rdma_count
    ports = sum(nic.link in RDMA_LINKS for nic in node.nics) if node is not None else 1
    return max(1, min(ports, node.rdma_devices if node is not None else 1))
