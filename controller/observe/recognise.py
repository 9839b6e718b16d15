"""Which AcceleratorClass a node's GPUs are of: by its labels, by its agent, by what runs on it.

GPU feature discovery writes a product's name into a label with `-` for each space, and appends how it is shared
(`-SHARED`, `-MIG-1g.5gb`). What the driver tells the agent outweighs a label, which anybody can write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cluster.hardware import AcceleratorClass
from controller.hub.messages import InventorySeen
from controller.observe import labels
from controller.observe.quantities import quantity_of
from controller.resources.core import Node as NodeObject

_SLICE_PRODUCT = re.compile(r"nvidia\.com/mig-[0-9a-z.+]+\.product")
_SHARED = re.compile(r"-(?:MIG-\d+g\.\d+gb.*|SHARED)$")
REPLICAS = "nvidia.com/gpu.replicas"
STRATEGY = "nvidia.com/gpu.sharing-strategy"


class Recognised(NamedTuple):
    """A class's name (empty: none fits) and the product's; `closed` says why the node takes no new work."""

    accelerator: str
    product: str
    closed: str = ""
    mismatch: str = ""
    """A sentence where label and driver, or label and what runs there, disagree."""


def written(product: str) -> str:
    """A driver's name of a product as feature discovery labels it."""
    return "-".join(product.split())


def product_names(classes: Mapping[str, AcceleratorClass]) -> dict[str, str]:
    """Every name a product goes by, to the AcceleratorClass's name."""
    found: dict[str, str] = {}
    for name in sorted(classes):
        for alias in (*classes[name].aliases, name):
            found[alias] = name
            found.setdefault(written(alias), name)
    return found


def labelled_products(obj: NodeObject) -> list[str]:
    """What the labels call the node's GPUs: the whole product first, then those of MIG slices."""
    marks = obj.metadata.labels
    slices = sorted(value for key, value in marks.items() if _SLICE_PRODUCT.fullmatch(key))
    return list(dict.fromkeys(each for each in (marks.get(labels.PRODUCT, ""), *slices) if each))


def recognise(
    obj: NodeObject,
    inventory: InventorySeen | None,
    classes: Mapping[str, AcceleratorClass],
    in_use: str = "",
) -> Recognised:
    """The class a node's devices are counted as; `in_use` is the one that pods of ours there were placed for."""
    names = product_names(classes)
    told = written(inventory.devices[0].product) if inventory is not None and inventory.devices else ""
    called = labelled_products(obj)
    by_label, product = _offered(obj, classes, names, called)
    by_driver = names.get(told, "")
    if by_driver and not _same_board(told, called):
        return Recognised(by_driver, told, mismatch=_disagree(told, by_driver, called, by_label))
    found = by_label or by_driver or _by_resource(obj, classes, called or [told])
    if in_use in classes and found != in_use and not by_driver:
        says = f"its label {labels.PRODUCT} says {product or 'nothing'} ({found or 'no AcceleratorClass'})"
        why = f"{says}, and pods placed for {in_use} run on it: correct the label, or let them end"
        return Recognised(in_use, product, why, why)
    closed = _not_so_shared(obj, classes[found]) if found else ""
    raw = inventory.devices[0].product if inventory is not None and inventory.devices else ""
    return Recognised(found, product or raw, closed)


def _offered(
    obj: NodeObject, classes: Mapping[str, AcceleratorClass], names: Mapping[str, str], called: list[str]
) -> tuple[str, str]:
    """The first labelled product that a class knows, one whose resource the node offers before others."""
    known = [(names[each], each) for each in called if each in names]
    offering = [k for k in known if quantity_of(obj.status.allocatable, classes[k[0]].resource_name)]
    return (offering or known or [("", called[0] if called else "")])[0]


def _same_board(told: str, called: Iterable[str]) -> bool:
    """Whether a label names the driver's board, or a shared form of it; no label says nothing against it."""
    bare = [_SHARED.sub("", each) for each in called]
    return not bare or told in bare


def _disagree(told: str, by_driver: str, called: list[str], by_label: str) -> str:
    if by_label == by_driver:
        return ""  # two names of one class
    label = f"label {labels.PRODUCT} says {called[0]} ({by_label or 'no AcceleratorClass'})"
    return f"{label}, the driver says {told} ({by_driver}): the driver is believed"


def _by_resource(obj: NodeObject, classes: Mapping[str, AcceleratorClass], called: list[str]) -> str:
    """The only class whose resource an unlabelled node offers; two that claim it, and nobody can tell."""
    found = claimants(obj, classes)
    return found[0] if len(found) == 1 and not any(called) else ""


def claimants(obj: NodeObject, classes: Mapping[str, AcceleratorClass]) -> list[str]:
    """Classes whose own resource a node offers, when that is not the resource of whole GPUs that all products share."""
    return [
        name
        for name in sorted(classes)
        if classes[name].resource_name != "nvidia.com/gpu"
        and quantity_of(obj.status.allocatable, classes[name].resource_name)
    ]


def _not_so_shared(obj: NodeObject, accelerator: AcceleratorClass) -> str:
    """Why a node's GPUs are not as the class allows them to be shared; empty when they are."""
    marks, name = obj.metadata.labels, accelerator.name
    shared = marks.get(labels.PRODUCT, "")
    replicas = marks.get(REPLICAS, "1")
    times = int(replicas) if replicas.isdecimal() else 1
    strategy = marks.get(STRATEGY, "none") or "none"
    if times > 1 and strategy != "none" and accelerator.sharing != "timeSlicing":
        return (
            f"each of its GPUs is offered {times} times ({strategy}), which AcceleratorClass {name} does not allow"
            f" (sharing: {accelerator.sharing})"
        )
    if "-MIG-" in shared and accelerator.resource_name == "nvidia.com/gpu" and accelerator.sharing != "mig":
        return (
            f"its {accelerator.resource_name} are MIG slices ({shared}), which AcceleratorClass {name} does not allow"
            f" (sharing: {accelerator.sharing})"
        )
    whole = "-MIG-" not in shared and "/mig-" not in accelerator.resource_name
    if accelerator.sharing == "mig" and whole:
        return f"its GPUs are not partitioned, and AcceleratorClass {name} is of MIG slices"
    return ""
