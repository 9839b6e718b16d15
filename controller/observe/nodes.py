"""Kubernetes nodes, with what their agents found, as nouns."""

from __future__ import annotations

from typing import NamedTuple

from cluster.base import Ref
from cluster.hardware import AcceleratorClass, Device, Nic, Node, Offer, Pool
from cluster.seeds import stable_hash
from controller.hub.messages import InventorySeen
from controller.observe import labels
from controller.observe.quantities import quantity_of
from controller.resources.core import Node as NodeObject

REPELLING = ("NoSchedule", "NoExecute")
"""Effects of taints that keep pods off a node."""


class NodeFacts(NamedTuple):
    """A node noun, or the product name nobody recognises; `closed` says why it takes no new work, empty: it does."""

    node: Node | None
    unknown_product: str = ""
    gpus: int = 0
    closed: str = ""


def product_names(classes: dict[str, AcceleratorClass]) -> dict[str, str]:
    """Every name a product goes by, to the AcceleratorClass's name."""
    return {alias: name for name in sorted(classes) for alias in (*classes[name].aliases, name)}


def node(
    obj: NodeObject,
    inventory: InventorySeen | None,
    classes: dict[str, AcceleratorClass],
    pools: dict[str, Pool],
    *,
    domain: str,
    silent: bool,
    seed: int,
) -> NodeFacts:
    """Project a node. Devices come from its agent, or from allocatable while no agent has reported."""
    found = obj.metadata.labels.get(labels.PRODUCT, "") or _reported_product(inventory)
    name = product_names(classes).get(found, "")
    if not name:
        resource_names = sorted({c.resource_name for c in classes.values()}) or ["nvidia.com/gpu"]
        gpus = max(quantity_of(obj.status.allocatable, r) for r in resource_names)
        return NodeFacts(None, found or "unlabelled", gpus) if gpus or found else NodeFacts(None)
    accelerator = classes[name]
    devices = _devices(obj, inventory, accelerator)
    offer, closed = _offer(obj, accelerator.resource_name, silent=silent)
    noun = Node(
        ref=Ref("Node", obj.metadata.name, obj.metadata.uid),
        pool=_pool(obj, name, pools),
        accelerator=name,
        devices=devices,
        nics=_nics(inventory),
        cpu_millis=quantity_of(obj.status.allocatable, "cpu", 1000),
        memory_bytes=quantity_of(obj.status.allocatable, "memory"),
        dram_cache_bytes=inventory.dram_cache_bytes if inventory else 0,
        nvme_bytes=inventory.nvme_cache_bytes if inventory else 0,
        island=obj.metadata.labels.get(labels.ISLAND, ""),
        topology=tuple(
            v for k in (labels.ZONE, labels.BLOCK, labels.RACK) if (v := obj.metadata.labels.get(k, ""))
        ),
        power_domain=domain,
        offer=offer,
        order=stable_hash(seed, obj.metadata.name) >> 16,
    )
    return NodeFacts(noun, gpus=len(devices), closed=closed)


def _reported_product(inventory: InventorySeen | None) -> str:
    return inventory.devices[0].product if inventory and inventory.devices else ""


def _devices(
    obj: NodeObject, inventory: InventorySeen | None, accelerator: AcceleratorClass
) -> tuple[Device, ...]:
    allocatable = quantity_of(obj.status.allocatable, accelerator.resource_name)
    if inventory is None or not inventory.devices:
        return tuple(Device(uuid=f"{obj.metadata.name}-{i}", index=i) for i in range(allocatable))
    # A kubelet that offers fewer devices than the agent sees (one went unhealthy) is believed: the pod binds there.
    healthy = sorted((d for d in inventory.devices), key=lambda d: (not d.healthy, d.index))
    offered = {d.index for d in healthy[:allocatable]}
    return tuple(
        Device(
            uuid=d.uuid, index=d.index, numa=d.numa, clique=d.clique, healthy=d.healthy and d.index in offered
        )
        for d in sorted(inventory.devices, key=lambda d: d.index)
    )


def _nics(inventory: InventorySeen | None) -> tuple[Nic, ...]:
    if inventory is None:
        return ()
    return tuple(
        Nic(
            name=n.name,
            link=n.link,
            rate_bits_per_second=n.rate_bits_per_second,
            gid_types=tuple(n.gid_types),
            subnet=n.subnet,
            numa=max(0, n.numa),
        )
        for n in inventory.nics
        if n.up
    )


def _pool(obj: NodeObject, accelerator: str, pools: dict[str, Pool]) -> str:
    named = obj.metadata.labels.get(labels.POOL, "")
    if named in pools:
        return named
    market = obj.metadata.labels.get(labels.CAPACITY_TYPE, "on-demand").replace("-", "_")
    fitting = [p for _, p in sorted(pools.items()) if p.accelerator == accelerator]
    matching = [p for p in fitting if p.market == market] or fitting
    return matching[0].name if matching else ""


def _offer(obj: NodeObject, resource_name: str, *, silent: bool) -> tuple[Offer, str]:
    """Whether a node takes new work, and why not: what its own objects say, in their words."""
    if not obj.ready:
        return Offer.LOST, _not_ready(obj)
    if silent:
        return Offer.LOST, "its agent is silent"
    if obj.metadata.deletion_timestamp is not None:
        return Offer.RECLAIMING, "it is being deleted"
    if obj.spec.unschedulable:
        return Offer.CORDONED, "it is cordoned"
    for taint in obj.spec.taints:
        # Our pods tolerate the taint that GPU nodes carry, whatever its effect, and no other one.
        if taint.effect in REPELLING and taint.key != resource_name:
            value = f"={taint.value}" if taint.value else ""
            return Offer.CORDONED, f"its taint {taint.key}{value}:{taint.effect} is not tolerated"
    return Offer.OPEN, ""


def _not_ready(obj: NodeObject) -> str:
    ready = next((c for c in obj.status.conditions if c.type == "Ready"), None)
    if ready is None:
        return "its kubelet has not said that it is ready"
    said = ": ".join(part for part in (ready.reason, ready.message[:200]) if part)
    return f"its Ready condition is {ready.status}" + (f" ({said})" if said else "")
