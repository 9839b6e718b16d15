"""Kinds of Kubernetes that say where a volume can be reached from, reduced to the fields used."""

from __future__ import annotations

from controller.resources.base import ObjectMeta
from controller.resources.core import CLAIM, STORAGE_CLASS, VOLUME, CoreStruct, NodeSelector
from controller.store.interface import Resource

STORAGE_RESOURCES: tuple[Resource, ...] = (CLAIM, VOLUME, STORAGE_CLASS)
"""What the operator follows to know where volumes are."""

SELECTED_NODE = "volume.kubernetes.io/selected-node"
"""Annotation of a claim: the node that the scheduler chose, for which its volume is being made."""


class ClaimSpec(CoreStruct, frozen=True, kw_only=True):
    """Which volume a claim has or wants; `storage_class_name` None: the cluster's default, "" : none."""

    volume_name: str = ""
    storage_class_name: str | None = None


class ClaimStatus(CoreStruct, frozen=True, kw_only=True):
    """How far a claim is: Pending, Bound or Lost."""

    phase: str = "Pending"


class PersistentVolumeClaim(CoreStruct, frozen=True, kw_only=True):
    """A user's claim to a volume."""

    metadata: ObjectMeta
    spec: ClaimSpec = ClaimSpec()
    status: ClaimStatus = ClaimStatus()


class VolumeNodeAffinity(CoreStruct, frozen=True, kw_only=True):
    """From which nodes a volume can be reached."""

    required: NodeSelector | None = None


class ClaimReference(CoreStruct, frozen=True, kw_only=True):
    """The claim that has a volume."""

    namespace: str = ""
    name: str = ""


class VolumeSpec(CoreStruct, frozen=True, kw_only=True):
    """Where a volume is and whose."""

    node_affinity: VolumeNodeAffinity | None = None
    storage_class_name: str = ""
    claim_ref: ClaimReference | None = None


class PersistentVolume(CoreStruct, frozen=True, kw_only=True):
    """A volume of the cluster."""

    metadata: ObjectMeta
    spec: VolumeSpec = VolumeSpec()


class TopologyRequirement(CoreStruct, frozen=True, kw_only=True):
    """A label that a node must have, with one of the values."""

    key: str
    values: list[str] = []


class TopologyTerm(CoreStruct, frozen=True, kw_only=True):
    """Requirements that must hold together."""

    match_label_expressions: list[TopologyRequirement] = []


class StorageClass(CoreStruct, frozen=True, kw_only=True):
    """How volumes of a class are made, and when."""

    metadata: ObjectMeta
    provisioner: str = ""
    volume_binding_mode: str = "Immediate"
    allowed_topologies: list[TopologyTerm] = []
