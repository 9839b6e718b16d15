"""Scenarios on a real control plane: one for many plays, swept between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from console.accelerated import admitted, connected, prepare
from controller.provisioning.objects import NODE_CLAIM, POD_TEMPLATE, PROVISIONING_REQUEST
from controller.resources import core, crds
from controller.resources.core import POD_DISRUPTION_BUDGET
from controller.resources.kinds import KINDS, MODEL_SERVICE, TRAINING_JOB
from controller.store.errors import NotFound
from controller.store.heard import HeardStore
from controller.store.interface import JsonObject, Resource, Store
from controller.store.kube import KubeStore
from controller.store.kube.paths import collection
from controller.store.kube.transport import Asked
from runtime.clock import VirtualClock
from tests.scenarios import further
from tests.scenarios.tiers import WALL_SECONDS, Session

PLAYED = ("shop", "lab")
"""Namespaces of the scenarios' manifests."""
OPERATORS = "plimsoll-system"
NAMESPACES = (*PLAYED, OPERATORS, "default", "kube-node-lease")
"""Where scenarios leave something."""
PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.01
COLLECTOR_SECONDS = 120.0


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
        await admitted(self.store, namespaces)

    async def clean(self) -> None:
        """Remove what the play before left, and wait until it is gone."""
        pinned = [
            MODEL_SERVICE,
            TRAINING_JOB,
            core.POD,
            POD_DISRUPTION_BUDGET,
            core.CONTROLLER_REVISION,
            core.EVENT,
            core.LEASE,
            core.SERVICE,
            core.SECRET,
            core.CLAIM,
            PROVISIONING_REQUEST,
            POD_TEMPLATE,
        ]
        ours = [kind.resource for kind in KINDS if not kind.resource.namespaced]
        wide = [NODE_CLAIM, *ours, core.NODE, core.VOLUME]
        for resource in pinned:
            theirs = resource in (core.SERVICE, core.SECRET, core.CLAIM, core.CONTROLLER_REVISION)
            spaces = PLAYED if theirs else NAMESPACES
            await asyncio.gather(*(self._remove(resource, namespace) for namespace in spaces))
        await asyncio.gather(*(self._remove(resource, "") for resource in wide))
        for claim in (await self.store.list(NODE_CLAIM)).items:  # nobody plays Karpenter any more
            if claim["metadata"].get("finalizers"):
                free: JsonObject = {"metadata": {"finalizers": None}}
                await self.store.patch(NODE_CLAIM, claim["metadata"]["name"], free, field_manager="tests")
        async with asyncio.timeout(PATIENCE_SECONDS):
            for resource in (*pinned[:5], *wide):
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
    """A control plane by its kubeconfig; our kinds are installed with the first session."""

    name = "kube"
    wall_seconds = WALL_SECONDS

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._prepared = False

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Session]:
        """The same control plane, cleaned."""
        async with connected(self._kubeconfig, "plimsoll-scenarios") as store:
            if not self._prepared:
                await prepare(store, OPERATORS)
                await crds.install(store, further.definitions())
                await _collector_follows(store)
                self._prepared = True
            session = KubeSession(store)
            await session.clean()
            yield session


async def _collector_follows(store: KubeStore) -> None:
    """Wait until the garbage collector knows our kinds, which it learns of every half minute.

    It leaves the dependents of what is deleted before behind for ever. Raises TimeoutError.
    """
    for kind, spec in (
        (MODEL_SERVICE, {"model": {"name": "llama-2-7b"}, "mode": "Off"}),
        (
            TRAINING_JOB,
            {
                "model": {"name": "gpt-3-1.3b"},
                "gpusPerNode": 1,
                "steps": 1,
                "globalBatch": 1,
                "suspend": True,
            },
        ),
    ):
        head = {"apiVersion": kind.api_version, "kind": kind.kind}
        probe = head | {"metadata": {"generateName": "probe-", "namespace": OPERATORS}, "spec": spec}
        owner = (await store.create(kind, probe, field_manager="tests"))["metadata"]
        reference = head | {"name": owner["name"], "uid": owner["uid"]}
        child = {
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": owner["name"], "namespace": OPERATORS, "ownerReferences": [reference]},
        }  # fmt: skip
        await store.create(core.CONFIG_MAP, child, field_manager="tests")
        await store.delete(kind, owner["name"], OPERATORS)
        async with asyncio.timeout(COLLECTOR_SECONDS):
            while await _there(store, owner["name"]):  # noqa: ASYNC110 - a server tells nobody
                await asyncio.sleep(0.1)


async def _there(store: KubeStore, name: str) -> bool:
    try:
        await store.get(core.CONFIG_MAP, name, OPERATORS)
    except NotFound:
        return False
    return True
