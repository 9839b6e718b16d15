"""GPU products and their price pools: which there are, and what is wrong with an AcceleratorClass that is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cluster import events as ev
from cluster.observer import noun_key
from controller.observe import intents
from controller.observe.ruled import broken_rules
from controller.resources.acceleratorclass import AcceleratorClass

NounKey = tuple[str, str]
"""The snapshot mapping a noun lives in, and its key there."""


class ProductBook:
    """Products of the sound classes. One that became faulty counts as it was, while it is the same object."""

    def __init__(self) -> None:
        """Start without products."""
        self.faults: dict[str, tuple[str, ...]] = {}
        self._good: dict[str, tuple[str, dict[NounKey, Any]]] = {}

    def resolve(self, objects: Mapping[str, AcceleratorClass]) -> dict[NounKey, Any]:
        """Work out products, pools and faults anew.

        Of two classes that claim one name, or one pool, the older stays: a class added by mistake must not take
        away the product that everything runs on.
        """
        self.faults = {}
        names: dict[str, str] = {}
        pools: dict[str, str] = {}
        gpus = {obj.spec.resource_name: name for name, obj in sorted(objects.items(), reverse=True)}
        for name in sorted(objects, key=lambda each: (objects[each].metadata.creation_timestamp or "", each)):
            obj = objects[name]
            found = broken_rules("AcceleratorClass", obj)
            found += _taken(name, "name", _names(obj), names, "rename it, or drop the alias")
            found += _taken(name, "pool", [p.name for p in obj.spec.pools], pools, "call the pool otherwise")
            found += _not_rdma(name, obj, gpus)
            if found:
                self.faults[name] = tuple(found)
                continue
            names |= dict.fromkeys(_names(obj), name)
            pools |= {pool.name: name for pool in obj.spec.pools}
            product, bought = intents.accelerator(obj)
            nouns: list[ev.AnyNoun] = [product, *bought]
            self._good[name] = (obj.metadata.uid, {noun_key(noun): noun for noun in nouns})
        wanted: dict[NounKey, Any] = {}
        for name in sorted(objects, key=lambda each: (each not in self.faults, each)):
            uid, good = self._good.get(name, ("", {}))
            if uid == objects[name].metadata.uid:
                wanted |= good
        self._good = {name: good for name, good in self._good.items() if name in objects}
        return wanted


def _names(obj: AcceleratorClass) -> list[str]:
    return list(
        dict.fromkeys((obj.metadata.name, obj.spec.display_name or obj.metadata.name, *obj.spec.aliases))
    )


def _not_rdma(name: str, obj: AcceleratorClass, gpus: Mapping[str, str]) -> list[str]:
    """One resource is either GPUs or RDMA devices."""
    rdma = obj.spec.rdma.resource_name if obj.spec.rdma else ""
    if rdma not in gpus:
        return []
    whose = f"what pods ask GPUs by (AcceleratorClass {gpus[rdma]})"
    remedy = "name the resource of the RDMA device plugin"
    return [f"AcceleratorClass {name}: spec.rdma.resourceName {rdma} is {whose}; {remedy}."]


def _taken(name: str, what: str, claimed: list[str], known: Mapping[str, str], remedy: str) -> list[str]:
    return [
        f"AcceleratorClass {name}: the {what} {each!r} belongs to AcceleratorClass {known[each]}, which is older; {remedy}."
        for each in claimed
        if each in known
    ]
