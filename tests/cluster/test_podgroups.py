"""PodGroups on a real API server: with the gates off, on in a version we do not know, and on in one that we are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from console.controlplane import Component, ControlPlane
from controller.actor import podgroups
from controller.actor.podgroups import PodGroups, resource_of
from controller.resources.core import NODE, POD
from controller.resources.kinds import TRAINING_JOB
from controller.store.interface import JsonObject
from tests.cluster.operating import Cluster, config_of, operating
from tests.cluster.test_pods import here
from tests.cluster.test_rbac import AGENTS, FOLDER, SYSTEM, operators
from tests.controlplane import Started
from tests.scenarios.props import job

GATES = "--feature-gates=GenericWorkload=true,GangScheduling=true"
SERVED = "v1alpha2"
"""What 1.36 serves: an older version of the same kind, with the same fields as far as we write them."""
OTHERS = f"""
apiVersion: scheduling.k8s.io/{SERVED}
kind: PodGroup
metadata: {{name: theirs, labels: {{app.kubernetes.io/managed-by: plimsoll, plimsoll.dev/job: bert}}}}
spec: {{schedulingPolicy: {{gang: {{minCount: 3}}}}}}
"""


def groups_of(cluster: Cluster) -> PodGroups:
    return cluster.operator._acting._actor._groups


async def runs(cluster: Cluster) -> list[JsonObject]:
    found = await cluster.ready()
    return found if len(found) == 2 else []


async def blocked(cluster: Cluster, pods: int) -> str:
    """One node's kubelet offers so many pods: the scheduler counts them, the planner does not."""
    name = f"{cluster.namespace}-h100-01"
    patch = {"status": {"allocatable": {"pods": str(pods)}}}
    await cluster.admin.patch(NODE, name, patch, field_manager="tests", subresource="status")
    return name


async def started(cluster: Cluster) -> list[JsonObject]:
    await cluster.kubectl("apply", "-f", "-", stdin=here(job("bert", steps=100_000), cluster.namespace))
    pods: list[JsonObject] = await cluster.until(lambda: runs(cluster), "two ranks run")
    return pods


def test_with_the_gates_off_a_gang_starts_without_one_and_says_why(
    control_plane: ControlPlane, namespace: str
) -> None:
    async def scenario() -> None:
        async with operating(control_plane, namespace, h100=2) as cluster:
            pods = await started(cluster)
            assert not any("schedulingGroup" in pod["spec"] for pod in pods)
            assert "serves none of v1beta1 and v1alpha3" in groups_of(cluster).why
            asked = sum(n for what, n in cluster.recorder.requests.items() if "APIGroup" in what)
            assert asked == 1

    asyncio.run(scenario())


async def _unknown_version(cluster: Cluster) -> None:
    pods = await started(cluster)
    assert not any("schedulingGroup" in pod["spec"] for pod in pods)
    assert f"serves them as {SERVED} and" in groups_of(cluster).why


async def _no_right(cluster: Cluster) -> None:
    pods = await started(cluster)
    assert not any("schedulingGroup" in pod["spec"] for pod in pods)
    assert podgroups.RIGHTS in groups_of(cluster).why


async def _together(cluster: Cluster) -> None:
    """Nothing is bound while one of two cannot be; both are once they can."""
    await cluster.kubectl("apply", "-f", "-", stdin=OTHERS)
    await blocked(cluster, 0)
    await cluster.kubectl("apply", "-f", "-", stdin=here(job("bert", steps=100_000), cluster.namespace))

    async def looked_at() -> bool:
        pods = await cluster.pods()
        return len(pods) == 2 and any(
            c["type"] == "PodScheduled" and c["status"] == "False"
            for pod in pods
            for c in pod["status"].get("conditions", ())
        )

    await cluster.until(looked_at, "the scheduler has looked at the attempt")
    assert not any(pod["spec"].get("nodeName") for pod in await cluster.pods())
    await blocked(cluster, 110)
    pods = await cluster.until(lambda: runs(cluster), "both are bound, and run")
    [name] = {pod["spec"]["schedulingGroup"]["podGroupName"] for pod in pods}
    kind = resource_of(SERVED)
    attempt = (await cluster.admin.get(TRAINING_JOB, "bert", cluster.namespace))["status"]["attempt"]
    assert name == f"bert-a{attempt}"
    there = (await cluster.admin.list(kind, cluster.namespace)).items
    assert {group["metadata"]["name"] for group in there} == {name, "theirs"}
    assert cluster.recorder.forbidden == []
    await _restarted(cluster, name)


async def _restarted(cluster: Cluster, before: str) -> None:
    """A member goes: the next attempt has a group of its own, and the old one is gone; with the job the last one is."""
    kind = resource_of(SERVED)
    [first, _] = await cluster.ready()
    await cluster.admin.evict(first["metadata"]["name"], cluster.namespace, uid=first["metadata"]["uid"])

    async def again() -> set[str]:
        found = await runs(cluster)
        names = {pod["spec"]["schedulingGroup"]["podGroupName"] for pod in found}
        return names if names and before not in names else set()

    [name] = await cluster.until(again, "the next attempt runs")

    async def left() -> set[str]:
        return {g["metadata"]["name"] for g in (await cluster.admin.list(kind, cluster.namespace)).items}

    async def old_one_gone() -> bool:
        return await left() == {name, "theirs"}

    await cluster.until(old_one_gone, "the group of the attempt that ended is gone, once its pods are")
    await cluster.kubectl("delete", "tjob/bert", "--wait=false")

    async def theirs_alone() -> bool:
        return await left() == {"theirs"} and not (await cluster.admin.list(POD, cluster.namespace)).items

    await cluster.until(theirs_alone, "what belonged to the job is gone, and nothing else")


@pytest.mark.slow  # a control plane of its own, and three operators one after another
def test_with_the_gates_on(new_control_plane: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = new_control_plane(
        extra={
            Component.API_SERVER: (GATES, f"--runtime-config=scheduling.k8s.io/{SERVED}=true"),
            Component.SCHEDULER: (GATES,),
            Component.CONTROLLER_MANAGER: (GATES,),  # takes the finalizer off a PodGroup whose pods are gone
        }
    )
    for name in (SYSTEM, AGENTS, "lab"):
        plane.create_namespace(name)
    for file in sorted(FOLDER.glob("*.yaml")):
        plane.kubectl("apply", "-f", str(file))
    who = operators(plane)

    async def chapter(script: object, account: Path) -> None:
        config = config_of(SYSTEM)
        async with operating(plane, "lab", operator=account, config=config, h100=2) as cluster:
            await script(cluster)  # type: ignore[operator]

    asyncio.run(chapter(_unknown_version, who))
    monkeypatch.setattr(podgroups, "SPOKEN", (SERVED,))
    asyncio.run(chapter(_no_right, who))
    plane.kubectl("apply", "-f", str(FOLDER / "optional" / Path(podgroups.RIGHTS).name))
    asyncio.run(chapter(_together, who))
