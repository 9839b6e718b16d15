"""Pods as the operator writes them: pinned to their node, owned by the user's object, named for good.

A pod is pinned by required affinity on `metadata.name` (`nodeSelector` loses the scheduler's fast path:
DESIGN §3.3); the default scheduler binds it, so taints, volumes and device plugins stay honest. What the API
server thinks of each field stands in docs/designs/0009-pods.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from cluster.actions import CreateReplica, RestartGang, StartGang
from cluster.codec import to_json
from cluster.hardware import AcceleratorClass, Node, Slot
from cluster.launch import EngineLaunch, RankLaunch
from cluster.serving import Service
from cluster.training import Job
from controller.actor.equipment import (
    Share,
    claim_gpus,
    devices,
    reach_others,
    share_memory,
    share_of,
    template_name,
)
from controller.actor.notes import UNDISTURBED
from controller.actor.userpart import lay
from controller.config import PodSettings
from controller.observe import labels
from controller.resources.base import API_VERSION
from controller.resources.podpart import Wish

UNREACHABLE_SECONDS = 30
"""How long a pod tolerates an unreachable node (Kubernetes' default is 300 s, which no gang can wait for)."""
ENGINE_PORT = 8000
RENDEZVOUS_PORT = 29400
RANK_GRACE_SECONDS = 10
"""Least time ranks have to end; the time to write a checkpoint comes on top."""
LABEL_LIMIT = 63
DEFAULTS = PodSettings()
NO_NODES: Mapping[str, Node] = MappingProxyType({})


def split_key(key: str) -> tuple[str, str]:
    """`namespace/name` as (namespace, name); cluster-scoped keys have namespace ""."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def engines_name(service: str) -> str:
    """Name of the headless Service over a ModelService's replicas (at most 48 characters)."""
    return f"{service}-engines"


def ranks_name(job: str) -> str:
    """Name of the headless Service that gives a TrainingJob's ranks their host names (at most 46 characters)."""
    return f"{job}-ranks"


def label_value(text: str) -> str:
    """Text as a label's value: what Kubernetes refuses there becomes `-`, and what is too long is cut."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower())[:LABEL_LIMIT].strip("-._")


def replica_pod(
    action: CreateReplica,
    service: Service,
    accelerator: AcceleratorClass,
    wish: Wish,
    settings: PodSettings = DEFAULTS,
    node: Node | None = None,
) -> dict[str, Any]:
    """The pod of a replica with its own launcher, on one slot; `node` is the slot's, which says what a share is of."""
    slot = action.slots[0]
    launch = EngineLaunch(
        service=service.name,
        model=service.model,
        image=wish.image,
        variant=action.variant,
        pool=action.pool,
        ordinal=action.ordinal,
        devices=slot.devices,
    )
    marks = {
        labels.SERVICE: split_key(service.name)[1],
        labels.VARIANT: label_value(action.variant.key),
        labels.GENERATION: str(service.ref.version),
        **({labels.REVISION: service.revision} if service.revision else {}),
    }
    owner = owner_reference("ModelService", service.ref.name, service.ref.uid)
    where = slot if node is None else msgspec.structs.replace(slot, node=node.machine)
    pod = _pod(action.name, where, accelerator, marks, to_json(launch).decode(), owner, settings)
    container = pod["spec"]["containers"][0]
    container |= {"name": "engine", "image": wish.image or settings.engine_image}
    container["ports"] = [{"containerPort": ENGINE_PORT}]
    container["readinessProbe"] = {"httpGet": {"path": "/health", "port": ENGINE_PORT}, "periodSeconds": 1}
    container["lifecycle"] = {"preStop": {"httpGet": {"path": "/drain", "port": ENGINE_PORT}}}
    pod["spec"]["terminationGracePeriodSeconds"] = max(1, round(service.drain_seconds))
    # The kubelet's word is not enough: the operator opens this gate when the engine is registered and warm.
    pod["spec"]["readinessGates"] = [{"conditionType": labels.REGISTERED}]
    lay(pod, wish, settings)
    _equip(pod, engines_name(split_key(service.name)[1]), slot, accelerator, share_of(slot, node))
    return pod


def _equip(
    pod: dict[str, Any], whose: str, slot: Slot, accelerator: AcceleratorClass, share: Share | None = None
) -> None:
    """Devices by claim where the class wants it so, and shared memory where there are several of them."""
    if accelerator.sharing == "dra":
        claim_gpus(pod, template_name(whose, accelerator, slot.gpus, share))
    if slot.gpus > 1:
        share_memory(pod, slot, accelerator)


def gang_pods(
    action: StartGang | RestartGang,
    job: Job,
    accelerator: AcceleratorClass,
    wish: Wish,
    restore_step: int,
    settings: PodSettings = DEFAULTS,
    nodes: Mapping[str, Node] = NO_NODES,
) -> list[dict[str, Any]]:
    """Every pod of an attempt, one a node, in rank order; names and rendezvous are the attempt's own.

    Host name and subdomain give rank 0 the DNS name that the others dial, by the headless Service of the job. `nodes`
    are those of the layout: how many RDMA devices each offers.
    """
    namespace, name = split_key(job.name)
    rendezvous = f"{job.ref.uid or name}-a{action.attempt}"
    subdomain = ranks_name(name)
    master = f"{name}-a{action.attempt}-r0.{subdomain}.{namespace}.svc"
    owner = owner_reference("TrainingJob", job.ref.name, job.ref.uid)
    pods = []
    for rank, slot in enumerate(action.layout.slots):
        launch = rank_launch(action, job, rank, rendezvous, restore_step)
        marks = {labels.JOB: name, labels.ATTEMPT: str(action.attempt), labels.NODE_RANK: str(rank)}
        marks |= {labels.REVISION: job.revision} if job.revision else {}
        key = f"{namespace}/{name}-a{action.attempt}-r{rank}"
        pod = _pod(key, slot, accelerator, marks, to_json(launch).decode(), owner, settings)
        # Whoever takes the node of one rank ends the whole gang: not for a better packing.
        pod["metadata"]["annotations"] |= {labels.RENDEZVOUS: rendezvous, **UNDISTURBED}
        container = pod["spec"]["containers"][0]
        container |= {"name": "ranks", "image": wish.image or settings.rank_image}
        container["env"] += torchrun_environment(launch, master)
        pod["spec"] |= {
            "hostname": pod["metadata"]["name"],
            "subdomain": subdomain,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": RANK_GRACE_SECONDS + round(job.checkpoint.write_seconds),
        }
        lay(pod, wish, settings)
        _equip(pod, subdomain, slot, accelerator)
        if len(action.layout.slots) > 1:
            reach_others(pod, accelerator, nodes.get(slot.node), action.layout.network)
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


def owner_reference(kind: str, key: str, uid: str) -> dict[str, Any]:
    """A reference to one of our objects: its deletion takes the dependent with it.

    blockOwnerDeletion would need update on the owner's finalizers (measured: 403 without), and buys nothing here.
    """
    return {
        "apiVersion": API_VERSION,
        "kind": kind,
        "name": split_key(key)[1],
        "uid": uid,
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
    settings: PodSettings,
) -> dict[str, Any]:
    namespace, name = split_key(key)
    resources = _resources(slot, accelerator)
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
            "enableServiceLinks": False,
            "securityContext": _security(settings),
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


def _resources(slot: Slot, accelerator: AcceleratorClass) -> dict[str, str]:
    resources = devices(slot, accelerator)
    if slot.cpu_millis:
        resources["cpu"] = f"{slot.cpu_millis}m"
    if slot.memory_bytes:
        resources["memory"] = str(slot.memory_bytes)
    return resources


def _security(settings: PodSettings) -> dict[str, Any]:
    """What a namespace of the level `restricted` asks of a pod."""
    context: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}}
    if settings.run_as_user:
        context |= {
            "runAsNonRoot": True,
            "runAsUser": settings.run_as_user,
            "runAsGroup": settings.run_as_user,
            "fsGroup": settings.run_as_user,
        }
    return context


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
    return [*({"key": key, "operator": "Exists"} for key in accelerator.taint_keys), *lost]
