"""NodeClaims and ProvisioningRequests, as far as they are written and read here.

Sources: karpenter.sh/v1 NodeClaim (kubernetes-sigs/karpenter, pkg/apis/v1/nodeclaim.go) and autoscaling.x-k8s.io/v1
ProvisioningRequest (kubernetes/autoscaler, cluster-autoscaler/apis/provisioningrequest).
"""

from __future__ import annotations

from typing import Literal

from cluster.hardware import Pool
from controller.observe import labels
from controller.provisioning.settings import PoolOrder, ProvisioningSettings
from controller.resources.base import ObjectMeta
from controller.resources.core import CoreCondition, CoreStruct
from controller.store.interface import JsonObject, Resource

NODE_CLAIM = Resource(
    group="karpenter.sh",
    version="v1",
    kind="NodeClaim",
    plural="nodeclaims",
    namespaced=False,
    has_status=True,
    generation=True,
)
PROVISIONING_REQUEST = Resource(
    group="autoscaling.x-k8s.io",
    version="v1",
    kind="ProvisioningRequest",
    plural="provisioningrequests",
    has_status=True,
    generation=True,
)
POD_TEMPLATE = Resource(group="", version="v1", kind="PodTemplate", plural="podtemplates")

NAME_LIMIT = 63
STAND_IN = "pause:3.10"
"""Image of the pod that stands for a node in a request; it never runs."""
OWN_POOL = "karpenter.sh/nodepool"
"""Label by which Karpenter's own disruption knows whose a claim is; ours names no NodePool that exists."""

Stage = Literal["ordered", "there", "failed"]


class OrderStatus(CoreStruct, frozen=True, kw_only=True):
    """Of either status: conditions, and the node a claim became."""

    node_name: str = ""
    conditions: list[CoreCondition] = []


class OrderObject(CoreStruct, frozen=True, kw_only=True):
    """A NodeClaim or ProvisioningRequest."""

    metadata: ObjectMeta
    status: OrderStatus = OrderStatus()

    @property
    def pool(self) -> str:
        """The price pool it was ordered from."""
        return self.metadata.labels.get(labels.POOL, "")

    def stage(self) -> Stage:
        """How far it is: ready or provisioned is `there`; a request that failed says so itself."""
        held = {c.type for c in self.status.conditions if c.status == "True"}
        if held & {"Failed", "CapacityRevoked"}:
            return "failed"
        return "there" if held & {"Ready", "Provisioned"} else "ordered"

    def obstacle(self) -> str:
        """What its provisioner says keeps it, in its own words; empty when nothing is said."""
        for each in self.status.conditions:
            bad = each.status == "False" or each.type in ("Failed", "CapacityRevoked")
            if bad and each.message:
                return f"{each.reason or each.type}: {each.message}"[:200]
        return ""


def order_name(pool: str, number: int) -> str:
    """`plimsoll-<pool>-<n>`: the same for whoever orders the n-th node of a pool, so that it is ordered once."""
    tail = f"-{number}"
    return f"plimsoll-{pool}"[: NAME_LIMIT - len(tail)].rstrip("-.") + tail


def marks(name: str, pool: str) -> dict[str, str]:
    """Labels of an order; Karpenter puts a claim's labels on its node, which is how we know ours."""
    return {labels.MANAGED_BY: "plimsoll", labels.POOL: pool, labels.ORDER: name}


def node_claim(name: str, pool: Pool, resource_name: str, order: PoolOrder) -> JsonObject:
    """One node of a pool, as a NodeClaim of its own (no NodePool: nobody but us consolidates it away)."""
    node_class = order.node_class
    return {
        "apiVersion": NODE_CLAIM.api_version,
        "kind": NODE_CLAIM.kind,
        "metadata": {"name": name, "labels": {OWN_POOL: "plimsoll"} | order.labels | marks(name, pool.name)},
        "spec": {
            "nodeClassRef": {
                "group": node_class.group if node_class else "",
                "kind": node_class.kind if node_class else "",
                "name": node_class.name if node_class else "",
            },
            "requirements": [
                _requirement(each.key, each.operator, each.values) for each in order.requirements
            ]
            + [_requirement(OWN_POOL, "In", ("plimsoll",))],
            "resources": {"requests": {resource_name: str(pool.node_size)}},
            "taints": [_taint(each) for each in order.taints],
            "expireAfter": "Never",
        },
    }


def _requirement(key: str, operator: str, values: tuple[str, ...]) -> JsonObject:
    return {"key": key, "operator": operator, **({"values": list(values)} if values else {})}


def _taint(text: str) -> JsonObject:
    marked, _, effect = text.rpartition(":")
    key, _, value = marked.partition("=")
    return {"key": key, "effect": effect, **({"value": value} if value else {})}


def pod_template(name: str, pool: Pool, resource_name: str, order: PoolOrder, namespace: str) -> JsonObject:
    """The pod that stands for a whole node of a pool in a ProvisioningRequest; it is never run."""
    return {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": {"name": name, "namespace": namespace, "labels": marks(name, pool.name)},
        "template": {
            "metadata": {"labels": marks(name, pool.name)},
            "spec": {
                "nodeSelector": dict(order.node_selector),
                "tolerations": [{"key": resource_name, "operator": "Exists"}],
                "containers": [
                    {
                        "name": "node",
                        "image": STAND_IN,
                        "resources": {"limits": {resource_name: str(pool.node_size)}},
                    }
                ],
                "restartPolicy": "Never",
            },
        },
    }


def provisioning_request(
    name: str, pool: Pool, order: PoolOrder, settings: ProvisioningSettings
) -> JsonObject:
    """Capacity for one node of a pool. Its PodTemplate must be there before."""
    return {
        "apiVersion": PROVISIONING_REQUEST.api_version,
        "kind": PROVISIONING_REQUEST.kind,
        "metadata": {"name": name, "namespace": settings.namespace, "labels": marks(name, pool.name)},
        "spec": {
            "provisioningClassName": settings.request_class,
            "parameters": dict(order.parameters),
            "podSets": [{"podTemplateRef": {"name": name}, "count": 1}],
        },
    }
