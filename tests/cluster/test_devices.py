"""Devices on a real control plane: GPUs by claim, others' claims, pods that a restricted namespace takes or refuses."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from cluster.actions import StartGang
from cluster.base import Ref
from cluster.codec import from_json
from cluster.hardware import Slot
from cluster.launch import EngineLaunch
from cluster.training import Job, Layout
from console.controlplane import ControlPlane
from controller.actor.pods import gang_pods
from controller.observe import intents, labels
from controller.resources.core import NAMESPACE, NODE, POD
from controller.resources.coredra import GROUP, RESOURCE_CLAIM, RESOURCE_SLICE
from controller.resources.kinds import ACCELERATOR_CLASS, TRAINING_JOB
from controller.resources.podpart import Wish
from controller.store.errors import Forbidden, NotFound
from controller.store.interface import JsonObject, Resource
from controller.store.kube import KubeStore
from tests.cluster.operating import Cluster, config_of, operating
from tests.cluster.test_pods import here, lost, on_the_server
from tests.observe.objects import SHAPE, accelerator
from tests.observe.test_shares import PARTS
from tests.scenarios.props import job, service

DEVICE_CLASS = Resource(
    group=GROUP, version="v1", kind="DeviceClass", plural="deviceclasses", namespaced=False
)
DRIVER = "gpu.nvidia.com"
RDMA = {"rdma": {"resourceName": "rdma/hca", "networks": ["net/ib0"]}}


def slice_of(node: str, gpus: int) -> JsonObject:
    """What the DRA driver of a simulated node would announce."""
    devices = [
        {"name": f"gpu-{i}", "attributes": {"uuid": {"string": f"GPU-{node}-{i}"}, "index": {"int": i}}}
        for i in range(gpus)
    ]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    return {
        "apiVersion": f"{GROUP}/v1", "kind": "ResourceSlice", "metadata": {"name": f"{node}-gpus"},
        "spec": {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices},
    }  # fmt: skip


def device_class() -> JsonObject:
    selector = {"cel": {"expression": f'device.driver == "{DRIVER}"'}}
    return {
        "apiVersion": f"{GROUP}/v1", "kind": "DeviceClass", "metadata": {"name": DRIVER},
        "spec": {"selectors": [selector]},
    }  # fmt: skip


def theirs(namespace: str) -> list[tuple[Resource, JsonObject]]:
    """Somebody's pod with a claim of one GPU."""
    request = {"name": "one", "exactly": {"deviceClassName": DRIVER}}
    claim = {
        "apiVersion": f"{GROUP}/v1", "kind": "ResourceClaim", "metadata": {"name": "theirs", "namespace": namespace},
        "spec": {"devices": {"requests": [request]}},
    }  # fmt: skip
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs", "namespace": namespace},
        "spec": {
            "containers": [{"name": "c", "image": "c", "resources": {"claims": [{"name": "one"}]}}],
            "resourceClaims": [{"name": "one", "resourceClaimName": "theirs"}],
            "tolerations": [{"operator": "Exists"}],
        },
    }  # fmt: skip
    return [(RESOURCE_CLAIM, claim), (POD, pod)]


async def _allocated(cluster: Cluster) -> list[str]:
    """Devices that claims of the test's namespace have."""
    claims = (await cluster.admin.list(RESOURCE_CLAIM, cluster.namespace)).items
    return sorted(
        result["device"]
        for claim in claims
        for result in claim.get("status", {}).get("allocation", {}).get("devices", {}).get("results", ())
    )


async def _announced(cluster: Cluster, **more: Any) -> None:
    for node in cluster.fleet.nodes:
        made = slice_of(node, 2)
        made["spec"]["devices"] = [{**device, **more} for device in made["spec"]["devices"]]
        await cluster.admin.create(RESOURCE_SLICE, made, field_manager="driver")
    await cluster.admin.create(DEVICE_CLASS, device_class(), field_manager="driver")


async def _withdrawn(cluster: Cluster) -> None:
    for resource, name, namespace in (
        (DEVICE_CLASS, DRIVER, ""),
        *((RESOURCE_SLICE, f"{node}-gpus", "") for node in cluster.fleet.nodes),
        (POD, "theirs", cluster.namespace),
    ):
        try:
            await cluster.admin.delete(resource, name, namespace, grace_seconds=0)
        except NotFound:
            continue


async def _settled(cluster: Cluster, ready: int, pods: int) -> bool:
    ours = [pod for pod in await cluster.pods() if pod["metadata"]["name"] != "theirs"]
    return len(await cluster.ready()) == ready and len(ours) == pods


@pytest.mark.parametrize("sharing", ["dra", "none"])
def test_a_gpu_that_somebodys_claim_has_is_not_given_away(
    control_plane: ControlPlane, namespace: str, sharing: str
) -> None:
    """Two GPUs, one of them somebody's by claim: one replica runs, however its GPU is asked for, and none waits."""

    async def work() -> None:
        config = config_of(namespace)
        async with operating(control_plane, namespace, config=config, l4=1) as cluster:
            try:
                await _announced(cluster)
                patch = {"spec": {"sharing": sharing}}
                await cluster.admin.patch(ACCELERATOR_CLASS, "l4", patch, field_manager="user")
                for resource, obj in theirs(namespace):
                    await cluster.admin.create(resource, obj, field_manager="somebody")
                await cluster.until(lambda: _allocated(cluster), "the scheduler gave somebody a GPU")
                text = service("chat", "minReplicas: 2\nmaxReplicas: 2")
                await cluster.kubectl("apply", "-f", "-", stdin=here(text, namespace))
                await cluster.until(lambda: _settled(cluster, 1, 1), "one replica on the other GPU")
                await _both_counted(cluster, sharing)
                await asyncio.sleep(3.0)  # more than one plan
                assert await _settled(cluster, 1, 1), "and no second one is made that could not be bound"
                await cluster.admin.delete(POD, "theirs", namespace, grace_seconds=0)
                await cluster.admin.delete(RESOURCE_CLAIM, "theirs", namespace)
                await cluster.until(lambda: _settled(cluster, 2, 2), "two when theirs has gone")
            finally:
                await _withdrawn(cluster)

    asyncio.run(work())


async def _both_counted(cluster: Cluster, sharing: str) -> None:
    claims = cluster.operator.observer.live("claims")
    node = next(iter(cluster.fleet.nodes))
    other = claims[f"ResourceClaim/{cluster.namespace}/theirs"]
    (mine,) = [claim for claim in claims.values() if claim.owner.kind == "Replica"]
    assert (other.slot.node, other.foreign, mine.slot.node) == (node, True, node)
    allocated = await _allocated(cluster)
    if sharing == "dra":
        assert allocated == ["gpu-0", "gpu-1"], "ours is allocated by the same scheduler"
        assert {*mine.slot.devices, *other.slot.devices} == {0, 1}, "by what each got"
        (pod,) = await cluster.ready()
        assert "nvidia.com/gpu" not in pod["spec"]["containers"][0]["resources"].get("limits", {})
    else:
        assert len(allocated) == 1


def test_replicas_share_gpus_by_claims_that_the_scheduler_allocates(
    control_plane: ControlPlane, namespace: str
) -> None:
    """Six quarters on two GPUs: each gets its part of the device that was chosen for it, and a whole one is not to be had
    but for a higher priority.
    """
    small = "small, parameters: 500000000, layers: 24, hiddenSize: 1024, weightBytes: 1000000000, kvBytesPerToken: 49152"
    quarters = "variants: [{accelerator: l4, gpuMilli: 250}]\nreplicas: 6\nmaxReplicas: 6"

    async def work() -> None:
        async with operating(control_plane, namespace, config=config_of(namespace), l4=1) as cluster:
            try:
                await _announced(cluster, **PARTS)
                patch = {"spec": {"sharing": "dra", "dra": {"shareCapacities": ["memory", "cores"]}}}
                await cluster.admin.patch(ACCELERATOR_CLASS, "l4", patch, field_manager="user")
                text = service("chat", quarters, model=small)
                await cluster.kubectl("apply", "-f", "-", stdin=here(text, namespace))
                await cluster.until(lambda: _settled(cluster, 6, 6), "six quarters are bound and ready")
                got, quarter = await _parts(cluster), str(6 * 2**30)
                assert Counter(got.values()) == {("gpu-0", quarter, "25"): 4, ("gpu-1", quarter, "25"): 2}
                for pod in await cluster.pods():
                    launch = from_json(pod["metadata"]["annotations"][labels.LAUNCH], EngineLaunch)
                    assert got[pod["metadata"]["name"]][0] == f"gpu-{launch.devices[0]}", "as it was planned"
                whole = service("whole", "minReplicas: 1")
                await cluster.kubectl("apply", "-f", "-", stdin=here(whole, namespace))
                await asyncio.sleep(5.0)
                assert await _settled(cluster, 6, 6), "no whole one is given away"
                whole = service("whole", "replicas: 1\nmaxReplicas: 1", priority=5)
                await cluster.kubectl("apply", "-f", "-", stdin=here(whole, namespace))
                await cluster.until(
                    lambda: _settled(cluster, 5, 5), "two quarters give way to a higher priority"
                )
                assert sorted(await _allocated(cluster)) == ["gpu-0"] * 4 + ["gpu-1"], (
                    "all of a device, none of the other"
                )
            finally:
                await _withdrawn(cluster)

    asyncio.run(work())


async def _parts(cluster: Cluster) -> dict[str, tuple[str, str, str]]:
    """What each pod's claim got: device, memory, cores."""
    found = {}
    for claim in (await cluster.admin.list(RESOURCE_CLAIM, cluster.namespace)).items:
        (result,) = claim["status"]["allocation"]["devices"]["results"]
        (pod,) = claim["status"]["reservedFor"]
        got = result["consumedCapacity"]
        found[pod["name"]] = (result["device"], got["memory"], got["gpu.nvidia.com/cores"])
    return found


def test_a_restricted_namespace_takes_a_gang_but_not_its_pinned_memory(
    control_plane: ControlPlane, namespace: str
) -> None:
    def pods(**spec: Any) -> list[JsonObject]:
        of = intents.accelerator(accelerator(**spec))[0]
        bert = Job(
            ref=Ref("TrainingJob", f"{namespace}/bert", "11111111-2222-3333-4444-555555555555", 3), shape=SHAPE,
            steps=5, global_batch=4, micro_batch=1, min_nodes=2, max_nodes=2, gpus_per_node=2,
        )  # fmt: skip
        slots = tuple(Slot(node=f"n{i}", devices=(0, 1)) for i in (1, 2))
        layout = Layout(tensor=1, pipeline=1, data=4, micro_batch=1, slots=slots, network="roce")
        return gang_pods(StartGang(job=bert.ref, attempt=1, layout=layout, reason=0), bert, of, Wish(), 0)

    async def work(store: KubeStore) -> None:
        level = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
        await store.patch(NAMESPACE, namespace, level, field_manager="tests")
        without: dict[str, Any] = {"rdma": {**RDMA["rdma"], "ipcLock": False}}
        for pod in (*pods(), *pods(**without)):
            assert lost(pod, await store.create(POD, pod, field_manager="tests", dry_run=True)) == []
        with pytest.raises(Forbidden) as refused:
            await store.create(POD, pods(**RDMA)[0], field_manager="tests", dry_run=True)
        assert 'must not include "IPC_LOCK"' in refused.value.message
        unforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": None}}}
        await store.patch(NAMESPACE, namespace, unforced, field_manager="tests")
        pod = pods(**RDMA)[0]
        assert lost(pod, await store.create(POD, pod, field_manager="tests", dry_run=True)) == []

    on_the_server(control_plane, work)


def test_a_gang_asks_for_rdma_and_says_what_its_namespace_refuses(
    control_plane: ControlPlane, namespace: str
) -> None:
    """In a restricted namespace IPC_LOCK is refused, and the job says so; without it the gang runs on RDMA devices."""

    async def says(cluster: Cluster, words: str) -> bool:
        obj = await cluster.admin.get(TRAINING_JOB, "bert", namespace)
        return any(words in c.get("message", "") for c in obj.get("status", {}).get("conditions", []))

    async def work() -> None:
        async with operating(control_plane, namespace, h100=2) as cluster:
            enforced = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
            await cluster.admin.patch(NAMESPACE, namespace, enforced, field_manager="user")
            rdma: dict[str, Any] = {"resourceName": "rdma/hca", "networks": ["net/ib0"]}
            await cluster.admin.patch(
                ACCELERATOR_CLASS, "h100", {"spec": {"rdma": rdma}}, field_manager="user"
            )
            for node in cluster.fleet.nodes:
                both = {"capacity": {"rdma/hca": "8"}, "allocatable": {"rdma/hca": "8"}}
                await cluster.admin.patch(
                    NODE, node, {"status": both}, field_manager="kubelet", subresource="status"
                )
            await cluster.kubectl("apply", "-f", "-", stdin=here(job("bert", on="h100"), namespace))
            await cluster.until(lambda: says(cluster, 'must not include "IPC_LOCK"'), "the server's sentence")
            assert not await cluster.pods()
            unlocked = {"spec": {"rdma": {"ipcLock": False}}}
            await cluster.admin.patch(ACCELERATOR_CLASS, "h100", unlocked, field_manager="user")
            await cluster.until(lambda: _settled(cluster, 2, 2), "both ranks, bound by the scheduler")
            for pod in await cluster.pods():
                assert int(pod["spec"]["containers"][0]["resources"]["limits"]["rdma/hca"]) >= 1
                assert pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] == "net/ib0"

    asyncio.run(work())
