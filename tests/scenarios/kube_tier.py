"""Scenarios on a real control plane: one for many plays, swept between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from controller.resources import core
from controller.resources.kinds import KINDS, MODEL_SERVICE, TRAINING_JOB
from controller.store.errors import NotFound
from controller.store.heard import HeardStore
from controller.store.interface import Resource, Store
from controller.store.kube import KubeStore
from controller.store.kube.paths import collection
from controller.store.kube.transport import Asked
from runtime.clock import VirtualClock
from tests.scenarios.tiers import Session

PLAYED = ("shop", "lab")
"""Namespaces of the scenarios' manifests."""
NAMESPACES = (*PLAYED, "plimsoll-system", "default", "kube-node-lease")
"""Where scenarios leave something."""
ACCOUNT = Resource(group="", version="v1", kind="ServiceAccount", plural="serviceaccounts")
PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.01


class KubeSession:
    """One play on a control plane that others have played on before."""

    tier = "kube"

    def __init__(self, store: KubeStore) -> None:
        self.store = store
        self.heard: HeardStore

    def open(self, clock: VirtualClock, seed: int) -> Store:
        """The API server, behind what makes its watches hear of writes at once. What is random there stays so."""
        del seed
        self.heard = HeardStore(self.store, clock)
        return self.heard

    async def admitted(self, namespaces: Iterable[str]) -> None:
        """Wait for the namespaces' default accounts, without which no pod is admitted."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            for namespace in namespaces:
                while not await self._has_account(namespace):  # noqa: ASYNC110 - a server tells nobody
                    await asyncio.sleep(POLL_SECONDS)

    async def _has_account(self, namespace: str) -> bool:
        try:
            await self.store.get(ACCOUNT, "default", namespace)
        except NotFound:
            return False
        return True

    async def clean(self) -> None:
        """Remove what the play before left, and wait until it is gone."""
        pinned = [MODEL_SERVICE, TRAINING_JOB, core.POD, core.EVENT, core.LEASE, core.SERVICE]
        wide = [kind.resource for kind in KINDS if not kind.resource.namespaced] + [core.NODE]
        for resource in pinned:
            spaces = PLAYED if resource == core.SERVICE else NAMESPACES
            await asyncio.gather(*(self._remove(resource, namespace) for namespace in spaces))
        await asyncio.gather(*(self._remove(resource, "") for resource in wide))
        async with asyncio.timeout(PATIENCE_SECONDS):
            for resource in (*pinned[:3], *wide):
                while (await self.store.list(resource)).raw_items:  # noqa: ASYNC110 - the same
                    await asyncio.sleep(POLL_SECONDS)

    async def _remove(self, resource: Resource, namespace: str) -> None:
        asked = Asked(
            method="DELETE",
            path=collection(resource, namespace),
            parameters={"gracePeriodSeconds": 0},
            doing=f"remove all {resource.plural}",
        )
        await self.store.transport.write(asked)


class KubeTier:
    """A control plane with our kinds installed, by its kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """The same control plane, cleaned."""
        store = await KubeStore.connect(self._kubeconfig, agent="plimsoll-scenarios")
        try:
            session = KubeSession(store)
            await session.clean()
            yield session
        finally:
            await store.close()
