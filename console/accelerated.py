"""A real control plane on which time is accelerated: how it is started, and what must be there before anything plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from controller.resources import crds
from controller.resources.core import NAMESPACE
from controller.store.errors import AlreadyExists, NotFound
from controller.store.interface import JsonObject, Resource, Store
from controller.store.kube import KubeStore
from controller.store.kube.budget import Budget
from runtime.clock import WallClock

QUICK: Mapping[str, Sequence[str]] = {
    "kube-controller-manager": (
        # A node is silent after forty of our seconds; the fleet sees to that (simulator/fleet/settling.py).
        "--node-monitor-grace-period=8s",
        "--node-startup-grace-period=8s",
        "--node-monitor-period=500ms",
        # One eviction in ten seconds, and none in a small cluster of which more than half is silent, are limits of
        # wall time too.
        "--node-eviction-rate=100",
        "--secondary-node-eviction-rate=100",
        "--large-cluster-size-threshold=0",
    )
}
"""Flags that make a control plane no laxer, only quicker to judge nodes."""
REQUESTS_PER_SECOND = 5_000.0
BURST = 10_000
"""What one client may ask: an hour's requests come in some minutes."""
ACCOUNT = Resource(group="", version="v1", kind="ServiceAccount", plural="serviceaccounts")
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.01


@asynccontextmanager
async def connected(kubeconfig: Path, agent: str) -> AsyncIterator[KubeStore]:
    """The API server of a kubeconfig, closed in the end. Raises: AccessError."""
    budget = Budget(WallClock(), per_second=REQUESTS_PER_SECOND, burst=BURST)
    store = await KubeStore.connect(kubeconfig, budget=budget, agent=agent)
    try:
        yield store
    finally:
        await store.close()


async def prepare(store: Store, namespace: str) -> None:
    """Install our kinds, and make the operator's namespace.

    Raises: NotEstablished, TimeoutError, the store's errors.
    """
    await crds.install(store)
    obj: JsonObject = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    with suppress(AlreadyExists):
        await store.create(NAMESPACE, obj, field_manager="plimsoll")
    await admitted(store, [namespace])


async def admitted(store: Store, namespaces: Iterable[str]) -> None:
    """Wait for the namespaces' default accounts, without which no pod is admitted. Raises: TimeoutError."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        for namespace in namespaces:
            while not await _has_account(store, namespace):  # noqa: ASYNC110 - a server tells nobody
                await asyncio.sleep(POLL_SECONDS)


async def _has_account(store: Store, namespace: str) -> bool:
    try:
        await store.get(ACCOUNT, "default", namespace)
    except NotFound:
        return False
    return True
