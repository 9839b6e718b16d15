"""What an API server and other people's admission refuse, on the real one: told in its words, asked rarely, and alone.

In each play something of the cluster refuses the pods of one namespace. The same questions follow: the object says so
in the server's own sentence, few requests are made, another namespace is served meanwhile, and once the refusal is
lifted the pods come.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from console.controlplane import ControlPlane
from controller.config import OperatorConfig, PodSettings
from controller.resources.core import POD
from controller.resources.kinds import MODEL_SERVICE, TRAINING_JOB
from controller.store.interface import JsonObject
from tests.cluster.operating import Cluster, config_of, operating
from tests.cluster.test_object_faults import condition, no_orphans
from tests.cluster.test_pods import here
from tests.scenarios.props import job, service

WATCHED_SECONDS = 6
"""Wall time in which a refused object's requests are counted; no try is due in most of it."""

CHAT = service("chat", "minReplicas: 3\nmaxReplicas: 3\nreplicas: 3")
DRAFT = service("draft", "minReplicas: 1\nmaxReplicas: 1")


async def apply(cluster: Cluster, text: str, *, wholly: bool = True) -> None:
    await cluster.kubectl("apply", "-f", "-", stdin=here(text, cluster.namespace) if wholly else text)


async def said(cluster: Cluster, kind: Any, name: str, *words: str) -> JsonObject:
    """The condition, once it has all the words."""

    async def told() -> JsonObject | None:
        found = await condition(cluster, kind, name, "Admitted")
        message = found.get("message", "")
        return found if found.get("status") == "False" and all(word in message for word in words) else None

    return dict(await cluster.until(told, f"a condition with {words}"))


async def served(cluster: Cluster, count: int, name: str = "chat") -> None:
    async def ready() -> bool:
        found = [
            p for p in await cluster.ready() if p["metadata"]["labels"].get("plimsoll.dev/service") == name
        ]
        return len(found) == count

    await cluster.until(ready, f"{count} replicas of {name}")


async def admitted(cluster: Cluster, kind: Any, name: str) -> None:
    async def gone() -> bool:
        return not await condition(cluster, kind, name, "Admitted")

    await cluster.until(gone, "no word of a refusal any more")


# ------------------------------------------------------------------------------------------------- what refuses

Lift = Callable[[Cluster], Awaitable[None]]


@dataclass(frozen=True)
class Refusing:
    """`begin` sets the refusal up and returns how it is lifted."""

    begin: Callable[[Cluster], Awaitable[Lift]]
    words: tuple[str, ...]
    reason: str
    pods: PodSettings = field(default_factory=PodSettings)


QUOTA = """
apiVersion: v1
kind: ResourceQuota
metadata: {name: gpus, namespace: team}
spec: {hard: {requests.nvidia.com/gpu: "0"}}
"""


async def quota(cluster: Cluster) -> Lift:
    await cluster.kubectl("apply", "-f", "-", stdin=QUOTA.replace("team", cluster.namespace))

    async def counted() -> bool:
        found = await cluster.json("get", "resourcequota", "gpus")
        return "used" in found.get("status", {})

    await cluster.until(counted, "a quota that is counted")

    async def lift(cluster: Cluster) -> None:
        patch = '{"spec": {"hard": {"requests.nvidia.com/gpu": "8"}}}'
        await cluster.kubectl("patch", "resourcequota", "gpus", "--type=merge", "-p", patch)

    return lift


async def security(cluster: Cluster) -> Lift:
    await cluster.kubectl(
        "label", "namespace", cluster.namespace, "pod-security.kubernetes.io/enforce=restricted"
    )

    async def lift(cluster: Cluster) -> None:
        await cluster.kubectl("label", "namespace", cluster.namespace, "pod-security.kubernetes.io/enforce-")

    return lift


async def touch(cluster: Cluster) -> None:
    """The user changes the object: it is tried at once."""
    await cluster.kubectl("patch", "msvc", "chat", "--type=merge", "-p", '{"spec": {"maxReplicas": 4}}')


RANGE = """
apiVersion: v1
kind: LimitRange
metadata: {name: bounds, namespace: team}
spec: {limits: [{type: Container, max: {nvidia.com/gpu: "0"}}]}
"""


async def limit_range(cluster: Cluster) -> Lift:
    await cluster.kubectl("apply", "-f", "-", stdin=RANGE.replace("team", cluster.namespace))

    async def lift(cluster: Cluster) -> None:
        await cluster.kubectl("delete", "limitrange", "bounds")

    return lift


POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: team-friday}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: team}}
  validations: [{expression: "false", message: "no pods on a Friday"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: team-friday}
spec: {policyName: team-friday, validationActions: [Deny]}
"""


async def policy(cluster: Cluster) -> Lift:
    name = f"{cluster.namespace}-friday"
    await cluster.kubectl("apply", "-f", "-", stdin=POLICY.replace("team", cluster.namespace))
    probe = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"},
             "spec": {"containers": [{"name": "c", "image": "i"}]}}  # fmt: skip

    async def holds() -> bool:
        text = msgspec.json.encode(probe).decode()
        tried = await cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=text, check=False)
        return "Friday" in tried.stderr

    await cluster.until(holds, "a policy in force")

    async def lift(cluster: Cluster) -> None:
        await cluster.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", name)
        await touch(cluster)

    return lift


HOOK = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: team-gate}
webhooks:
  - name: gate.example.org
    admissionReviewVersions: [v1]
    sideEffects: None
    failurePolicy: Fail
    timeoutSeconds: 1
    clientConfig: {url: "https://127.0.0.1:PORT/deny", caBundle: BUNDLE}
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: team}}
    rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
"""


async def dead_webhook(cluster: Cluster) -> Lift:
    """Nobody listens where a webhook should."""
    return await _hook(cluster, await _free_port(), "")


async def _free_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def _hook(cluster: Cluster, port: int, bundle: str, timeout: int = 1) -> Lift:
    text = (
        HOOK.replace("team", cluster.namespace).replace("PORT", str(port)).replace("BUNDLE", bundle or '""')
    )
    text = text.replace("timeoutSeconds: 1", f"timeoutSeconds: {timeout}")
    await cluster.kubectl("apply", "-f", "-", stdin=text)
    await asyncio.sleep(
        2.0
    )  # until the API server's own informer has it; a pod that slips through is one fewer refused

    async def lift(cluster: Cluster) -> None:
        await cluster.kubectl(
            "delete", "validatingwebhookconfiguration", f"{cluster.namespace}-gate", "--ignore-not-found"
        )
        await touch(cluster)

    return lift


REFUSING = [
    pytest.param(
        Refusing(quota, ("exceeded quota: gpus", "requests.nvidia.com/gpu=1", "limited: "), "QuotaExceeded"),
        id="a full ResourceQuota",
    ),
    pytest.param(
        Refusing(
            security, ('violates PodSecurity "restricted:latest"', "runAsNonRoot"), "PodSecurity",
            PodSettings(run_as_user=0),
        ),
        id="a namespace of the level restricted",
    ),
    pytest.param(
        Refusing(limit_range, ("maximum nvidia.com/gpu usage per Container is 0",), "LimitRange"),
        id="a LimitRange",
    ),
    pytest.param(
        Refusing(policy, ("no pods on a Friday",), "DeniedByPolicy"),
        id="somebody's ValidatingAdmissionPolicy",
    ),
    pytest.param(
        Refusing(dead_webhook, ("failed calling webhook", "gate.example.org"), "WebhookFailed"),
        id="somebody's webhook that is down",
    ),
]  # fmt: skip


def tried(cluster: Cluster) -> Counter[str]:
    """Pods asked for, by what they are named for."""
    return Counter(
        {
            name: count
            for name, count in cluster.recorder.requests.items()
            if name.startswith("create Pod ") and "/chat-" in name
        }
    )


def quick(namespace: str, **more: Any) -> OperatorConfig:
    return config_of(namespace, **more)


@pytest.mark.parametrize("refusing", REFUSING)
def test_a_refusal_is_told_in_its_words_asked_rarely_and_alone(
    control_plane: ControlPlane, namespace: str, refusing: Refusing
):
    async def scenario() -> None:
        config = quick(namespace, pods=refusing.pods)
        elsewhere = f"{namespace}-b"
        await asyncio.to_thread(control_plane.create_namespace, elsewhere)
        async with operating(control_plane, namespace, config=config, l4=4) as cluster:
            lift = await refusing.begin(cluster)
            try:
                await apply(cluster, CHAT)
                found = await said(cluster, MODEL_SERVICE, "chat", *refusing.words)
                assert found["reason"] == refusing.reason, found
                assert "the next comes" in found["message"]
                await asyncio.to_thread(
                    control_plane.kubectl, "apply", "-f", "-", stdin=here(DRAFT, elsewhere)
                )

                async def other() -> bool:
                    pods = (await cluster.admin.list(POD, elsewhere)).items
                    return [p["status"]["phase"] for p in pods] == ["Running"]

                await cluster.until(other, "another namespace's service is served meanwhile")
                before = tried(cluster).total()
                asked = cluster.recorder.written[namespace]
                await asyncio.sleep(WATCHED_SECONDS)
                assert tried(cluster).total() - before <= 2, "a hot loop"
                assert cluster.recorder.written[namespace] - asked <= 20
                assert tried(cluster).total() <= 8, tried(cluster)
                told = await cluster.events("ReplicaRefused", "chat")
                assert told
                assert all(word in told[0]["message"] for word in refusing.words[:1])
            finally:
                await lift(cluster)
            await served(cluster, 3)
            await admitted(cluster, MODEL_SERVICE, "chat")
            await no_orphans(cluster)
            assert max(tried(cluster).values()) == 1, "no name twice"

    asyncio.run(scenario())


# ------------------------------------------------------------------------------------------------------- gangs


def test_a_gang_of_which_one_pod_is_refused_is_taken_back_wholly(control_plane: ControlPlane, namespace: str):
    """Two nodes with two GPUs each are wanted, and the quota has room for one: no pod stays, no restart is counted."""

    async def scenario() -> None:
        async with operating(control_plane, namespace, h100=2) as cluster:
            await quota(cluster)
            patch = '{"spec": {"hard": {"requests.nvidia.com/gpu": "3"}}}'
            await cluster.kubectl("patch", "resourcequota", "gpus", "--type=merge", "-p", patch)
            await apply(cluster, job("bert", steps=10_000))
            await said(cluster, TRAINING_JOB, "bert", "exceeded quota: gpus")

            async def none() -> bool:
                return not await cluster.pods()

            await cluster.until(none, "no half of a gang")
            await asyncio.sleep(WATCHED_SECONDS)
            ranks = [name for name in cluster.recorder.requests if name.startswith("create Pod ")]
            assert len(ranks) <= 4, ranks
            found = await cluster.admin.get(TRAINING_JOB, "bert", cluster.namespace)
            assert found["status"]["restarts"] == 0, found["status"]
            assert found["status"]["attempt"] >= 1
            assert await cluster.events("GangRefused", "bert")
            patch = '{"spec": {"hard": {"requests.nvidia.com/gpu": "4"}}}'
            await cluster.kubectl("patch", "resourcequota", "gpus", "--type=merge", "-p", patch)

            async def whole() -> bool:
                return len(await cluster.ready()) == len(await cluster.pods()) == 2

            await cluster.until(whole, "the gang, once there is room")
            await admitted(cluster, TRAINING_JOB, "bert")

    asyncio.run(scenario())


# --------------------------------------------------------------------------------------------- a webhook that hangs


def test_a_webhook_that_hangs_keeps_nobody_else_waiting(control_plane: ControlPlane, namespace: str):
    """It takes the connection and says nothing. The planner goes on, other namespaces are served, few tries are made."""

    async def scenario() -> None:
        open_calls: set[int] = set()
        calls: list[int] = []

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            number = len(calls)
            calls.append(number)
            open_calls.add(number)
            try:
                while await reader.read(65_536):
                    pass
            finally:
                open_calls.discard(number)
                writer.close()

        server = await asyncio.start_server(hang, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        elsewhere = f"{namespace}-b"
        await asyncio.to_thread(control_plane.create_namespace, elsewhere)
        async with operating(control_plane, namespace, l4=4) as cluster:
            lift = await _hook(cluster, port, "", timeout=8)
            try:
                await apply(cluster, CHAT)

                async def planned_meanwhile() -> bool:
                    tick, call = cluster.operator.planner.tick, next(iter(open_calls), None)
                    while call is not None and call in open_calls:
                        if cluster.operator.planner.tick > tick + 1:
                            return True
                        await asyncio.sleep(0.1)
                    return False

                await cluster.until(planned_meanwhile, "two plans while one call hangs")
                await asyncio.to_thread(
                    control_plane.kubectl, "apply", "-f", "-", stdin=here(DRAFT, elsewhere)
                )

                async def other() -> bool:
                    pods = (await cluster.admin.list(POD, elsewhere)).items
                    return [p["status"]["phase"] for p in pods] == ["Running"]

                await cluster.until(other, "another namespace's service is served meanwhile")
                found = await said(cluster, MODEL_SERVICE, "chat", "failed calling webhook")
                assert found["reason"] == "WebhookFailed"
                assert tried(cluster).total() <= 12, tried(cluster)
            finally:
                await lift(cluster)
                server.close()
            await served(cluster, 3)
            await admitted(cluster, MODEL_SERVICE, "chat")

    asyncio.run(scenario())
