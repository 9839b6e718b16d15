"""What a user does with the real kubectl: get, wait, scale, explain, describe, apply again, also beside an HPA."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from console.controlplane import ControlPlane
from tests.cluster.operating import Cluster, operating

MANIFEST = """
apiVersion: plimsoll.dev/v1alpha1
kind: ModelService
metadata: {name: chat}
spec:
  model: {name: llama-3.1-8b}
  objectives: [{class: default, ttftSeconds: 3.0, tpotSeconds: 0.12}]
  accelerators: [l4]
  drainSeconds: 2
  policies: {scale: {name: hpa, config: {sync_seconds: 1.0, stabilisation_seconds: 1.0}}}
"""
SIZED = MANIFEST + "  replicas: 1\n"


def play(
    plane: ControlPlane, namespace: str, script: Callable[[Cluster], Awaitable[None]], **counts: int
) -> None:
    async def scenario() -> None:
        async with operating(plane, namespace, **(counts or {"l4": 2})) as cluster:
            await script(cluster)

    asyncio.run(scenario())


async def serving(cluster: Cluster, count: int) -> None:
    async def holds() -> bool:
        return len(await cluster.ready()) == len(await cluster.pods()) == count

    await cluster.until(holds, f"{count} ready replicas and nothing else")


def test_get_wait_describe_and_explain(control_plane: ControlPlane, namespace: str):
    async def script(cluster: Cluster) -> None:
        await cluster.kubectl("apply", "-f", "-", stdin=SIZED)
        await cluster.kubectl("wait", "--for=condition=Ready", "msvc/chat", "--timeout=90s")
        await cluster.kubectl(
            "wait", "--for=condition=Ready", "pod", "-l", "plimsoll.dev/service=chat", "--timeout=90s"
        )
        await cluster.kubectl("wait", "--for=jsonpath={.status.phase}=Serving", "msvc/chat", "--timeout=90s")
        listed = (await cluster.kubectl("get", "plimsoll")).stdout
        assert "modelservice.plimsoll.dev/chat" in listed
        assert "acceleratornode.plimsoll.dev/" in listed
        header, row = (await cluster.kubectl("get", "msvc", "-o", "wide")).stdout.splitlines()
        assert header.split() == ["NAME", "PHASE", "READY", "GPUS", "$/H", "WHY", "MIX", "MODE", "URL", "AGE"]
        assert "https://plimsoll-gateway.plimsoll-system.svc/" in row
        assert f"/{namespace}/chat" in row
        assert "1 L4x1-bf16" in row
        await cluster.until(lambda: cluster.events("ReplicaPlaced", "chat"), "the event of placing")
        described = (await cluster.kubectl("describe", "msvc", "chat")).stdout
        assert "ReplicaPlaced" in described
        assert "1 GPU needed" in described, described
        assert "plimsoll" in described
        explained = (await cluster.kubectl("explain", "modelservice.spec.replicas")).stdout
        assert "Wanted size in units of the reference variant" in explained

    play(control_plane, namespace, script)


def test_scale_belongs_to_the_user_and_a_manifest_applied_again_does_not_fight(
    control_plane: ControlPlane, namespace: str
):
    async def script(cluster: Cluster) -> None:
        await cluster.kubectl("apply", "-f", "-", stdin=MANIFEST)
        await cluster.kubectl("scale", "msvc/chat", "--replicas=2")
        await cluster.kubectl("wait", "--for=condition=Ready", "msvc/chat", "--timeout=90s")
        told = (await cluster.json("get", "msvc", "chat"))["status"]
        assert told["ready"] == 2, "an answer to the old wish is not waited for"
        await serving(cluster, 2)
        before = (await cluster.json("get", "msvc", "chat"))["metadata"]["generation"]
        await cluster.kubectl("apply", "-f", "-", stdin=MANIFEST)
        await cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=MANIFEST)
        after = await cluster.json("get", "msvc", "chat")
        assert after["spec"]["replicas"] == 2, "what the manifest does not say is not the manifest's"
        assert after["metadata"]["generation"] == before
        await cluster.kubectl("scale", "msvc/chat", "--replicas=1")
        await serving(cluster, 1)
        managers = {
            m["manager"]: m
            for m in (await cluster.json("get", "msvc", "chat", "--show-managed-fields"))["metadata"][
                "managedFields"
            ]
        }
        ours = [m for name, m in managers.items() if name.startswith("plimsoll")]
        assert ours
        assert all("f:spec" not in m["fieldsV1"] for m in ours), "the operator writes no spec"

    play(control_plane, namespace, script)


HPA = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: chat}
spec:
  scaleTargetRef: {apiVersion: plimsoll.dev/v1alpha1, kind: ModelService, name: chat}
  minReplicas: 2
  maxReplicas: 4
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
"""


@pytest.mark.slow  # the HPA looks each fifteen seconds
def test_an_hpa_scales_it_and_nothing_takes_that_back(control_plane: ControlPlane, namespace: str):
    async def script(cluster: Cluster) -> None:
        await cluster.kubectl("apply", "-f", "-", stdin=MANIFEST)
        await cluster.kubectl("scale", "msvc/chat", "--replicas=1")
        await serving(cluster, 1)
        await cluster.kubectl("apply", "-f", "-", stdin=HPA)
        await serving(cluster, 2)
        hpa = await cluster.json("get", "hpa", "chat")
        conditions = {c["type"]: c for c in hpa["status"]["conditions"]}
        assert conditions["AbleToScale"]["status"] == "True", conditions
        await cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=MANIFEST)
        await serving(cluster, 2)
        assert (await cluster.json("get", "msvc", "chat"))["spec"]["replicas"] == 2

    play(control_plane, namespace, script)
