"""Pods as the operator writes them: pinned to their node, owned by the user's object, named for good.

A pod is pinned by required affinity on `metadata.name` (`nodeSelector` loses the scheduler's fast path:
DESIGN §3.3); the default scheduler binds it, so taints, volumes and device plugins stay honest.
"""

from __future__ import annotations

from typing import Any

from cluster.actions import CreateReplica, RestartGang, StartGang
from cluster.codec import to_json
from cluster.hardware import AcceleratorClass, Slot
from cluster.launch import EngineLaunch, RankLaunch
from cluster.serving import Service
from cluster.training import Job
from controller.observe import labels
from controller.resources.base import API_VERSION

DEFAULT_ENGINE_IMAGE = "plimsoll/engine:0.1.0"
DEFAULT_RANK_IMAGE = "plimsoll/trainer:0.1.0"
UNREACHABLE_SECONDS = 30
"""How long a pod tolerates an unreachable node (Kubernetes' default is 300 s, which no gang can wait for)."""
ENGINE_PORT = 8000
RENDEZVOUS_PORT = 29400


def split_key(key: str) -> tuple[str, str]:
    """`namespace/name` as (namespace, name); cluster-scoped keys have namespace ""."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def replica_pod(
    action: CreateReplica, service: Service, accelerator: AcceleratorClass, image: str
) -> dict[str, Any]:
    """The pod of a replica with its own launcher, on one slot."""
    slot = action.slots[0]
    launch = EngineLaunch(
        service=service.name,
        model=service.model,
        image=image,
        variant=action.variant,
        pool=action.pool,
        ordinal=action.ordinal,
        devices=slot.devices,
    )
    marks = {
        labels.SERVICE: split_key(service.name)[1],
        labels.VARIANT: action.variant.key.lower(),
        labels.GENERATION: str(service.ref.version),
    }
    pod = _pod(
        action.name, slot, accelerator, marks, to_json(launch).decode(), _owner("ModelService", service.ref)
    )
    container = pod["spec"]["containers"][0]
    container |= {"name": "engine", "image": image or DEFAULT_ENGINE_IMAGE}
    container["ports"] = [{"containerPort": ENGINE_PORT}]
    container["readinessProbe"] = {"httpGet": {"path": "/health", "port": ENGINE_PORT}, "periodSeconds": 1}
    container["lifecycle"] = {"preStop": {"httpGet": {"path": "/drain", "port": ENGINE_PORT}}}
    pod["spec"]["terminationGracePeriodSeconds"] = max(1, round(service.drain_seconds))
    pod["spec"]["priority"] = service.priority
    return pod


def gang_pods(
    action: StartGang | RestartGang, job: Job, accelerator: AcceleratorClass, image: str, restore_step: int
) -> list[dict[str, Any]]:
    """Every pod of an attempt, one a node, in rank order; names and rendezvous are the attempt's own."""
    namespace, name = split_key(job.name)
    rendezvous = f"{job.ref.uid or name}-a{action.attempt}"
    master = f"{name}-a{action.attempt}-r0.{name}.{namespace}"
    pods = []
    for rank, slot in enumerate(action.layout.slots):
        launch = rank_launch(action, job, rank, rendezvous, restore_step)
        marks = {labels.JOB: name, labels.ATTEMPT: str(action.attempt), labels.NODE_RANK: str(rank)}
        pod = _pod(
            f"{namespace}/{name}-a{action.attempt}-r{rank}",
            slot,
            accelerator,
            marks,
            to_json(launch).decode(),
            _owner("TrainingJob", job.ref),
        )
        pod["metadata"]["annotations"][labels.RENDEZVOUS] = rendezvous
        container = pod["spec"]["containers"][0]
        container |= {"name": "ranks", "image": image or DEFAULT_RANK_IMAGE}
        container["env"] += torchrun_environment(launch, master)
        pod["spec"]["restartPolicy"] = "Never"
        pod["spec"]["terminationGracePeriodSeconds"] = 10
        pod["spec"]["priority"] = job.priority
        pods.append(pod)
    return pods


def rank_launch(
    action: StartGang | RestartGang, job: Job, rank: int, rendezvous: str, restore_step: int
) -> RankLaunch:
    """What the ranks of one node are told."""
    layout = action.layout
    return RankLaunch(
        job=job.name,
        job_uid=job.ref.uid,
        attempt=action.attempt,
        rendezvous=rendezvous,
        node_rank=rank,
        nodes=len(layout.slots),
        gpus=layout.slots[rank].gpus,
        shape=job.shape,
        network=layout.network,
        steps=job.steps,
        global_batch=job.global_batch,
        micro_batch=layout.micro_batch,
        tensor=layout.tensor,
        pipeline=layout.pipeline,
        data=layout.data,
        checkpoint=job.checkpoint,
        restore_step=restore_step,
        devices=layout.slots[rank].devices,
    )


def torchrun_environment(launch: RankLaunch, master: str) -> list[dict[str, str]]:
    """The variables torch.distributed's rendezvous reads, and ours that fence an old attempt."""
    values = {
        "NNODES": launch.nodes,
        "NPROC_PER_NODE": launch.gpus,
        "NODE_RANK": launch.node_rank,
        "WORLD_SIZE": launch.nodes * launch.gpus,
        "RANK": launch.node_rank * launch.gpus,
        "MASTER_ADDR": master,
        "MASTER_PORT": RENDEZVOUS_PORT,
        "RDZV_ID": launch.rendezvous,
        "RDZV_BACKEND": "c10d",
        "RDZV_ENDPOINT": f"{master}:{RENDEZVOUS_PORT}",
        "PLIMSOLL_ATTEMPT": launch.attempt,
        "PLIMSOLL_RESTORE_STEP": launch.restore_step,
    }
    return [{"name": name, "value": str(value)} for name, value in values.items()]


def _owner(kind: str, ref: Any) -> dict[str, Any]:
    # blockOwnerDeletion would need update on the owner's finalizers (measured: 403 without), and buys nothing here.
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": split_key(ref.name)[1],
        "uid": ref.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _pod(
    key: str,
    slot: Slot,
    accelerator: AcceleratorClass,
    marks: dict[str, str],
    launch: str,
    owner: dict[str, Any],
) -> dict[str, Any]:
    namespace, name = split_key(key)
    resources: dict[str, Any] = {accelerator.resource_name: str(slot.gpus)}
    if slot.cpu_millis:
        resources["cpu"] = f"{slot.cpu_millis}m"
    if slot.memory_bytes:
        resources["memory"] = str(slot.memory_bytes)
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {labels.MANAGED_BY: "plimsoll", **marks},
            "annotations": {labels.LAUNCH: launch},
            "ownerReferences": [owner],
        },
        "spec": {
            "affinity": {
                "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _only(slot.node)}
            },
            "tolerations": _tolerations(accelerator),
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "main",
                    "image": "",
                    "resources": {"limits": resources, "requests": dict(resources)},
                    "env": [{"name": "PLIMSOLL_LAUNCH", "value": launch}],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }


def _only(node: str) -> dict[str, Any]:
    return {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]
    }


def _tolerations(accelerator: AcceleratorClass) -> list[dict[str, Any]]:
    lost = [
        {
            "key": f"node.kubernetes.io/{key}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": UNREACHABLE_SECONDS,
        }
        for key in ("unreachable", "not-ready")
    ]
    return [{"key": accelerator.resource_name, "operator": "Exists", "effect": "NoSchedule"}, *lost]
