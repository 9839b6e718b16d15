"""Objects beside the pods, on a whole cluster: Services, addresses, what is going, finalizers that were left."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from console.local import LocalCluster
from controller.config import OperatorConfig
from controller.observe import labels
from controller.resources.core import EVENT, NODE, POD, SERVICE
from controller.resources.kinds import ACCELERATOR_NODE, MODEL_SERVICE, TRAINING_JOB
from controller.resources.manifests import apply, parse
from controller.store.errors import NotFound
from controller.store.interface import JsonObject, Resource
from controller.store.interposed import InterposedStore
from simulator.physics.failures import Failure, FailureKind
from tests.scenarios.props import fleet, job, manifests, service

CONFIG = OperatorConfig(plan_seconds=5.0, gateway_url="https://gateway.example.org/")


def on_a_cluster(
    play: Callable[[LocalCluster], Awaitable[None]], text: str = manifests(service("chat", "minReplicas: 1"))
) -> None:
    async def scenario() -> None:
        async with LocalCluster(fleet(l4=2, h100=2), config=CONFIG) as cluster:
            found, problems = parse(text)
            assert not problems
            await apply(cluster.store, found)
            await play(cluster)

    asyncio.run(scenario())


async def settle(cluster: LocalCluster, seconds: int = 12) -> None:
    for _ in range(seconds):
        await cluster.second()


async def there(
    cluster: LocalCluster, resource: Resource, name: str, namespace: str = "shop"
) -> JsonObject | None:
    try:
        return await cluster.store.get(resource, name, namespace)
    except NotFound:
        return None


async def told(cluster: LocalCluster, reason: str) -> list[str]:
    return [e["message"] for e in (await cluster.store.list(EVENT)).items if e["reason"] == reason]


def test_a_service_has_a_headless_one_over_its_replicas_that_comes_back_and_is_mended() -> None:
    async def play(cluster: LocalCluster) -> None:
        await settle(cluster, 3)
        first = await there(cluster, SERVICE, "chat-engines")
        assert first is not None
        owner = first["metadata"]["ownerReferences"][0]
        assert (owner["kind"], owner["name"], owner["blockOwnerDeletion"]) == ("ModelService", "chat", False)
        assert first["spec"]["clusterIP"] == "None"
        assert first["spec"]["selector"] == {labels.SERVICE: "chat"}
        await cluster.store.delete(SERVICE, "chat-engines", "shop")
        await settle(cluster, 2)
        again = await there(cluster, SERVICE, "chat-engines")
        assert again is not None
        assert again["metadata"]["uid"] != first["metadata"]["uid"]
        bent = {"spec": {"selector": {labels.SERVICE: None, "app": "other"}}}
        await cluster.store.patch(SERVICE, "chat-engines", bent, "shop", field_manager="meddler")
        await settle(cluster, 2)
        mended = await there(cluster, SERVICE, "chat-engines")
        assert mended is not None
        assert mended["spec"]["selector"] == {labels.SERVICE: "chat"}
        writes = cluster.store.requests["patch", "Service"] + cluster.store.requests["create", "Service"]
        await settle(cluster, 20)
        after = cluster.store.requests["patch", "Service"] + cluster.store.requests["create", "Service"]
        assert after == writes, "a Service that is as it should be is not written"

    on_a_cluster(play)


def test_somebody_elses_service_of_that_name_is_left_alone_and_said() -> None:
    async def play(cluster: LocalCluster) -> None:
        theirs = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "chat-engines", "namespace": "shop"},
            "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}},
        }
        await cluster.store.create(SERVICE, theirs, field_manager="user")
        await settle(cluster, 40)
        found = await there(cluster, SERVICE, "chat-engines")
        assert found is not None
        assert found["spec"]["selector"] == {"app": "theirs"}
        (message,) = await told(cluster, "ServiceNameTaken")
        assert "shop/chat-engines is somebody else's" in message
        assert cluster.store.requests["create", "Service"] <= 7, "asked again at most each ten seconds"

    on_a_cluster(play)


def test_requests_are_sent_to_the_gateway_and_a_replica_is_ready_when_its_gate_is_open() -> None:
    async def play(cluster: LocalCluster) -> None:
        await settle(cluster)
        obj = await cluster.store.get(MODEL_SERVICE, "chat", "shop")
        assert obj["status"]["url"] == "https://gateway.example.org/shop/chat"
        (pod,) = (await cluster.store.list(POD, "shop")).items
        conditions = {c["type"]: c["status"] for c in pod["status"]["conditions"]}
        assert conditions == {
            "PodScheduled": "True", "ContainersReady": "True", "Ready": "True", labels.REGISTERED: "True",
        }  # fmt: skip

    on_a_cluster(play)


def test_no_replica_is_ready_while_nobody_opens_its_gate() -> None:
    async def play(cluster: LocalCluster) -> None:
        async def nothing(*_: Any) -> list[Any]:
            return []

        cluster.operator.upkeep.gates.open = nothing  # type: ignore[method-assign]
        await settle(cluster, 15)
        (pod,) = (await cluster.store.list(POD, "shop")).items
        conditions = {c["type"]: c for c in pod["status"]["conditions"]}
        assert conditions["ContainersReady"]["status"] == "True"
        assert conditions["Ready"]["status"] == "False"
        assert conditions["Ready"]["reason"] == "ReadinessGatesNotReady"
        assert (await cluster.store.get(MODEL_SERVICE, "chat", "shop"))["status"]["ready"] == 0

    on_a_cluster(play)


def test_ranks_have_host_names_that_a_service_of_their_job_makes_resolve() -> None:
    async def play(cluster: LocalCluster) -> None:
        await settle(cluster, 3)
        found = await there(cluster, SERVICE, "bert-ranks", "lab")
        assert found is not None
        assert found["spec"]["publishNotReadyAddresses"] is True
        pods = (await cluster.store.list(POD, "lab")).items
        assert [(p["spec"]["hostname"], p["spec"]["subdomain"]) for p in pods] == [
            ("bert-a1-r0", "bert-ranks"),
            ("bert-a1-r1", "bert-ranks"),
        ]
        assert pods[0]["spec"]["containers"][0]["command"] == ["python", "train.py"]

    on_a_cluster(play, manifests(job("bert", "command: [python, train.py]")))


def held_by(finalizer: str) -> Callable[[LocalCluster], Awaitable[None]]:
    async def delete(cluster: LocalCluster) -> None:
        for resource, name, namespace in ((MODEL_SERVICE, "chat", "shop"), (TRAINING_JOB, "bert", "lab")):
            patch = {"metadata": {"finalizers": [finalizer]}}
            await cluster.store.patch(resource, name, patch, namespace, field_manager="killed")
            await cluster.store.delete(resource, name, namespace)

    return delete


BOTH = manifests(service("chat", "minReplicas: 1"), job("bert"))


def test_a_finalizer_that_a_killed_operator_left_goes_when_the_pods_have_gone() -> None:
    async def play(cluster: LocalCluster) -> None:
        await settle(cluster)
        assert len((await cluster.store.list(POD)).items) == 3
        await held_by("plimsoll.dev/cleanup")(cluster)
        await settle(cluster, 60)
        assert await there(cluster, MODEL_SERVICE, "chat") is None
        assert await there(cluster, TRAINING_JOB, "bert", "lab") is None
        assert (await cluster.store.list(POD)).items == ()

    on_a_cluster(play, BOTH)


def test_what_is_going_wants_nothing_and_says_whose_finalizer_it_waits_for() -> None:
    async def play(cluster: LocalCluster) -> None:
        await settle(cluster)
        await held_by("example.org/audit")(cluster)
        await settle(cluster, 60)
        assert (await cluster.store.list(POD)).items == (), "nothing new is made for an object that is going"
        for resource, name, namespace in ((MODEL_SERVICE, "chat", "shop"), (TRAINING_JOB, "bert", "lab")):
            obj = await there(cluster, resource, name, namespace)
            assert obj is not None
            conditions = {c["type"]: c for c in obj["status"]["conditions"]}
            assert conditions["Released"]["reason"] == "FinalizerHolds"
            assert "example.org/audit" in conditions["Released"]["message"]
        before = sum(cluster.store.requests.values())
        await settle(cluster, 20)
        spent = sum(cluster.store.requests.values()) - before
        assert spent < 20 * 12, f"{spent} requests in 20 s for objects that only wait"

    on_a_cluster(play, BOTH)


def test_a_pods_leftover_finalizer_holds_neither_its_gpu_nor_its_object() -> None:
    async def play(cluster: LocalCluster) -> None:
        await settle(cluster)
        (pod,) = (await cluster.store.list(POD, "shop")).items
        name = pod["metadata"]["name"]
        for finalizers in (["plimsoll.dev/cleanup"],):
            patch = {"metadata": {"finalizers": finalizers}}
            await cluster.store.patch(POD, name, patch, "shop", field_manager="killed")
        await cluster.store.delete(POD, name, "shop", grace_seconds=1)
        await settle(cluster, 30)
        assert await there(cluster, POD, name) is None
        (successor,) = (await cluster.store.list(POD, "shop")).items
        assert successor["metadata"]["name"] != name

    on_a_cluster(play)


def test_a_pod_that_somebody_elses_finalizer_holds_is_replaced_once_and_deleted_once() -> None:
    async def play(cluster: LocalCluster) -> None:
        await settle(cluster)
        (pod,) = (await cluster.store.list(POD, "shop")).items
        name = pod["metadata"]["name"]
        patch = {"metadata": {"finalizers": ["example.org/audit"]}}
        await cluster.store.patch(POD, name, patch, "shop", field_manager="auditor")
        await cluster.store.delete(POD, name, "shop", grace_seconds=1)
        await settle(cluster, 20)
        deletions = cluster.store.requests["delete", "Pod"]
        await settle(cluster, 30)
        assert cluster.store.requests["delete", "Pod"] == deletions
        held = await there(cluster, POD, name)
        assert held is not None
        assert held["status"]["phase"] == "Failed"
        assert len((await cluster.store.list(POD, "shop")).items) == 2

    on_a_cluster(play)


def test_a_node_that_takes_no_new_work_says_so_with_the_taint() -> None:
    async def play(cluster: LocalCluster) -> None:
        await settle(cluster, 6)
        taint = {"key": "dedicated", "value": "ml", "effect": "NoSchedule"}
        await cluster.store.patch(NODE, "l4-00", {"spec": {"taints": [taint]}}, field_manager="user")
        await settle(cluster, 8)
        found = await cluster.store.get(ACCELERATOR_NODE, "l4-00")
        conditions = {c["type"]: c for c in found["status"]["conditions"]}
        assert conditions["Schedulable"]["status"] == "False"
        assert "its taint dedicated=ml:NoSchedule is not tolerated" in conditions["Schedulable"]["message"]
        (message,) = await told(cluster, "NodeClosed")
        assert "dedicated=ml:NoSchedule" in message
        patch = {"spec": {"replicas": 4}}
        await cluster.store.patch(MODEL_SERVICE, "chat", patch, "shop", field_manager="user")
        await settle(cluster, 20)
        on = {p["spec"].get("nodeName") for p in (await cluster.store.list(POD, "shop")).items}
        assert on <= {"l4-01", "l4-00"}
        made_later = [
            p for p in (await cluster.store.list(POD, "shop")).items if p["spec"].get("nodeName") == "l4-00"
        ]
        assert len(made_later) <= 1, "only the pod that ran there before the taint may be there"

    on_a_cluster(play)


def test_settings_travel_strictly() -> None:
    text = msgspec.json.encode(CONFIG)
    assert msgspec.json.decode(text, type=OperatorConfig) == CONFIG


class Deletions(InterposedStore):
    """Notes how pods are deleted."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.noted: list[tuple[str, int | None]] = []

    async def delete(self, resource: Resource, name: str, namespace: str = "", **how: Any) -> None:
        """See `Store.delete`."""
        if resource is POD:
            self.noted.append((how.get("uid", ""), how.get("grace_seconds")))
        await super().delete(resource, name, namespace, **how)


def test_no_pod_is_ever_force_deleted_and_each_deletion_names_the_one_it_means() -> None:
    made: list[Deletions] = []

    def wrap(store: Any, _: Any) -> Deletions:
        made.append(Deletions(store))
        return made[0]

    async def scenario() -> None:
        async with LocalCluster(fleet(l4=2, h100=3), config=CONFIG, wrap_store=wrap) as cluster:
            found, _ = parse(manifests(service("chat", "replicas: 3"), job("bert")))
            await apply(cluster.store, found)
            await settle(cluster)
            uids = {p["metadata"]["uid"] for p in (await cluster.store.list(POD)).items}
            assert len(uids) == 5
            gone = next(p["spec"]["nodeName"] for p in (await cluster.store.list(POD, "lab")).items)
            cluster.fleet.schedule(Failure(cluster.clock.now() + 0.5, gone, FailureKind.NODE_CRASH, 0))
            patch: JsonObject = {"spec": {"replicas": 1}}
            await cluster.store.patch(MODEL_SERVICE, "chat", patch, "shop", field_manager="user")
            await settle(cluster, 60)
            await cluster.store.patch(
                TRAINING_JOB, "bert", {"spec": {"suspend": True}}, "lab", field_manager="user"
            )
            await settle(cluster, 20)
            assert len(made[0].noted) >= 4
            assert all(uid for uid, _ in made[0].noted)
            assert all(grace is not None and grace >= 1 for _, grace in made[0].noted)

    asyncio.run(scenario())
