"""The user's part of a pod with the real kubectl: what there is no field for is named, and what is asked for comes."""

from __future__ import annotations

import asyncio
from typing import Any

from console.controlplane import ControlPlane
from tests.cluster.operating import Cluster, operating
from tests.cluster.test_pods import here
from tests.scenarios.props import service

ASKED = """
minReplicas: 1
args: [--fast]
pod:
  hostNetwork: true
  labels: {team: red}
  env:
    - {name: MODE, value: chat}
    - name: TOKEN
      valueFrom: {secretKeyRef: {name: hub, key: token, optional: true}}
  securityContext: {runAsUser: 1000}
  resources: {cpu: 500m, memory: 1Gi}
"""


async def _story(cluster: Cluster) -> None:
    text = here(service("chat", ASKED), cluster.namespace)
    refused = await cluster.kubectl("apply", "-f", "-", stdin=text, check=False)
    assert refused.returncode
    assert 'unknown field "spec.pod.hostNetwork"' in refused.stderr
    await cluster.kubectl("apply", "--validate=false", "-f", "-", stdin=text)

    async def up() -> bool:
        return len(await cluster.ready()) == 1

    await cluster.until(up, "a replica")
    (pod,) = await cluster.ready()
    container = pod["spec"]["containers"][0]
    assert "hostNetwork" not in pod["spec"]
    assert pod["metadata"]["labels"]["team"] == "red"
    assert container["args"] == ["--fast"]
    assert {"name": "MODE", "value": "chat"} in container["env"]
    assert pod["spec"]["securityContext"]["runAsUser"] == 1000
    assert container["resources"]["requests"]["memory"] == "1Gi" or container["resources"]["requests"][
        "memory"
    ] == str(2**30)
    assert container["resources"]["requests"]["cpu"] == "500m"

    async def told() -> Any:
        found = await cluster.json("get", "msvc", "chat")
        conditions = {c["type"]: c for c in found.get("status", {}).get("conditions", [])}
        accepted = conditions.get("Accepted", {})
        return accepted.get("status") == "True" and "without spec.pod.hostNetwork" in accepted.get(
            "message", ""
        )

    await cluster.until(told, "the dropped field is named")
    described = (await cluster.kubectl("describe", "msvc", "chat")).stdout
    assert "no field of ModelService, so the API server dropped it" in described


def test_a_field_that_is_not_supported_is_named_before_and_after(
    control_plane: ControlPlane, namespace: str
) -> None:
    async def scenario() -> None:
        async with operating(control_plane, namespace, l4=1) as cluster:
            await _story(cluster)

    asyncio.run(scenario())


async def _no_class(cluster: Cluster) -> None:
    text = here(service("chat", "minReplicas: 1\npod: {priorityClassName: gone}"), cluster.namespace)
    await cluster.kubectl("apply", "-f", "-", stdin=text)

    async def told() -> Any:
        found = await cluster.json("get", "msvc", "chat")
        said = " ".join(c.get("message", "") for c in found.get("status", {}).get("conditions", []))
        return "no PriorityClass with name gone was found" in said

    await cluster.until(told, "the class that there is not")
    assert await cluster.pods() == []
    patch = '{"spec": {"pod": {"priorityClassName": "system-cluster-critical"}}}'
    await cluster.kubectl("patch", "msvc", "chat", "--type=merge", "-p", patch)

    async def up() -> Any:
        return [pod["spec"]["priority"] for pod in await cluster.ready()]

    assert (await cluster.until(up, "a replica of the class that there is"))[0] > 10**9


def test_a_priority_class_that_there_is_not_is_told_and_one_that_is_counts(
    control_plane: ControlPlane, namespace: str
) -> None:
    async def scenario() -> None:
        async with operating(control_plane, namespace, l4=1) as cluster:
            await _no_class(cluster)

    asyncio.run(scenario())
