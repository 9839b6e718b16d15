"""Nodes of several kinds of GPU slices: each kind beyond the first is a node of the model of its own, on the same machine.

A board that is partitioned into MIG profiles of several sizes is offered by one resource a profile, and each profile is an
AcceleratorClass with `sharing: mig`. What a pod of one profile holds is nothing to the others; CPU and memory are the machine's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from cluster.hardware import AcceleratorClass, Node, Offer, Pool
from cluster.observer import Observer
from controller.observe.devices import Holding, devices_of
from controller.observe.folding import Folding
from controller.observe.nodes import offer_of, pool_of, taints_of
from controller.observe.pods import WHOLE_MACHINE, Part, Parts
from controller.observe.quantities import quantity_of
from controller.observe.recognise import labelled_products, product_names
from controller.observe.seating import Seating
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


class Machines:
    """The parts of machines, kept in the model; `seating` counts what pods have of each."""

    def __init__(self, observer: Observer, seating: Seating) -> None:
        self._observer, self._seating = observer, seating
        self._folding = Folding(observer)
        self._parts: dict[str, dict[str, Part]] = {}

    def parts(self, machine: str) -> Parts:
        """What a machine is beside its first class, by class."""
        return self._parts.get(machine, WHOLE_MACHINE)

    def look(
        self,
        name: str,
        obj: NodeObject | None,
        node: Node | None,
        classes: Mapping[str, AcceleratorClass],
        now: float,
        *,
        silent: bool,
    ) -> bool:
        """Project a machine's parts (None: it is gone). True when a planner would look at something new."""
        found: list[tuple[Node, int]] = []
        if obj is not None and node is not None:
            pools = self._observer.live("pools")
            held = partial(self._seating.holding_on, name)
            found = facets_of(obj, node, classes, pools, held, silent=silent)
        before = self._parts.pop(name, {})
        parts = {
            part.accelerator: Part(part.name, classes[part.accelerator].resource_name) for part, _ in found
        }
        changed = before != parts
        for gone in sorted(each.node for key, each in before.items() if key not in parts):
            changed |= self._seating.lose(gone, 0, now) | self._folding.forget("nodes", gone, now)
        for part, lost in found:
            changed |= self._folding.fold(part, now) | self._seating.lose(part.name, lost, now)
        (self._seating.parted.add if parts else self._seating.parted.discard)(name)
        if parts:
            self._parts[name] = parts
        return changed
