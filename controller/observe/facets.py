"""Nodes of several kinds of GPU slices: each kind beyond the first is a node of the model of its own, on the same machine.

A board that is partitioned into MIG profiles of several sizes is offered by one resource a profile, and each profile is an
AcceleratorClass with `sharing: mig`. What a pod of one profile holds is nothing to the others; CPU and memory are the machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from cluster.hardware import AcceleratorClass, Node, Offer, Pool
from controller.observe.devices import Holding, devices_of
from controller.observe.nodes import offer_of, pool_of, taints_of
from controller.observe.quantities import quantity_of
from controller.observe.recognise import labelled_products, product_names
from controller.resources.core import Node as NodeObject


def facet_name(node: str, accelerator: str) -> str:
    """How the part of a machine that has another class than its first one is called in the model."""
    return f"{node}/{accelerator}"


def facets_of(
    obj: NodeObject,
    primary: Node,
    classes: Mapping[str, AcceleratorClass],
    pools: Mapping[str, Pool],
    holding: Callable[[str], Holding],
    *,
    silent: bool,
) -> list[tuple[Node, int]]:
    """The other kinds of slices that a machine offers, each with how many devices are in use beyond what it offers.

    `primary` is the machine as the class that it was recognised as; `holding` says what pods have of a facet, by its name. A
    machine that takes no new work for what is wrong with its labels has its facets closed as well.
    """
    found = []
    for name in other_classes(obj, primary.accelerator, classes):
        accelerator, facet = classes[name], facet_name(primary.name, name)
        held = holding(facet)
        if not (_offered(obj, accelerator) or held.numbered or held.unnumbered):
            continue
        devices = devices_of(obj, None, accelerator, held)
        offer, _ = offer_of(obj, accelerator.taint_keys, silent=silent)
        if offer is Offer.OPEN and primary.offer is not Offer.OPEN:
            offer = primary.offer
        noun = msgspec.structs.replace(
            primary,
            ref=msgspec.structs.replace(primary.ref, name=facet),
            host=primary.name,
            pool=pool_of(obj, name, pools),
            accelerator=name,
            devices=tuple(msgspec.structs.replace(d, uuid=f"{facet}-{d.index}") for d in devices.devices),
            nics=(),
            power_domain="",
            island="",
            offer=offer,
            taints=taints_of(obj, accelerator.taint_keys),
            bought=False,
            rdma_devices=0,
            divisible={},
        )
        found.append((noun, devices.lost))
    return found


def other_classes(obj: NodeObject, primary: str, classes: Mapping[str, AcceleratorClass]) -> list[str]:
    """Classes of MIG slices by whose own resource a machine offers, or has, devices beside those of its first class.

    Of several classes of one resource the one that a label of the machine names; none where no label does.
    """
    names = product_names(classes)
    called = {names[each] for each in labelled_products(obj) if each in names}
    taken = classes[primary].resource_name if primary in classes else ""
    by_resource: dict[str, list[str]] = {}
    for name in sorted(classes):
        each = classes[name]
        own = each.sharing == "mig" and each.resource_name not in ("nvidia.com/gpu", taken)
        if own and name != primary and _has(obj, each):
            by_resource.setdefault(each.resource_name, []).append(name)
    found = []
    for claiming in by_resource.values():
        labelled = [name for name in claiming if name in called]
        if len(labelled) == 1 or len(claiming) == 1:
            found.append((labelled or claiming)[0])
    return sorted(found)


def _offered(obj: NodeObject, accelerator: AcceleratorClass) -> int:
    return quantity_of(obj.status.allocatable, accelerator.resource_name)


def _has(obj: NodeObject, accelerator: AcceleratorClass) -> bool:
    return bool(_offered(obj, accelerator) or quantity_of(obj.status.capacity, accelerator.resource_name))
