"""Leaving: what stays when the operator goes, what goes with the definitions, and that a new operator takes over what runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controller.observe import labels
from controller.operator import Operator
from controller.resources import crds
from controller.resources.core import POD, SERVICE
from controller.resources.kinds import KINDS, MODEL_SERVICE, TRAINING_JOB
from controller.store.interface import JsonObject
from controller.store.kube import KubeStore
from runtime.clock import WallClock
from tests.cluster.operating import Cluster, Recorder, config_of, operating
from tests.cluster.test_pods import here
from tests.controlplane import Started
from tests.scenarios.props import job, service

WATCHED_SECONDS = 5
"""For so long nothing may happen to what serves while no operator runs."""
SPACE = "shop"
DEFINITIONS = Path(__file__).parents[2] / crds.FOLDER

FOREIGN = """
apiVersion: v1
kind: Pod
metadata:
  name: mine
  labels: {app.kubernetes.io/managed-by: plimsoll, plimsoll.dev/service: chat}
spec:
  containers: [{name: main, image: "busybox:1"}]
---
apiVersion: v1
kind: Service
metadata:
  name: mine
  labels: {app.kubernetes.io/managed-by: plimsoll, plimsoll.dev/service: chat}
spec: {selector: {app: mine}, ports: [{port: 80}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: mine, labels: {plimsoll.dev/service: chat}}
data: {kept: "yes"}
"""
"""Other people's objects that look like ours and have no owner."""


def uids(objects: list[JsonObject]) -> dict[str, str]:
    return {each["metadata"]["name"]: each["metadata"]["uid"] for each in objects}


async def leave(cluster: Cluster) -> None:
    """The operator's process ends in order, as a deleted Deployment ends it."""
    task = cluster.running.pop(1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await cluster.operator.stop()


@asynccontextmanager
async def successor(cluster: Cluster) -> AsyncIterator[Recorder]:
    """Another operator, as a new installation starts one; it has its own way to the API server and no memory."""
    store = await KubeStore.connect(cluster.plane.kubeconfig, clock=WallClock(), seed=3)
    recorder = Recorder(store)
    made = Operator(recorder, WallClock(), config_of(cluster.operator.config.namespace))
    await made.start()
    stop = asyncio.Event()
    cluster.running.append(asyncio.create_task(made.run(stop)))
    try:
        yield recorder
    finally:
        stop.set()
        await asyncio.gather(cluster.running.pop(), return_exceptions=True)
        await made.stop()
        await store.close()


async def ready(cluster: Cluster, count: int) -> bool:
    return len(await cluster.ready()) == count


def held_by(objects: list[JsonObject]) -> dict[str, Any]:
    """Finalizers by name."""
    return {
        each["metadata"]["name"]: each["metadata"]["finalizers"]
        for each in objects
        if each["metadata"].get("finalizers")
    }


async def _serving(cluster: Cluster) -> list[JsonObject]:
    text = "\n---\n".join((service("chat", "minReplicas: 2"), job("bert", steps=100_000)))
    await cluster.kubectl("apply", "-f", "-", stdin=here(text, SPACE))
    await cluster.kubectl("apply", "-f", "-", stdin=FOREIGN)
    await cluster.until(lambda: ready(cluster, 5), "two replicas, two ranks, and a pod that looks like ours")
    return await cluster.ready()


async def _no_finalizers(cluster: Cluster) -> None:
    for resource in (MODEL_SERVICE, TRAINING_JOB, POD, SERVICE):
        found = list((await cluster.admin.list(resource, SPACE)).items)
        assert found
        assert not held_by(found), f"something of ours holds {resource.plural}"


async def _nothing_happens(cluster: Cluster, before: list[JsonObject]) -> None:
    await asyncio.sleep(WATCHED_SECONDS)
    assert uids(await cluster.ready()) == uids(before), "what served without an operator does not any more"


async def _adopted(cluster: Cluster, before: list[JsonObject]) -> None:
    """A new operator decides on what runs: nothing is made or removed, and it reports on it."""
    await cluster.kubectl("scale", "msvc/chat", "--replicas=2")
    async with successor(cluster) as recorder:
        patch = {"spec": {"minReplicas": 1, "maxReplicas": 3}}
        changed = await cluster.admin.patch(MODEL_SERVICE, "chat", patch, SPACE, field_manager="user")
        generation = changed["metadata"]["generation"]

        async def answered() -> bool:
            obj = await cluster.admin.get(MODEL_SERVICE, "chat", SPACE)
            return bool(obj["status"].get("observedGeneration") == generation)

        await cluster.until(answered, "the new operator answers the changed spec")
        await asyncio.sleep(WATCHED_SECONDS)
        made = recorder.asked["create", POD, ""]
        kept = uids(await cluster.ready())
        gang = {name: uid for name, uid in uids(before).items() if name.startswith("bert")}
        assert gang.items() <= kept.items(), "a gang that ran was started again"
        assert made == 0, f"{made} pods were made anew"


async def _collector_watches(cluster: Cluster) -> None:
    """Wait until the garbage collector follows our kinds; only then does it finish a foreground deletion of one.

    It learns of new kinds every half minute (measured): what is deleted before, definitions and all, leaves its
    dependents behind for ever, as of any operator.
    """
    probes = "\n---\n".join((service("probe", "replicas: 0\nmode: 'Off'"), job("probe", "suspend: true")))
    await cluster.kubectl("apply", "-f", "-", stdin=here(probes, SPACE))
    await cluster.kubectl("delete", "msvc/probe", "tjob/probe", "--cascade=foreground", "--timeout=90s")


async def _definitions_go(cluster: Cluster) -> None:
    """`kubectl delete` of the definitions: their objects, and what those own. Nothing else."""
    await _collector_watches(cluster)
    await cluster.kubectl("delete", "-f", str(DEFINITIONS), "--timeout=90s")

    async def gone() -> bool:
        names = set(uids(await cluster.pods()))
        return names == {"mine"}

    await cluster.until(gone, "the pods of deleted objects are gone, and nobody else's")
    await asyncio.sleep(WATCHED_SECONDS)
    services = uids(list((await cluster.admin.list(SERVICE, SPACE)).items))
    assert set(services) == {"mine"}, services
    assert (await cluster.json("get", "configmap", "mine"))["data"] == {"kept": "yes"}
    names = (await cluster.kubectl("get", "crd", "-o", "name")).stdout
    assert not any(kind.resource.qualified in names for kind in KINDS)


@pytest.mark.slow  # a control plane of its own: the definitions go
def test_what_stays_and_what_goes_when_it_is_uninstalled(new_control_plane: Started):
    plane = new_control_plane()
    plane.create_namespace(SPACE)

    async def scenario() -> None:
        async with operating(plane, SPACE, l4=1, h100=2) as cluster:
            before = await _serving(cluster)
            await _no_finalizers(cluster)
            await leave(cluster)
            await _nothing_happens(cluster, before)
            await _adopted(cluster, before)
            await _nothing_happens(cluster, before)
            try:
                await _definitions_go(cluster)
            finally:
                await crds.install(cluster.admin)
            assert labels.MANAGED_BY in (await cluster.admin.get(POD, "mine", SPACE))["metadata"]["labels"]

    asyncio.run(scenario())
