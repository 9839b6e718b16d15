"""Members of a running gang evicted by others, by the Eviction API and by `kubectl drain`: the next attempt forms elsewhere."""

from __future__ import annotations

import asyncio

import pytest

from console.controlplane import ControlPlane
from controller.observe import labels
from controller.resources.kinds import TRAINING_JOB
from controller.store.interface import JsonObject
from tests.cluster.operating import Cluster, operating
from tests.cluster.test_pods import here
from tests.scenarios.props import job

EMPTY_DIR = "--delete-emptydir-data"
"""Without it kubectl drains no pod with several GPUs: their /dev/shm is such a volume."""


async def running(cluster: Cluster, after: int = 0) -> int:
    """The attempt that works now, when it is a later one than `after` and all its pods are ready; else 0."""
    obj = await cluster.admin.get(TRAINING_JOB, "bert", cluster.namespace)
    attempts = {m.rendezvous.attempt for m in cluster.fleet.gangs.running()}
    found = await members(cluster)
    if obj.get("status", {}).get("phase") != "Running" or len(attempts) != 1 or len(found) != 2:
        return 0
    [attempt] = attempts
    theirs = {pod["metadata"]["labels"][labels.ATTEMPT] for pod in found}
    return attempt if attempt > after and theirs == {str(attempt)} else 0


async def members(cluster: Cluster) -> list[JsonObject]:
    return [pod for pod in await cluster.ready() if labels.ATTEMPT in pod["metadata"]["labels"]]


def nodes_of(pods: list[JsonObject]) -> set[str]:
    return {pod["spec"]["nodeName"] for pod in pods}


def sound(cluster: Cluster) -> None:
    """No rendezvous was ever asked for by two attempts, and no attempt met while an older one still worked."""
    gangs = cluster.fleet.gangs
    assert gangs.attendance.breaches() == []
    assert gangs.doubled == 0
    for (rendezvous, attempt), came in gangs.attendance.came.items():
        assert rendezvous.endswith(f"-a{attempt}")
        assert came <= 4


@pytest.mark.slow  # two restarts of a gang, with real kubectl
def test_an_evicted_member_and_a_drained_node_each_end_the_attempt_and_the_next_forms_elsewhere(
    control_plane: ControlPlane, namespace: str
) -> None:
    async def scenario() -> None:
        async with operating(control_plane, namespace, h100=4) as cluster:
            await cluster.kubectl("apply", "-f", "-", stdin=here(job("bert", steps=100_000), namespace))
            first = await cluster.until(lambda: running(cluster), "the gang works")
            [one, _] = await members(cluster)
            meta = one["metadata"]
            await cluster.admin.evict(meta["name"], namespace, uid=meta["uid"])
            second = await cluster.until(lambda: running(cluster, first), "the next attempt works")
            sound(cluster)

            [drained, _] = sorted(nodes_of(await members(cluster)))
            try:
                told = await cluster.kubectl(
                    "drain", drained, "--ignore-daemonsets", EMPTY_DIR, "--timeout=80s"
                )
                assert "drained" in told.stdout
                third = await cluster.until(lambda: running(cluster, second), "and the next one")
                assert drained not in nodes_of(await members(cluster)), "on other nodes"
                assert not [p for p in await cluster.pods() if p["spec"].get("nodeName") == drained]
            finally:
                await cluster.kubectl("uncordon", drained)
            await asyncio.sleep(5)  # two plans: nothing more is due
            assert await running(cluster) == third
            sound(cluster)
            met = {m.rendezvous.attempt for m in cluster.fleet.gangs.meetings if m.gang is not None}
            assert met == {first, second, third}, "each attempt that began to work ended, and no other did"

    asyncio.run(scenario())
