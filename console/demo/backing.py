"""What the demo's objects are kept by: a store in this process, or a real control plane that lives as long as the run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import msgspec

from console.local import embedded
from controller.config import OperatorConfig
from controller.resources.core import NAMESPACE
from controller.resources.manifests import Manifest, apply
from controller.store.heard import HeardStore
from controller.store.interface import Store
from runtime.clock import VirtualClock

KINDS = ("local", "kube")
Say = Callable[[str], None]


async def _at_once(_: Iterable[str]) -> None:
    """Namespaces of the embedded store are ready when they are made."""


class Backing(msgspec.Struct, frozen=True):
    """Opens the store, and waits until pods can be made in namespaces."""

    open_with: Callable[[VirtualClock, int], Store] = embedded
    admitted: Callable[[Iterable[str]], Awaitable[None]] = _at_once


@asynccontextmanager
async def backing(kind: str, say: Say) -> AsyncIterator[Backing]:
    """The store of a kind of `KINDS`. `say` is told how kubectl gets there, before anything happens.

    Raises: ControlPlaneError where no control plane can be started.
    """
    if kind == "local":
        yield Backing()
        return
    from console.accelerated import (  # only here: it needs a cluster's client
        QUICK,
        admitted,
        connected,
        prepare,
    )
    from console.controlplane import ControlPlane

    async with ControlPlane(extra=QUICK) as plane:
        say(f"a real control plane runs ({plane.boot_seconds:.1f} s); watch it from another terminal:")
        say(f"  export KUBECONFIG={plane.kubeconfig}; kubectl get plimsoll,pods -A --watch")
        async with connected(plane.kubeconfig, "plimsoll-demo") as store:
            await prepare(store, OperatorConfig().namespace)
            yield Backing(lambda clock, _seed: HeardStore(store, clock), lambda names: admitted(store, names))


async def apply_to(store: Store, backing: Backing, manifests: list[Manifest]) -> None:
    """Apply namespaces, and the rest when pods can be made in them. Raises: ManifestError, the store's errors."""
    namespaces = [manifest for manifest in manifests if manifest.resource == NAMESPACE]
    await apply(store, namespaces)
    await backing.admitted(manifest.obj["metadata"]["name"] for manifest in namespaces)
    await apply(store, [manifest for manifest in manifests if manifest.resource != NAMESPACE])
