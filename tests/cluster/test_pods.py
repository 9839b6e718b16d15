"""Pods, Services and events as a real API server, scheduler and endpoint controller take them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from cluster.actions import CreateReplica, StartGang
from cluster.base import Ref
from cluster.hardware import Slot
from cluster.reasons import Quantity, Reason, Verdict
from cluster.serving import Objective, Service, Variant
from cluster.training import Job, Layout
from console.controlplane import ControlPlane
from controller.actor.pods import gang_pods, replica_pod
from controller.actor.services import engines_service, ranks_service
from controller.config import PolicyDefault
from controller.observe import intents, labels
from controller.resources.core import EVENT, NAMESPACE, NODE, POD, SERVICE
from controller.resources.kinds import ACCELERATOR_NODE, MODEL_SERVICE
from controller.resources.podpart import PodPart, Wish
from controller.store.errors import Forbidden
from controller.store.interface import JsonObject, Resource
from controller.store.kube import KubeStore
from controller.telling.events import MESSAGE_LIMIT, event_object, write_event
from tests.cluster.operating import Cluster, config_of, operating
from tests.observe.objects import MODEL, SHAPE, accelerator
from tests.scenarios.props import job, service

EVERYTHING: JsonObject = {
    "labels": {"team": "red", "example.com/cost-centre": "7"},
    "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
    "env": [
        {"name": "A", "value": "$(PLIMSOLL_LAUNCH)"},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token", "optional": True}}},
        {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "c"}}},
        {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ],
    "envFrom": [{"prefix": "X_", "secretRef": {"name": "hub"}}, {"configMapRef": {"name": "settings"}}],
    "imagePullPolicy": "IfNotPresent",
    "imagePullSecrets": [{"name": "registry"}],
    "volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "settings", "configMap": {"name": "settings", "optional": True}},
        {"name": "hub", "secret": {"secretName": "hub"}},
    ],
    "volumeMounts": [
        {"name": "data", "mountPath": "/data", "subPath": "models", "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},
    ],
    "securityContext": {
        "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000, "supplementalGroups": [3000],
        "fsGroupChangePolicy": "OnRootMismatch",
    },
    "containerSecurityContext": {
        "readOnlyRootFilesystem": True, "capabilities": {"add": ["NET_BIND_SERVICE"]},
    },
    "tolerations": [
        {"key": "team", "value": "red", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
    ],
    "priorityClassName": "system-cluster-critical",
    "resources": {"cpu": "1500m", "memory": "2Gi"},
}  # fmt: skip
"""Every field that a namespace of the level `restricted` takes, but for an account that would have to be there."""
PLAIN = Wish()
UID = "11111111-2222-3333-4444-555555555555"
CLASS = intents.accelerator(accelerator())[0]
ENDPOINT_SLICE = Resource(
    group="discovery.k8s.io", version="v1", kind="EndpointSlice", plural="endpointslices"
)


def on_the_server(plane: ControlPlane, work: Callable[[KubeStore], Awaitable[None]]) -> None:
    async def scenario() -> None:
        store = await KubeStore.connect(plane.kubeconfig, seed=1)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(scenario())


def made_in(namespace: str, wish: Wish = PLAIN) -> list[tuple[Resource, JsonObject]]:
    """Everything that the operator makes for a service and for a job, as it sends it."""
    named = Variant(accelerator="NVIDIA L4 (24 GB)")  # a display name no label could hold as it is
    chat = Service(
        ref=Ref("ModelService", f"{namespace}/chat", UID, 3), model=MODEL, variants=(named,),
        objectives=(Objective(ttft_seconds=1.0, tpot_seconds=1.0, priority=7),),
    )  # fmt: skip
    slots = tuple(Slot(node=f"n{i}", devices=(0, 1), cpu_millis=500, memory_bytes=2**20) for i in (1, 2))
    replica = CreateReplica(
        service=chat.name, name=f"{namespace}/chat-l4-1", variant=named, pool="p", ordinal=1, slots=slots[:1],
        reason=0,
    )  # fmt: skip
    bert = Job(
        ref=Ref("TrainingJob", f"{namespace}/bert", UID, 3), shape=SHAPE, steps=5, global_batch=4,
        micro_batch=1, min_nodes=2, max_nodes=2, gpus_per_node=2, priority=4,
    )  # fmt: skip
    layout = Layout(tensor=1, pipeline=1, data=4, micro_batch=1, slots=slots, network="roce")
    gang = StartGang(job=bert.ref, attempt=1, layout=layout, reason=0)
    pods = [
        replica_pod(replica, chat, CLASS, wish),
        *gang_pods(gang, bert, CLASS, wish._replace(command=("train",)), 0),
    ]
    services = [engines_service(chat.name, UID), ranks_service(bert.name, UID)]
    return [(POD, pod) for pod in pods] + [(SERVICE, each) for each in services]


def lost(sent: Any, kept: Any, at: str = "") -> list[str]:
    """Paths of what was sent and is not kept as it was."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        return [p for name in sent for p in lost(sent[name], kept.get(name), f"{at}.{name}")]
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        return [
            p
            for i, (one, other) in enumerate(zip(sent, kept, strict=True))
            for p in lost(one, other, f"{at}[{i}]")
        ]
    return [] if sent == kept else [at]


def test_a_restricted_namespace_takes_everything_we_make_unchanged(
    control_plane: ControlPlane, namespace: str
):
    async def work(store: KubeStore) -> None:
        level = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
        await store.patch(NAMESPACE, namespace, level, field_manager="tests")
        for resource, obj in made_in(namespace):
            kept = await store.create(resource, obj, field_manager="tests", dry_run=True)
            assert lost(obj, kept) == []
        everything = msgspec.convert(EVERYTHING, PodPart)
        wish = Wish("engine:2", ("serve",), ("--fast",), everything)
        for resource, obj in made_in(namespace, wish):
            kept = await store.create(resource, obj, field_manager="tests", dry_run=True)
            assert lost(obj, kept) == []

    on_the_server(control_plane, work)


def test_a_priority_of_our_own_is_refused_which_is_why_we_send_none(
    control_plane: ControlPlane, namespace: str
):
    async def work(store: KubeStore) -> None:
        pod = made_in(namespace)[0][1]
        assert "priority" not in pod["spec"]
        pod["spec"]["priority"] = 7
        with pytest.raises(Forbidden, match="priority admission controller computed 0"):
            await store.create(POD, pod, field_manager="tests", dry_run=True)

    on_the_server(control_plane, work)


def reason(choice: str, value: float = 1.0, subject: Ref | None = None) -> Reason:
    return Reason(
        code="ReplicaPlaced", subject=subject or Ref("Node", "events-node", UID), verdict=Verdict.CHOSEN,
        choice=choice, need=Quantity("gpus", value, "GPU"), have=Quantity("free", 2.0, "GPU"),
        limit=Quantity("fit", 3.0, "nodes"), facts=(Quantity("left", 1.0, "GPU"), Quantity("cost", 0.0, "GPU")),
    )  # fmt: skip


def test_events_are_taken_counted_and_cut(control_plane: ControlPlane, namespace: str):
    async def work(store: KubeStore) -> None:
        served = Ref("ModelService", f"{namespace}/chat", UID)
        for value in (1.0, 2.0, 3.0):
            await write_event(
                store, event_object(reason("n1", value, served), UID, 1_790_000_000.0 + value, 5)
            )
        (event,) = (await store.list(EVENT, namespace)).items
        assert event["count"] == 3
        assert "3 GPU needed" in event["message"], "the newest numbers"
        assert event["firstTimestamp"] < event["lastTimestamp"]
        assert event["involvedObject"]["apiVersion"] == "plimsoll.dev/v1alpha1"
        assert event["reportingComponent"] == "plimsoll.dev/operator"
        await write_event(store, event_object(reason("ü" * 2_000, 1.0, served), UID, 1_790_000_000.0, 5))
        long = [e for e in (await store.list(EVENT, namespace)).items if e["count"] == 1]
        assert len(long[0]["message"].encode()) in (MESSAGE_LIMIT - 1, MESSAGE_LIMIT)
        scoped = event_object(reason("n1"), UID, 1_790_000_000.0, 5)
        await write_event(store, scoped)
        kept = await store.get(EVENT, scoped["metadata"]["name"], "default")
        assert kept["involvedObject"].get("namespace", "") == ""

    on_the_server(control_plane, work)


# ---------------------------------------------------------------------------------------- with an operator and nodes


def play(
    plane: ControlPlane,
    namespace: str,
    script: Callable[[Cluster], Awaitable[None]],
    *,
    policies: dict[str, PolicyDefault] | None = None,
    **counts: int,
) -> None:
    async def scenario() -> None:
        config = config_of(namespace)
        config = msgspec.structs.replace(config, policies={**config.policies, **(policies or {})})
        async with operating(plane, namespace, config=config, **counts) as cluster:
            await script(cluster)

    asyncio.run(scenario())


def here(text: str, namespace: str) -> str:
    """A manifest of the scenarios, in the test's namespace, that drains in a second."""
    for theirs in ("shop", "lab"):
        text = text.replace(f"namespace: {theirs}", f"namespace: {namespace}")
    return text.replace("drainSeconds: 10", "drainSeconds: 1")


async def addresses(cluster: Cluster) -> list[bool]:
    """Whether each address behind the service's Service is ready."""
    listed = await cluster.admin.list(
        ENDPOINT_SLICE, cluster.namespace, label_selector="kubernetes.io/service-name=chat-engines"
    )
    return [e["conditions"]["ready"] for slice_ in listed.items for e in slice_.get("endpoints") or ()]


def test_endpoints_follow_the_gate_that_the_operator_opens(control_plane: ControlPlane, namespace: str):
    async def script(cluster: Cluster) -> None:
        opening = cluster.operator.upkeep.gates.open

        async def nothing(*_: Any) -> list[Any]:
            return []

        cluster.operator.upkeep.gates.open = nothing  # type: ignore[method-assign]
        await cluster.kubectl("apply", "-f", "-", stdin=here(service("chat", "minReplicas: 1"), namespace))

        async def up() -> bool:
            (pod,) = await cluster.pods()
            conditions = {c["type"]: c["status"] for c in pod["status"].get("conditions", [])}
            return conditions.get("ContainersReady") == "True" and await addresses(cluster) == [False]

        await cluster.until(lambda: _with_pods(cluster, up), "containers ready, and an address that is not")
        assert await cluster.ready() == []
        cluster.operator.upkeep.gates.open = opening  # type: ignore[method-assign]

        async def follows() -> bool:
            return await addresses(cluster) == [True]

        await cluster.until(follows, "an address that is ready")
        (pod,) = await cluster.ready()
        gate = next(c for c in pod["status"]["conditions"] if c["type"] == labels.REGISTERED)
        assert gate["reason"] == "EngineRegistered"

    play(control_plane, namespace, script, l4=1)


async def _with_pods(cluster: Cluster, holds: Callable[[], Awaitable[bool]]) -> bool:
    return bool(await cluster.pods()) and await holds()


def foreign(namespace: str, node: str) -> JsonObject:
    """Somebody else's pod: an init container that needs both GPUs of a node, and nothing after it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "theirs", "namespace": namespace},
        "spec": {
            "nodeName": node,
            "initContainers": [
                {
                    "name": "warm",
                    "image": "example.org/warm",
                    "resources": {"limits": {"nvidia.com/gpu": "2"}},
                }
            ],
            "containers": [{"name": "main", "image": "example.org/main"}],
            "terminationGracePeriodSeconds": 1,
        },
    }


def test_other_peoples_gpus_cordons_and_taints_are_respected(control_plane: ControlPlane, namespace: str):
    async def script(cluster: Cluster) -> None:
        used, cordoned, tainted, free = (f"{namespace}-l4-0{i}" for i in range(4))
        await cluster.admin.create(POD, foreign(namespace, used), field_manager="somebody")
        await cluster.kubectl("cordon", cordoned)
        await cluster.kubectl("taint", "node", tainted, "dedicated=ml:NoSchedule")

        async def told() -> bool:
            said = [(e["involvedObject"]["name"], e["message"]) for e in await cluster.events("NodeClosed")]
            wanted = ((cordoned, "it is cordoned"), (tainted, "dedicated=ml:NoSchedule"))
            return all(any(name == who and what in text for who, text in said) for name, what in wanted)

        await cluster.until(told, "events that name the cordon and the taint")
        described = (await cluster.kubectl("describe", "node", tainted)).stdout
        assert "NodeClosed" in described
        text = service("chat", "minReplicas: 3\nmaxReplicas: 3")
        await cluster.kubectl("apply", "-f", "-", stdin=here(text, namespace))

        async def placed() -> bool:
            return len(await cluster.ready()) == 2

        await cluster.until(placed, "two replicas, all that fits")
        await cluster.until(
            lambda: cluster.events("ShortOfCapacity", "chat"), "the third is said to lack room"
        )
        assert {pod["spec"]["nodeName"] for pod in await cluster.ready()} == {free}
        claim = cluster.operator.observer.live("claims")[f"{namespace}/theirs"]
        assert (claim.foreign, claim.slot.node, claim.slot.gpus) == (True, used, 2)

        async def closed() -> bool:
            node = await cluster.admin.get(ACCELERATOR_NODE, tainted)
            said = {c["type"]: c["status"] for c in node["status"]["conditions"]}
            return said["Schedulable"] == "False"

        await cluster.until(closed, "the tainted node says that it takes no new work")
        await cluster.kubectl("uncordon", cordoned)

        async def third() -> bool:
            return {p["spec"]["nodeName"] for p in await cluster.ready()} == {free, cordoned}

        await cluster.until(third, "the third on the node that is open again")

    play(control_plane, namespace, script, l4=4)


async def _room_for_pods(cluster: Cluster, node: str, pods: int) -> None:
    """A kubelet that takes so many pods: what the planner does not count, and the scheduler does."""
    room = {"status": {"allocatable": {"pods": str(pods)}, "capacity": {"pods": str(pods)}}}
    await cluster.admin.patch(NODE, node, room, field_manager="tests", subresource="status")


def test_a_pod_that_is_not_bound_is_replanned_ever_more_rarely_with_the_schedulers_words(
    control_plane: ControlPlane, namespace: str
):
    quick = {"place": PolicyDefault("priced_fgd", {"bind_seconds": 2.0, "shun_seconds": 1.0})}

    async def script(cluster: Cluster) -> None:
        node = f"{namespace}-l4-00"
        await _room_for_pods(cluster, node, 0)
        await cluster.kubectl("apply", "-f", "-", stdin=here(service("chat", "minReplicas: 1"), namespace))
        await cluster.until(
            lambda: cluster.events("ReplicaHeldBack", "chat"), "tries that come ever more rarely"
        )
        stuck = await cluster.events("ReplicaStuck", "chat")
        assert any("Too many pods" in event["message"] for event in stuck), [e["message"] for e in stuck]
        obj = await cluster.admin.get(MODEL_SERVICE, "chat", namespace)
        ready = next(c for c in obj["status"]["conditions"] if c["type"] == "Ready")
        assert ready["status"] == "False"
        made = cluster.recorder.asked["create", POD, ""]
        assert made <= 4, f"{made} pods were made for one that cannot be bound"
        await _room_for_pods(cluster, node, 110)

        async def served() -> bool:
            return len(await cluster.ready()) == len(await cluster.pods()) == 1

        await cluster.until(served, "one replica, once there is room")

    play(control_plane, namespace, script, policies=quick, l4=1)


@pytest.mark.slow  # two attempts must run out of their time first
def test_a_gang_that_is_not_wholly_bound_is_taken_away_and_never_doubled(
    control_plane: ControlPlane, namespace: str
):
    quick = {"train": PolicyDefault("island_gang", {"bind_seconds": 2.0})}

    async def script(cluster: Cluster) -> None:
        await _room_for_pods(cluster, f"{namespace}-h100-01", 0)
        await cluster.kubectl("apply", "-f", "-", stdin=here(job("bert", steps=10_000), namespace))
        await cluster.until(lambda: cluster.events("GangUnbound", "bert"), "a gang that lacks a member")
        (event, *_) = await cluster.events("GangUnbound", "bert")
        assert f"{namespace}-h100-01" in event["message"]
        await cluster.until(
            lambda: cluster.events("GangHeldBack", "bert"), "attempts that come ever more rarely"
        )
        await _room_for_pods(cluster, f"{namespace}-h100-01", 110)
        attempts: set[frozenset[str]] = set()

        async def runs() -> bool:
            found = [p for p in await cluster.pods() if "deletionTimestamp" not in p["metadata"]]
            attempts.add(frozenset(p["metadata"]["labels"][labels.ATTEMPT] for p in found))
            return len(await cluster.ready()) == 2

        await cluster.until(runs, "both ranks, once there is room")
        assert all(len(found) <= 1 for found in attempts), attempts

    play(control_plane, namespace, script, policies=quick, h100=2)
