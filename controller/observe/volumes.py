"""From which nodes a pod's volumes can be reached, as the scheduler will see it: PVs, their claims and classes.

A claim that is bound goes where its PV's node affinity (and zone label) lets it; one that waits for its first consumer
where its class's topologies let it; one that is missing, going, or not bound by itself, nowhere yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from controller.resources.core import Node, NodeSelector, SelectorTerm
from controller.resources.corestorage import (
    SELECTED_NODE,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    TopologyTerm,
)

KINDS = ("PersistentVolumeClaim", "PersistentVolume", "StorageClass")
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
ZONES = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")
"""Labels of a PV that bind it to nodes with the same (the scheduler's plugin VolumeZone)."""
ZONE_SEPARATOR = "__"
WAITS = "WaitForFirstConsumer"
SHOWN = 3
"""Values of a requirement that are told."""

Reaches = Callable[[Node], bool]
Objects = Mapping[str, Mapping[str, Any]]


class Place(NamedTuple):
    """Where one claim's volume can be reached from; `reaches` None: anywhere. `words` say why not everywhere."""

    reaches: Reaches | None = None
    words: str = ""


def reach(objects: Objects, namespace: str, claims: list[str]) -> tuple[tuple[str, ...] | None, str]:
    """Names of the nodes that all claims can be used on, sorted, and what keeps them off the others; None: any node."""
    places = [place_of(objects, namespace, name) for name in dict.fromkeys(claims)]
    bound = [place for place in places if place.reaches is not None]
    if not bound:
        return None, ""
    nodes = objects.get("Node", {})
    names = (n for n, node in nodes.items() if all(p.reaches(node) for p in bound if p.reaches is not None))
    return tuple(sorted(names)), " and ".join(place.words for place in bound)


def place_of(objects: Objects, namespace: str, name: str) -> Place:
    """Where a claim of a namespace can be used."""
    key = f"{namespace}/{name}"
    what = f"PersistentVolumeClaim {key}"
    claim: PersistentVolumeClaim | None = objects.get("PersistentVolumeClaim", {}).get(key)
    if claim is None:
        return Place(_nowhere, f"{what}, which does not exist")
    if claim.metadata.deletion_timestamp is not None:
        return Place(_nowhere, f"{what}, which is being deleted")
    if claim.spec.volume_name and claim.status.phase == "Bound":
        volume: PersistentVolume | None = objects.get("PersistentVolume", {}).get(claim.spec.volume_name)
        if volume is None:
            return Place(_nowhere, f"{what}, whose PersistentVolume {claim.spec.volume_name} does not exist")
        return _of_volume(volume, what)
    return _unbound(objects, claim, what)


def _of_volume(volume: PersistentVolume, what: str) -> Place:
    affinity = volume.spec.node_affinity
    required = affinity.required if affinity is not None else None
    zones = {name: found for name in ZONES if (found := volume.metadata.labels.get(name))}
    if required is None and not zones:
        return Place()
    parts = [_selector_words(required)] if required is not None else []
    parts += [f"{name} {value}" for name, value in sorted(zones.items()) if required is None]

    def reaches(node: Node) -> bool:
        return (required is None or matches(required, node)) and all(
            node.metadata.labels.get(name) in value.split(ZONE_SEPARATOR) for name, value in zones.items()
        )

    return Place(reaches, f"{what}, whose volume {volume.metadata.name} is in {' and '.join(parts)}")


def _unbound(objects: Objects, claim: PersistentVolumeClaim, what: str) -> Place:
    """A claim without a volume: whoever comes first decides, or it must get one before anybody comes."""
    classes: Mapping[str, StorageClass] = objects.get("StorageClass", {})
    name = claim.spec.storage_class_name
    if name is None:
        name = next(
            (n for n, c in sorted(classes.items()) if c.metadata.annotations.get(DEFAULT_CLASS) == "true"), ""
        )
    found = classes.get(name)
    if found is None:
        missing = f", and StorageClass {name} does not exist" if name else " and names no StorageClass"
        return Place(_nowhere, f"{what}, which is bound to no volume{missing}")
    if found.volume_binding_mode != WAITS:
        return Place(_nowhere, f"{what}, which is bound to no volume yet")
    chosen = claim.metadata.annotations.get(SELECTED_NODE)
    if chosen:
        return Place(lambda node: node.metadata.name == chosen, f"{what}, whose volume is made for {chosen}")
    if found.provisioner == NO_PROVISIONER:
        return _local(objects, name, what)
    topologies = found.allowed_topologies
    if not topologies:
        return Place()
    return Place(
        lambda node: any(_has(term, node) for term in topologies),
        f"{what}, whose StorageClass {name} makes volumes in {_topology_words(topologies)}",
    )


def _local(objects: Objects, name: str, what: str) -> Place:
    """Volumes of a class without a provisioner are there already: a claim goes where a free one is."""
    volumes: Mapping[str, PersistentVolume] = objects.get("PersistentVolume", {})
    free = [v for v in volumes.values() if v.spec.storage_class_name == name and v.spec.claim_ref is None]
    places = [_of_volume(volume, what) for volume in free]
    if any(place.reaches is None for place in places):
        return Place()
    words = f"{what}, for which StorageClass {name} has {len(free)} free volumes"
    return Place(lambda node: any(p.reaches(node) for p in places if p.reaches is not None), words)


def _nowhere(_: Node) -> bool:
    return False


def matches(selector: NodeSelector, node: Node) -> bool:
    """Whether a node is selected: one of the terms holds wholly; an empty term selects nothing."""
    fields = {"metadata.name": node.metadata.name}
    return any(
        (term.match_expressions or term.match_fields)
        and all(_holds(need, node.metadata.labels) for need in term.match_expressions)
        and all(_holds(need, fields) for need in term.match_fields)
        for term in selector.node_selector_terms
    )


def _holds(need: SelectorTerm, labels: Mapping[str, str]) -> bool:
    value = labels.get(need.key)
    if need.operator == "In":
        return value in need.values
    if need.operator == "NotIn":
        return value not in need.values
    if need.operator in ("Exists", "DoesNotExist"):
        return (value is not None) == (need.operator == "Exists")
    return _compares(need, value)


def _compares(need: SelectorTerm, value: str | None) -> bool:
    """Gt and Lt, of whole numbers; anything else selects nothing."""
    try:
        theirs, ours = int(value or ""), int(need.values[0])
    except (ValueError, IndexError):
        return False
    return theirs > ours if need.operator == "Gt" else need.operator == "Lt" and theirs < ours


def _has(term: TopologyTerm, node: Node) -> bool:
    return all(node.metadata.labels.get(need.key) in need.values for need in term.match_label_expressions)


def _selector_words(selector: NodeSelector) -> str:
    terms = selector.node_selector_terms
    said = [
        " and ".join(
            _need_words(n.key, n.operator, n.values) for n in (*t.match_expressions, *t.match_fields)
        )
        for t in terms[:SHOWN]
    ]
    return " or ".join(said) or "no place"


def _need_words(key: str, operator: str, values: list[str]) -> str:
    shown = ", ".join(values[:SHOWN]) + (f" and {len(values) - SHOWN} more" if values[SHOWN:] else "")
    return f"{key} {shown}" if operator == "In" else f"{key} {operator} {shown}".rstrip()


def _topology_words(terms: list[TopologyTerm]) -> str:
    said = [
        " and ".join(_need_words(n.key, "In", n.values) for n in t.match_label_expressions)
        for t in terms[:SHOWN]
    ]
    return " or ".join(said)
