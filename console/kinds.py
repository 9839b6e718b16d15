"""Kinds of objects by every name that people call them, with what to show of each."""

from __future__ import annotations

from controller.resources.core import CORE_RESOURCES
from controller.resources.kinds import AGE, BY_KIND, KINDS, Column
from controller.store.interface import Resource

_SHORT = {
    "Pod": ("po",),
    "Node": ("no",),
    "Namespace": ("ns",),
    "Event": ("ev",),
    "Service": ("svc",),
}
_COLUMNS: dict[str, tuple[Column, ...]] = {
    "Pod": (
        Column("Phase", "string", ".status.phase", "State in one word."),
        Column("Node", "string", ".spec.nodeName", "Where it is bound."),
        Column("Reason", "string", ".status.reason", "Why it is so."),
        AGE,
    ),
    "Node": (
        Column("Ready", "string", ".status.conditions[Ready].status", "What its kubelet says."),
        Column("Product", "string", ".metadata.labels.[nvidia.com/gpu.product]", "GPU product."),
        Column("GPUs", "string", ".status.allocatable.[nvidia.com/gpu]", "GPUs it offers."),
        Column("Cordoned", "boolean", ".spec.unschedulable", "Whether it takes no new pods."),
        AGE,
    ),
    "Namespace": (Column("Phase", "string", ".status.phase", "State in one word."), AGE),
    "Event": (
        Column("Last", "date", ".lastTimestamp", "Time since it happened last."),
        Column("Type", "string", ".type", "Normal or Warning."),
        Column("Reason", "string", ".reason", "Code of the reason."),
        Column("About", "string", ".involvedObject.kind", "Kind of the object.", wide=True),
        Column("Object", "string", ".involvedObject.name", "Name of the object."),
        Column("Message", "string", ".message", "The sentence."),
    ),
    "Lease": (
        Column("Holder", "string", ".spec.holderIdentity", "Who holds it."),
        Column("Renewed", "date", ".spec.renewTime", "Time since it was renewed."),
        AGE,
    ),
    "Service": (Column("Type", "string", ".spec.type", "How it is reached."), AGE),
}


def resources() -> tuple[Resource, ...]:
    """Every kind that the store holds, ours first."""
    return (*(kind.resource for kind in KINDS), *CORE_RESOURCES)


def by_name() -> dict[str, Resource]:
    """Kinds by kind, plural and short name, in lower case."""
    names: dict[str, Resource] = {}
    for resource in resources():
        kind = BY_KIND.get(resource.kind)
        short = kind.short_names if kind else _SHORT.get(resource.kind, ())
        for name in (resource.kind, resource.plural, *short):
            names.setdefault(name.lower(), resource)
    return names


def columns_of(resource: Resource) -> tuple[Column, ...]:
    """What a table shows of a kind, beside namespace and name."""
    kind = BY_KIND.get(resource.kind)
    return kind.columns if kind else _COLUMNS.get(resource.kind, (AGE,))
