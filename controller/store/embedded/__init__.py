"""The store in this process: the API server's semantics without the API server.

`open_store` gives one that holds our five kinds with their schemas and the kinds of Kubernetes that the
operator touches, with the namespaces a cluster is born with.
"""

from __future__ import annotations

from collections.abc import Mapping

from controller.resources.core import CORE_RESOURCES, NAMESPACE
from controller.resources.coredra import DRA_RESOURCES
from controller.resources.kinds import KINDS
from controller.resources.schema import schema_of
from controller.store.embedded.objects import WINDOW
from controller.store.embedded.ownership import Manager
from controller.store.embedded.store import EmbeddedStore
from controller.store.interface import JsonObject, Resource
from runtime.clock import Clock

BORN_NAMESPACES = ("default", "kube-node-lease", "kube-system")


def open_store(
    clock: Clock,
    *,
    seed: int = 0,
    namespaces: tuple[str, ...] = BORN_NAMESPACES,
    window: int = WINDOW,
    watch_seconds: float = 0.0,
    more: Mapping[Resource, JsonObject | None] | None = None,
) -> EmbeddedStore:
    """A new store with all kinds known to the operator; see `EmbeddedStore` for `window`, `watch_seconds`.

    `more` are further kinds with their schemas, as somebody's definitions bring them.
    """
    kinds: dict[Resource, JsonObject | None] = dict.fromkeys((*CORE_RESOURCES, *DRA_RESOURCES))
    kinds |= {kind.resource: schema_of(kind.resource.kind) for kind in KINDS}
    kinds |= more or {}
    store = EmbeddedStore(kinds, clock, seed=seed, window=window, watch_seconds=watch_seconds)
    for name in namespaces:
        born: JsonObject = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        store.objects.create(NAMESPACE, born, Manager("kube-apiserver", "Update"))
    return store


__all__ = ["BORN_NAMESPACES", "EmbeddedStore", "open_store"]
