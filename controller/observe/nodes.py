"""Kubernetes nodes, with what their agents found, as nouns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from cluster.base import Ref
from cluster.hardware import AcceleratorClass, Nic, Node, Offer, Pool
from cluster.seeds import stable_hash
from cluster.taints import REPELLING, Taint
from controller.hub.messages import InventorySeen
from controller.observe import labels
from controller.observe.devices import Devices, devices_of
from controller.observe.dra import divisible
from controller.observe.fabric import island_of, place_of
from controller.observe.quantities import quantity_of
from controller.observe.recognise import claimants, recognise
from controller.observe.seating import Beside
from controller.resources.core import Node as NodeObject

ALONE = Beside()
RDMA = ("infiniband", "roce")


class NodeFacts(NamedTuple):
    """A node noun, or the product name nobody recognises; `closed` says why it takes no new work, empty: it does."""

    node: Node | None
    unknown_product: str = ""
    gpus: int = 0
    closed: str = ""
    devices: Devices | None = None
    mismatch: str = ""
    """A sentence where the node's labels and its driver, or what runs there, disagree about the product."""


def node(
    obj: NodeObject,
    inventory: InventorySeen | None,
    classes: dict[str, AcceleratorClass],
    pools: dict[str, Pool],
    *,
    domain: str,
    silent: bool,
    seed: int,
    beside: Beside = ALONE,
) -> NodeFacts:
    """Project a node. Devices come from its agent, or from allocatable while no agent has reported."""
    known = recognise(obj, inventory, classes, beside.in_use)
    if not known.accelerator:
        return _unknown(obj, known.product, classes)
    accelerator = classes[known.accelerator]
    found = devices_of(obj, inventory, accelerator, beside.holding, beside.announced, beside.offered)
    offer, closed = offer_of(obj, accelerator.taint_keys, silent=silent)
    if known.closed and offer is Offer.OPEN:
        offer, closed = Offer.CORDONED, known.closed
    place = place_of(obj.metadata.labels)
    nics = _nics(obj, inventory, accelerator)
    noun = Node(
        ref=Ref("Node", obj.metadata.name, obj.metadata.uid),
        pool=pool_of(obj, known.accelerator, pools, first=True),
        accelerator=known.accelerator,
        devices=found.devices,
        nics=nics,
        cpu_millis=quantity_of(obj.status.allocatable, "cpu", 1000),
        memory_bytes=quantity_of(obj.status.allocatable, "memory"),
        dram_cache_bytes=inventory.dram_cache_bytes if inventory else 0,
        nvme_bytes=inventory.nvme_cache_bytes if inventory else 0,
        topology=place.topology,
        power_domain=domain,
        offer=offer,
        taints=taints_of(obj, accelerator.taint_keys),
        order=stable_hash(seed, obj.metadata.name) >> 16,
        bought=labels.ORDER in obj.metadata.labels,
        rdma_devices=quantity_of(obj.status.allocatable, accelerator.rdma_resource),
        divisible=divisible(beside.announced, accelerator.share_capacities),
    )
    island = island_of(obj.metadata.labels, place.fabric, noun.link)
    noun = msgspec.structs.replace(noun, island=island)
    return NodeFacts(noun, gpus=len(found.devices), closed=closed, devices=found, mismatch=known.mismatch)


def _unknown(obj: NodeObject, product: str, classes: dict[str, AcceleratorClass]) -> NodeFacts:
    """A node of no class: of a product nobody describes, or offering a resource that two classes claim."""
    claimed = claimants(obj, classes)
    if len(claimed) > 1 and not product:
        resource = classes[claimed[0]].resource_name
        product = f"none, and its {resource} could be of AcceleratorClasses {', '.join(claimed)}: label it with {labels.PRODUCT}"
    resource_names = sorted({c.resource_name for c in classes.values()}) or ["nvidia.com/gpu"]
    gpus = max(quantity_of(obj.status.allocatable, r) for r in resource_names)
    return NodeFacts(None, product or "unlabelled", gpus) if gpus or product else NodeFacts(None)


def _nics(obj: NodeObject, inventory: InventorySeen | None, accelerator: AcceleratorClass) -> tuple[Nic, ...]:
    """Ports that are up. Without the resource that lets pods at their RDMA, they are Ethernet to every pod."""
    if inventory is None:
        return ()
    wanted = accelerator.rdma_resource
    plain = bool(wanted) and not quantity_of(obj.status.allocatable, wanted)
    return tuple(
        Nic(
            name=n.name,
            link="ethernet" if plain and n.link in RDMA else n.link,
            rate_bits_per_second=n.rate_bits_per_second,
            gid_types=tuple(n.gid_types),
            subnet=n.subnet,
            numa=max(0, n.numa),
        )
        for n in inventory.nics
        if n.up
    )


def pool_of(obj: NodeObject, accelerator: str, pools: Mapping[str, Pool], *, first: bool = False) -> str:
    """The price pool of a class that a node belongs to. The `first` class of a node is in the pool that its label names, whatever
    that is of; another one only if it is of its own.
    """
    named = obj.metadata.labels.get(labels.POOL, "")
    if named in pools and (first or pools[named].accelerator == accelerator):
        return named
    market = obj.metadata.labels.get(labels.CAPACITY_TYPE, "on-demand").replace("-", "_")
    fitting = [p for _, p in sorted(pools.items()) if p.accelerator == accelerator]
    matching = [p for p in fitting if p.market == market] or fitting
    return matching[0].name if matching else ""


def offer_of(obj: NodeObject, tolerated: tuple[str, ...], *, silent: bool) -> tuple[Offer, str]:
    """Whether a node takes new work, and why not: what its own objects say, in their words."""
    if not obj.ready:
        return Offer.LOST, _not_ready(obj)
    if silent:
        return Offer.LOST, "its agent is silent"
    if obj.metadata.deletion_timestamp is not None:
        return Offer.RECLAIMING, "it is being deleted"
    if obj.spec.unschedulable:
        return Offer.CORDONED, "it is cordoned"
    for taint in taints_of(obj, tolerated):
        return Offer.OPEN, f"its taint {taint} is not tolerated"
    return Offer.OPEN, ""


def taints_of(obj: NodeObject, tolerated: tuple[str, ...]) -> tuple[Taint, ...]:
    """What keeps pods off the node, but for the taint that GPU nodes carry, which ours tolerate whatever its effect."""
    return tuple(
        Taint(key=taint.key, value=taint.value, effect=taint.effect)
        for taint in obj.spec.taints
        if taint.effect in REPELLING and taint.key not in tolerated
    )


def _not_ready(obj: NodeObject) -> str:
    ready = next((c for c in obj.status.conditions if c.type == "Ready"), None)
    if ready is None:
        return "its kubelet has not said that it is ready"
    said = ": ".join(part for part in (ready.reason, ready.message[:200]) if part)
    return f"its Ready condition is {ready.status}" + (f" ({said})" if said else "")
