"""The objects of Kubernetes that the fleet reads and writes, reduced to the fields it uses.

The fleet plays kubelet, scheduler and node life cycle, so it sees other fields than the operator does; what the
two must agree on (names of kinds, keys of annotations) is held equal by a test.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

from controller.store.interface import Resource

POD = Resource(
    group="",
    version="v1",
    kind="Pod",
    plural="pods",
    has_status=True,
    selectable=("spec.nodeName", "spec.restartPolicy", "status.phase"),
)
NODE = Resource(
    group="",
    version="v1",
    kind="Node",
    plural="nodes",
    namespaced=False,
    has_status=True,
    selectable=("spec.unschedulable",),
)
LEASE = Resource(group="coordination.k8s.io", version="v1", kind="Lease", plural="leases")
SECRET = Resource(group="", version="v1", kind="Secret", plural="secrets")
CONFIG_MAP = Resource(group="", version="v1", kind="ConfigMap", plural="configmaps")
LAUNCH = "plimsoll.dev/launch"
"""Annotation of a pod: what to start in it, as JSON (`cluster.launch`)."""
ENDPOINT = "plimsoll.dev/endpoint"
"""Annotation of a pod: host:port of its engine's server."""
SIMULATED = "plimsoll.dev/simulated"
"""Annotation of a Node: nobody but a simulated fleet runs it."""
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
GPU_RESOURCE = "nvidia.com/gpu"


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Base of the projections: camelCase in JSON, unknown fields skipped."""


class Owner(_Part, frozen=True, kw_only=True):
    """Whom an object goes with."""

    kind: str = ""
    uid: str = ""


class Meta(_Part, frozen=True, kw_only=True):
    """Of metadata, what the fleet reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    finalizers: list[str] = []
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    owner_references: list[Owner] = []

    @property
    def key(self) -> str:
        """`namespace/name`, or the name alone for a cluster-scoped object."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Object(_Part, frozen=True, kw_only=True):
    """Any object, of which only who it is matters."""

    metadata: Meta


class Resources(_Part, frozen=True, kw_only=True):
    """What a container asks for, as Kubernetes quantities."""

    requests: dict[str, str | int] = {}
    limits: dict[str, str | int] = {}


class Held(_Part, frozen=True, kw_only=True):
    """A Secret or ConfigMap: of what it holds only the names."""

    metadata: Meta
    data: dict[str, msgspec.Raw] = {}
    string_data: dict[str, msgspec.Raw] = {}
    binary_data: dict[str, msgspec.Raw] = {}

    @property
    def keys(self) -> set[str]:
        """Names of what it holds."""
        return {*self.data, *self.string_data, *self.binary_data}


class Reference(NamedTuple):
    """A Secret or ConfigMap that a pod needs, or one key of it."""

    kind: str
    name: str
    key: str = ""
    optional: bool = False


class _Key(_Part, frozen=True, kw_only=True):
    name: str = ""
    secret_name: str = ""
    key: str = ""
    optional: bool = False

    def of(self, kind: str) -> Reference:
        return Reference(kind, self.name or self.secret_name, self.key, self.optional)


class _Source(_Part, frozen=True, kw_only=True):
    secret_key_ref: _Key | None = None
    config_map_key_ref: _Key | None = None
    secret_ref: _Key | None = None
    config_map_ref: _Key | None = None
    secret: _Key | None = None
    config_map: _Key | None = None

    def references(self) -> Iterator[Reference]:
        for secret in (self.secret_key_ref, self.secret_ref, self.secret):
            if secret is not None:
                yield secret.of("Secret")
        for config in (self.config_map_key_ref, self.config_map_ref, self.config_map):
            if config is not None:
                yield config.of("ConfigMap")


class _Variable(_Part, frozen=True, kw_only=True):
    value_from: _Source | None = None


class Container(_Part, frozen=True, kw_only=True):
    """Image and appetite of a container, and where its variables come from."""

    name: str
    image: str = ""
    image_pull_policy: str = ""
    resources: Resources = Resources()
    env: list[_Variable] = []
    env_from: list[_Source] = []

    def references(self) -> Iterator[Reference]:
        """What its variables need."""
        for variable in self.env:
            if variable.value_from is not None:
                yield from variable.value_from.references()
        for source in self.env_from:
            yield from source.references()


class Toleration(_Part, frozen=True, kw_only=True):
    """A taint that a pod stands; `toleration_seconds` None means for ever."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None

    def tolerates(self, taint: Taint) -> bool:
        """Whether it covers the taint; an empty key with Exists covers all."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.operator == "Exists":
            return self.key in {"", taint.key}
        return self.key == taint.key and self.value == taint.value


class Taint(_Part, frozen=True, kw_only=True):
    """What keeps pods off a node."""

    key: str
    value: str = ""
    effect: str = ""
    time_added: str | None = None


class _Wanted(_Part, frozen=True, kw_only=True):
    key: str
    operator: str
    values: list[str] = []


class _Term(_Part, frozen=True, kw_only=True):
    match_fields: list[_Wanted] = []


class _Selector(_Part, frozen=True, kw_only=True):
    node_selector_terms: list[_Term] = []


class _NodeAffinity(_Part, frozen=True, kw_only=True):
    required: _Selector | None = msgspec.field(
        name="requiredDuringSchedulingIgnoredDuringExecution", default=None
    )


class _Affinity(_Part, frozen=True, kw_only=True):
    node_affinity: _NodeAffinity | None = None


class _Gate(_Part, frozen=True, kw_only=True):
    name: str


class _ReadinessGate(_Part, frozen=True, kw_only=True):
    condition_type: str


class PodSpec(_Part, frozen=True, kw_only=True):
    """Where a pod is or wants to be, and what it takes."""

    readiness_gates: list[_ReadinessGate] = []

    node_name: str = ""
    containers: list[Container] = []
    affinity: _Affinity | None = None
    node_selector: dict[str, str] = {}
    tolerations: list[Toleration] = []
    scheduling_gates: list[_Gate] = []
    priority: int = 0
    restart_policy: str = "Always"
    termination_grace_period_seconds: int = 30
    volumes: list[_Source] = []

    def volume_references(self) -> Iterator[Reference]:
        """What its volumes are made of."""
        for volume in self.volumes:
            yield from volume.references()


class Condition(_Part, frozen=True, kw_only=True):
    """One observed aspect of a pod or node."""

    type: str
    status: str = "Unknown"
    reason: str = ""
    last_transition_time: str | None = None


class PodStatus(_Part, frozen=True, kw_only=True):
    """How far a pod is."""

    phase: str = "Pending"
    reason: str = ""
    conditions: list[Condition] = []


class Pod(_Part, frozen=True, kw_only=True):
    """A pod as scheduler and kubelet see it."""

    metadata: Meta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def pinned_to(self) -> str:
        """The node that the required affinity names, or "" when the pod may go anywhere."""
        affinity = self.spec.affinity and self.spec.affinity.node_affinity
        if not affinity or not affinity.required:
            return ""
        for term in affinity.required.node_selector_terms:
            for wanted in term.match_fields:
                if wanted.key == "metadata.name" and wanted.operator == "In" and wanted.values:
                    return wanted.values[0]
        return ""

    @property
    def finished(self) -> bool:
        """Whether no container of it will run again."""
        return self.status.phase in {"Succeeded", "Failed"}

    @property
    def deleted(self) -> bool:
        """Whether somebody asked for its deletion."""
        return self.metadata.deletion_timestamp is not None

    @property
    def closed_gates(self) -> list[str]:
        """Readiness gates that nobody has opened."""
        true = {c.type for c in self.status.conditions if c.status == "True"}
        return [g.condition_type for g in self.spec.readiness_gates if g.condition_type not in true]

    @property
    def ready(self) -> bool:
        """Whether it is called ready."""
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)

    @property
    def refused(self) -> bool:
        """Whether the scheduler has said that it fits nowhere."""
        return any(c.type == "PodScheduled" and c.status == "False" for c in self.status.conditions)

    def requests(self) -> dict[str, float]:
        """Sum over its containers, in base units (cores, bytes, GPUs)."""
        total: dict[str, float] = {}
        for container in self.spec.containers:
            wanted = {**container.resources.limits, **container.resources.requests}
            for name, quantity in wanted.items():
                total[name] = total.get(name, 0.0) + parse_quantity(str(quantity))
        return total


class NodeSpecPart(_Part, frozen=True, kw_only=True):
    """What user and control plane say about a node."""

    unschedulable: bool = False
    taints: list[Taint] = []


class NodeStatus(_Part, frozen=True, kw_only=True):
    """What its kubelet says about a node."""

    allocatable: dict[str, str | int] = {}
    conditions: list[Condition] = []


class Node(_Part, frozen=True, kw_only=True):
    """A machine as Kubernetes sees it."""

    metadata: Meta
    spec: NodeSpecPart = NodeSpecPart()
    status: NodeStatus = NodeStatus()

    @property
    def readiness(self) -> str:
        """Status of the Ready condition: True, False, Unknown; "" before it was ever written."""
        return next((c.status for c in self.status.conditions if c.type == "Ready"), "")


class Lease(_Part, frozen=True, kw_only=True):
    """A node's heartbeat; only that it changed matters."""

    metadata: Meta


_SCALES = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip


@lru_cache(maxsize=4096)
def parse_quantity(text: str) -> float:
    """A Kubernetes quantity (`8`, `1500m`, `512Gi`) in base units; infinity for text that is none.

    Infinity fits nowhere: a pod with an unreadable request stays pending, a node never offers it (see `offered`).
    """
    number = text.rstrip("mkMGTPi")
    try:
        return float(number) * _SCALES[text[len(number) :]]
    except (ValueError, KeyError):
        return float("inf")


def offered(node: Node, resource: str) -> float:
    """What a node offers of a resource, in base units; 0 for what it does not name or nobody can read."""
    quantity = parse_quantity(str(node.status.allocatable.get(resource, 0)))
    return quantity if quantity < float("inf") else 0.0
