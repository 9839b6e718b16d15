"""Pods as nouns: claims of everybody's, launchers and replicas of services, members of gangs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from cluster.base import Ref
from cluster.codec import from_json
from cluster.hardware import Slot
from cluster.launch import EngineLaunch, RankLaunch
from cluster.occupancy import Claim
from cluster.serving import Launcher, Replica, ReplicaPhase
from controller.observe import labels
from controller.observe.blocked import blocked_by, unprepared
from controller.observe.quantities import quantity_of
from controller.observe.seats import NOBODY, Seats
from controller.resources.core import Container, Pod

OBSTACLE_LIMIT = 200
"""Characters kept of what scheduler or kubelet say."""


class PodFacts(NamedTuple):
    """What one pod means: a claim while it holds devices, and what it is to us. `others` are claims of somebody else's pod on
    further parts of its machine; its CPU and memory are in the first alone.
    """

    claim: Claim | None
    launcher: Launcher | None = None
    replica: Replica | None = None
    rank: RankLaunch | None = None
    others: tuple[Claim, ...] = ()

    @property
    def claims(self) -> tuple[Claim, ...]:
        """All that it holds."""
        return self.others if self.claim is None else (self.claim, *self.others)


SIDECAR = "Always"
"""restartPolicy of an init container that stays beside the others."""


def pod_gpus(pod: Pod, resource_names: frozenset[str]) -> int:
    """GPUs a pod holds, of all the resource names together (of extended resources the limit is the request)."""
    return sum(effective(pod, name, 1, limits_first=True) for name in resource_names)


def effective(pod: Pod, name: str, scale: int, *, limits_first: bool = False) -> int:
    """What a pod takes of a resource, times `scale`, as the scheduler counts it.

    Containers and sidecars run together; an init container runs with the sidecars before it, and gives back what it
    had: the larger of the two counts. What the runtime class takes comes on top.
    """

    def wanted(container: Container) -> int:
        given = container.resources
        both = {**given.requests, **given.limits} if limits_first else {**given.limits, **given.requests}
        return quantity_of(both, name, scale)

    sidecars = most = 0
    for container in pod.spec.init_containers:
        if container.restart_policy == SIDECAR:
            sidecars += wanted(container)
            most = max(most, sidecars)
        else:
            most = max(most, sidecars + wanted(container))
    running = sidecars + sum(wanted(container) for container in pod.spec.containers)
    return max(running, most) + quantity_of(pod.spec.overhead, name, scale)


def node_of(pod: Pod) -> str:
    """Where a pod is, is pinned to, or is given room by the scheduler: what others were preempted for is not free."""
    return pod.spec.node_name or pod.pinned_to or pod.status.nominated_node_name


class Part(NamedTuple):
    """A part of a machine with GPUs of several classes: its name in the model, and the resource that pods ask for it by."""

    node: str
    resource_name: str


Parts = Mapping[str, Part]
"""Parts of a machine beyond its first class, by the class's name."""
WHOLE_MACHINE: Parts = {}


def project(
    pod: Pod,
    resource_names: frozenset[str],
    *,
    node_lost: bool,
    now_seconds: float,
    seats: Seats = NOBODY,
    parts: Parts = WHOLE_MACHINE,
) -> PodFacts:
    """Project one pod. A pod whose launch annotation cannot be read counts as somebody else's.

    `seats`: who really has which device of its node; `parts`: what else its machine is.
    """
    service, job = pod.metadata.labels.get(labels.SERVICE), pod.metadata.labels.get(labels.JOB)
    ours = labels.LAUNCH in pod.metadata.annotations
    try:
        if ours and service:
            launch = from_json(pod.metadata.annotations[labels.LAUNCH], EngineLaunch)
            part = parts.get(launch.variant.accelerator)
            found = _engine(
                pod, launch, seats if part is None else NOBODY, node_lost=node_lost, now_seconds=now_seconds
            )
            return found if part is None else _moved_to(found, part.node)
        if ours and job:
            rank = from_json(pod.metadata.annotations[labels.LAUNCH], RankLaunch)
            owner = Ref("TrainingJob", rank.job)
            return PodFacts(_claim(pod, owner, rank.devices, rank.gpus, seats), rank=rank)
    except msgspec.DecodeError:
        pass
    claims = _foreign(pod, resource_names, seats, parts)
    return PodFacts(claims[0] if claims else None, others=tuple(claims[1:]))


def _foreign(pod: Pod, resource_names: frozenset[str], seats: Seats, parts: Parts) -> list[Claim]:
    """What somebody else's pod holds of its machine, a claim for each part: the first has the pod's name, CPU and memory."""
    owner = Ref("Pod", pod.metadata.key, pod.metadata.uid)
    gpus = pod_gpus(pod, resource_names)
    claim = _claim(pod, owner, (), gpus, seats, foreign=True) if gpus else None
    found = [claim] if claim is not None else []
    for part in parts.values():
        slices = pod_gpus(pod, frozenset({part.resource_name}))
        claim = _claim(pod, owner, (), slices, NOBODY, foreign=True) if slices else None
        if claim is None:
            continue
        slot = msgspec.structs.replace(claim.slot, node=part.node)
        if found:
            claim = msgspec.structs.replace(claim, key=f"{claim.key}/{len(found)}")
            slot = msgspec.structs.replace(slot, cpu_millis=0, memory_bytes=0)
        found.append(msgspec.structs.replace(claim, slot=slot))
    return found


def _moved_to(facts: PodFacts, node: str) -> PodFacts:
    """The same on a part of its machine."""

    def moved(slot: Slot) -> Slot:
        return msgspec.structs.replace(slot, node=node if slot.node else "")

    claim, launcher = facts.claim, facts.launcher
    if claim is not None:
        claim = msgspec.structs.replace(claim, slot=moved(claim.slot))
    if launcher is not None:
        launcher = msgspec.structs.replace(launcher, slots=tuple(moved(slot) for slot in launcher.slots))
    return facts._replace(claim=claim, launcher=launcher)


def _claim(
    pod: Pod,
    owner: Ref,
    devices: tuple[int, ...],
    gpus: int,
    seats: Seats,
    *,
    milli: int = 1_000,
    foreign: bool = False,
) -> Claim | None:
    if pod.finished or not node_of(pod):
        return None
    phase = "running" if pod.status.phase == "Running" else "bound" if pod.spec.node_name else "pending"
    if pod.metadata.deletion_timestamp is not None:
        phase = "stopping"
    return Claim(
        key=pod.metadata.key,
        owner=owner,
        slot=Slot(
            node=node_of(pod),
            devices=seats.of(pod.metadata.key, devices or tuple(range(-gpus, 0)), shares=milli < 1_000),
            milli_per_device=milli,
            cpu_millis=effective(pod, "cpu", 1000),
            memory_bytes=effective(pod, "memory", 1),
        ),
        priority=pod.spec.priority,
        phase=phase,
        foreign=foreign,
    )


def _engine(pod: Pod, launch: EngineLaunch, seats: Seats, *, node_lost: bool, now_seconds: float) -> PodFacts:
    key = pod.metadata.key
    phase = _phase(pod, node_lost=node_lost)
    variant, ref = launch.variant, Ref("Replica", key, pod.metadata.uid)
    claim = _claim(pod, ref, launch.devices, variant.gpus, seats, milli=variant.milli)
    slot = (
        claim.slot
        if claim
        else Slot(node=node_of(pod), devices=launch.devices, milli_per_device=variant.milli)
    )
    told = pod.metadata.labels.get(labels.GENERATION, "")
    generation = int(told) if told.isdecimal() else 0  # a label is anybody's to edit
    launcher = Launcher(
        key=key,
        ref=Ref("Launcher", key, pod.metadata.uid),
        slots=(slot,),
        variant=launch.variant,
        phase=phase,
    )
    replica = Replica(
        key=key,
        ref=Ref("Replica", key, pod.metadata.uid, generation),
        service=launch.service,
        launcher=key,
        variant=launch.variant,
        pool=launch.pool,
        phase=phase,
        stage=_stage(pod, phase),
        ordinal=launch.ordinal,
        revision=pod.metadata.labels.get(labels.REVISION, ""),
        fault=pod.fault if phase in (ReplicaPhase.PENDING, ReplicaPhase.STARTING) else "",
        restarts=pod.restarts if phase in (ReplicaPhase.PENDING, ReplicaPhase.STARTING) else 0,
        blocked=blocked_by(pod),
        unprepared=unprepared(pod),
        phase_since_seconds=now_seconds,
    )
    return PodFacts(claim, launcher, replica)


def _stage(pod: Pod, phase: ReplicaPhase) -> str:
    """The start-up stage; of a pod that does not get on, what scheduler or kubelet say about it."""
    if phase not in (ReplicaPhase.PENDING, ReplicaPhase.STARTING, ReplicaPhase.FAILED):
        return ""
    reason = pod.status.reason if phase is not ReplicaPhase.PENDING else ""
    return pod.obstacle[:OBSTACLE_LIMIT] or reason


def awaits_registration(pod: Pod) -> bool:
    """Whether a pod is up but for the gate that the operator opens."""
    return (
        any(gate.condition_type == labels.REGISTERED for gate in pod.spec.readiness_gates)
        and pod.holds("ContainersReady")
        and not pod.holds(labels.REGISTERED)
        and pod.metadata.deletion_timestamp is None
        and not pod.finished
    )


def is_finalized(pod: Pod) -> bool:
    """Whether a pod is being deleted and has a finalizer of ours, which only the operator takes off."""
    meta = pod.metadata
    return meta.deletion_timestamp is not None and any(f.startswith(labels.PREFIX) for f in meta.finalizers)


def _phase(pod: Pod, *, node_lost: bool) -> ReplicaPhase:
    if node_lost:
        return ReplicaPhase.LOST
    if pod.finished:
        # Deleted as well: nothing is left of it but an object that somebody's finalizer holds.
        return ReplicaPhase.FAILED if pod.metadata.deletion_timestamp is None else ReplicaPhase.GONE
    if pod.metadata.deletion_timestamp is not None:
        return ReplicaPhase.STOPPING
    if labels.DRAIN_UNTIL in pod.metadata.annotations:
        return ReplicaPhase.DRAINING
    if not pod.spec.node_name:
        return ReplicaPhase.PENDING
    return ReplicaPhase.READY if pod.serving else ReplicaPhase.STARTING
