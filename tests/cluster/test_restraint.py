"""Others drain, preempt and guard: real kubectl, scheduler and disruption controller. We make way, and come to rest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from console.controlplane import ControlPlane
from controller.resources.core import POD, POD_DISRUPTION_BUDGET
from controller.store.embedded import open_store
from controller.store.errors import StoreError, TooManyRequests
from controller.store.interface import JsonObject, Store
from controller.store.kube import KubeStore
from runtime.clock import WallClock
from tests.cluster.operating import Cluster, operating
from tests.cluster.test_pods import here
from tests.scenarios.props import service

GUARD = """
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: chat}
spec:
  minAvailable: 1
  selector: {matchLabels: {plimsoll.dev/service: chat}}
"""

PREEMPTOR = """
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: urgent-NAMESPACE}
value: 100000
---
apiVersion: v1
kind: Pod
metadata: {name: urgent}
spec:
  priorityClassName: urgent-NAMESPACE
  nodeSelector: {kubernetes.io/hostname: NODE}
  tolerations: [{operator: Exists}]
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: "nobody:1", resources: {limits: {nvidia.com/gpu: "2"}}}]
"""


async def served(cluster: Cluster, count: int) -> bool:
    return len(await cluster.ready()) == count


def nodes_of(pods: list[JsonObject]) -> set[str]:
    return {pod["spec"].get("nodeName", "") for pod in pods}


def created(cluster: Cluster) -> int:
    return sum(
        n
        for (verb, kind, below), n in cluster.recorder.asked.items()
        if (verb, kind, below) == ("create", POD, "")
    )


async def on_one_node(cluster: Cluster, more: str = "minReplicas: 2\nmaxReplicas: 2") -> str:
    """Two replicas, packed on one node of two GPUs; its name."""
    await cluster.kubectl("apply", "-f", "-", stdin=here(service("chat", more), cluster.namespace))
    await cluster.until(lambda: served(cluster, 2), "two replicas")
    [node] = nodes_of(await cluster.ready())
    return node


@pytest.mark.slow
def test_kubectl_drain_ends_and_every_pod_is_replaced_once_elsewhere(
    control_plane: ControlPlane, namespace: str
):
    async def scenario() -> None:
        async with operating(control_plane, namespace, l4=2) as cluster:
            node = await on_one_node(cluster)
            await cluster.kubectl("apply", "-f", "-", stdin=GUARD)

            async def counted() -> bool:
                found = await cluster.admin.get(POD_DISRUPTION_BUDGET, "chat", namespace)
                return bool(found.get("status", {}).get("currentHealthy") == 2)

            await cluster.until(counted, "the disruption controller has counted")
            try:
                told = await cluster.kubectl("drain", node, "--ignore-daemonsets", "--timeout=80s")
                assert "drained" in told.stdout
                await cluster.until(lambda: served(cluster, 2), "two replicas elsewhere")
                assert node not in nodes_of(await cluster.pods())
                before = created(cluster)
                await asyncio.sleep(5)  # two plans: nothing more is due
                assert created(cluster) == before == 4, "each evicted pod is replaced once"
            finally:
                await cluster.kubectl("uncordon", node)

    asyncio.run(scenario())


async def preempted(cluster: Cluster, node: str) -> None:
    text = PREEMPTOR.replace("NAMESPACE", cluster.namespace).replace("NODE", node)
    await cluster.kubectl("apply", "-f", "-", stdin=text)

    async def runs() -> bool:
        pod = await cluster.admin.get(POD, "urgent", cluster.namespace)
        return bool(pod["spec"].get("nodeName") == node)

    await cluster.until(runs, "the more important pod has the node")


@pytest.mark.slow
def test_a_more_important_pod_of_others_wins_and_ours_go_elsewhere(
    control_plane: ControlPlane, namespace: str
):
    async def scenario() -> None:
        async with operating(control_plane, namespace, l4=2) as cluster:
            node = await on_one_node(cluster)
            await preempted(cluster, node)
            await cluster.until(lambda: served(cluster, 2), "two replicas elsewhere")
            assert node not in nodes_of(await cluster.ready())
            assert created(cluster) == 4, "nobody was made beside the preemptor"
            await cluster.kubectl("delete", "pod", "urgent", "--grace-period=0", "--force")

    asyncio.run(scenario())


@pytest.mark.slow
def test_with_nowhere_to_go_we_do_not_fight_the_preemptor(control_plane: ControlPlane, namespace: str):
    async def scenario() -> None:
        async with operating(control_plane, namespace, l4=1) as cluster:
            node = await on_one_node(cluster)
            await preempted(cluster, node)

            async def gone() -> bool:
                return await cluster.ready() == []

            await cluster.until(gone, "ours are gone")
            await cluster.until(lambda: cluster.events("ShortOfCapacity"), "what is lacking is told")
            before = created(cluster)
            await asyncio.sleep(6)  # three plans
            assert created(cluster) == before, "pods are made for a node that has no room"
            assert "deletionTimestamp" not in (await cluster.admin.get(POD, "urgent", namespace))["metadata"]
            await cluster.kubectl("delete", "pod", "urgent", "--grace-period=0", "--force")
            await cluster.until(lambda: served(cluster, 2), "served again, when there is room again")

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------- evictions, word for word


def pod_of(name: str, namespace: str) -> JsonObject:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": "a"}},
        "spec": {"containers": [{"name": "main", "image": "i"}], "nodeName": "nowhere"},
    }


def budget_of(name: str, namespace: str, **spec: Any) -> JsonObject:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": "a"}}, **spec},
    }


UP = {
    "phase": "Running",
    "conditions": [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "PodScheduled")],
}


async def evictions(store: Store, namespace: str, counted: Any) -> list[str]:
    """What a store says to the same evictions."""
    said: list[str] = []

    async def evict(name: str, uid: str = "") -> None:
        try:
            await store.evict(name, namespace, uid=uid, grace_seconds=0)
            said.append("evicted")
        except StoreError as error:
            causes = [(c.reason, c.message) for c in error.causes]
            said.append(f"{type(error).__name__} {error.message} {causes}")

    for name in ("one", "two", "waiting"):
        await store.create(POD, pod_of(name, namespace), field_manager="t")
    for name in ("one", "two"):
        await store.patch(POD, name, {"status": UP}, namespace, field_manager="t", subresource="status")
    await store.create(POD_DISRUPTION_BUDGET, budget_of("keep", namespace, minAvailable=2), field_manager="t")
    await counted("keep", 2)
    await evict("one")
    await evict("waiting")
    await evict("nobody")
    await evict("one", "00000000-0000-0000-0000-000000000000")
    await store.create(
        POD_DISRUPTION_BUDGET, budget_of("other", namespace, minAvailable=0), field_manager="t"
    )
    await counted("other", 2)
    await evict("one")
    await store.delete(POD_DISRUPTION_BUDGET, "keep", namespace)
    await evict("two", "00000000-0000-0000-0000-000000000000")
    said[-1] = said[-1].partition("does not match")[0]  # each store draws its own uids
    await evict("two")
    return said


def test_evictions_are_answered_alike_here_and_there(control_plane: ControlPlane, namespace: str):
    async def scenario() -> None:
        kube = await KubeStore.connect(control_plane.kubeconfig, clock=WallClock(), seed=1)

        async def by_controller(name: str, healthy: int) -> None:
            async with asyncio.timeout(60):
                while True:
                    found = await kube.get(POD_DISRUPTION_BUDGET, name, namespace)
                    status = found.get("status", {})
                    if status.get("currentHealthy") == healthy and status.get("observedGeneration") == 1:
                        return
                    await asyncio.sleep(0.1)

        there = await evictions(kube, namespace, by_controller)
        await kube.close()
        embedded = open_store(WallClock(), namespaces=(namespace,))

        async def by_pass(name: str, healthy: int) -> None:
            await embedded.collect_garbage()
            found = await embedded.get(POD_DISRUPTION_BUDGET, name, namespace)
            assert found["status"]["currentHealthy"] == healthy

        assert await evictions(embedded, namespace, by_pass) == there
        assert "needs 2 healthy pods and has 2 currently" in there[0]
        assert there[0].startswith(TooManyRequests.__name__)
        assert there[-1] == "evicted"

    asyncio.run(scenario())
