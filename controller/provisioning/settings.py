"""What may be bought, of which pools, and how each pool's nodes are ordered. Off unless configured."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0.0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0.0)]


class Requirement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a node must be, as a NodeClaim says it: a label's key, an operator, values."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = "In"
    values: tuple[str, ...] = ()


class NodeClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The cloud's own description of machines that a NodeClaim refers to (`EC2NodeClass`, `AKSNodeClass` ...)."""

    group: str
    kind: str
    name: str


class PoolOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How nodes of one price pool are ordered.

    For NodeClaims: `node_class`, `requirements` (instance types, zones, capacity type), further `labels`, and
    `taints` as `key=value:effect`. For ProvisioningRequests: `node_selector` of the pods that stand for a node, and
    `parameters` of the class.
    """

    node_class: NodeClass | None = None
    requirements: tuple[Requirement, ...] = ()
    labels: dict[str, str] = {}
    taints: tuple[str, ...] = ()
    node_selector: dict[str, str] = {}
    parameters: dict[str, str] = {}


class ProvisioningSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who buys nodes, and within which limits.

    `provisioner`: `none` (nothing is bought or given back), `karpenter` (NodeClaims, karpenter.sh/v1) or
    `provisioningRequest` (autoscaling.x-k8s.io/v1, of the class `request_class`, in `namespace`). `pools` by name:
    others are never bought from. `max_nodes` and `max_dollars_per_hour` bound everything that was bought and stands,
    together. An order that is not a usable node after `ready_seconds` is taken back, and its pool rests for
    `backoff_seconds`, twice as long after each failure in a row, at most `longest_backoff_seconds`. A request that was
    fulfilled is removed after `booking_seconds`: from then on the cluster autoscaler keeps or removes its node.
    """

    provisioner: Literal["none", "karpenter", "provisioningRequest"] = "none"
    pools: dict[str, PoolOrder] = {}
    max_nodes: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    max_dollars_per_hour: NotNegative = 0.0
    ready_seconds: Positive = 900.0
    backoff_seconds: Positive = 60.0
    longest_backoff_seconds: Positive = 3_600.0
    booking_seconds: Positive = 600.0
    request_class: str = "best-effort-atomic-scale-up.autoscaling.x-k8s.io"
    namespace: str = "plimsoll-system"


OFF = ProvisioningSettings()
