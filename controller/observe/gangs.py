"""Gangs out of their pods and their ranks' progress."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cluster.base import Ref
from cluster.hardware import Slot
from cluster.launch import RankLaunch
from cluster.overlay import gang_key
from cluster.training import Gang, GangPhase, Layout
from controller.observe import labels
from controller.observe.blocked import blocked_by
from controller.observe.pods import node_of
from controller.resources.core import Pod


class Progress(NamedTuple):
    """What the agents of a gang's nodes report: ranks joined, step, last checkpoint, ended or not."""

    joined: int = 0
    step: int = 0
    checkpoint_step: int = 0
    phase: str = ""


class Member(NamedTuple):
    """One pod of a gang with what it was told."""

    pod: Pod
    launch: RankLaunch


class Memory(NamedTuple):
    """What was last seen of a gang: its phase, since when, whether all pods were ever there, and all have started."""

    phase: GangPhase = GangPhase.FORMING
    since_seconds: float = 0.0
    complete: bool = False
    ran: bool = False


def gang(
    members: Sequence[Member],
    lost_nodes: frozenset[str],
    progress: Progress,
    memory: Memory | None,
    *,
    newest_attempt: int,
    now_seconds: float,
) -> tuple[Gang, Memory]:
    """Project one attempt. `members` holds every pod of it that exists, in rank order, at least one."""
    first = members[0].launch
    key = gang_key(first.job, first.attempt)
    before = memory or Memory(since_seconds=now_seconds)
    complete = before.complete or len(members) == first.nodes
    phase = _phase(members, lost_nodes, progress, complete=complete, old=first.attempt < newest_attempt)
    if before.phase is GangPhase.STOPPING and phase is not GangPhase.DONE:
        phase = GangPhase.STOPPING  # a pod that shows now was created before it was stopped, and came late
    elif phase is GangPhase.FORMING and before.phase is not GangPhase.FORMING:
        phase = GangPhase.FAILED  # a rank that starts again inside an attempt has lost its state
    elif phase is GangPhase.STOPPING and before.phase is GangPhase.FAILED:
        phase = GangPhase.FAILED  # its pods are being removed; it failed all the same
    ran = before.ran or (
        len(members) == first.nodes and all(m.pod.status.phase != "Pending" for m in members)
    )
    since = before.since_seconds if phase is before.phase else now_seconds
    noun = Gang(
        key=key,
        ref=Ref("Gang", key, first.rendezvous),
        job=first.job,
        attempt=first.attempt,
        rendezvous=first.rendezvous,
        revision=members[0].pod.metadata.labels.get(labels.REVISION, ""),
        layout=_layout(members),
        phase=phase,
        phase_since_seconds=since,
        members=tuple(f"{m.pod.metadata.key}#{m.pod.metadata.uid}" for m in members),
        members_up=sum(1 for m in members if m.pod.status.phase == "Running"),
        blocked=next((words for m in members if (words := blocked_by(m.pod))), ""),
        ran=ran,
        step=max(progress.step, first.restore_step),
        checkpoint_step=max(progress.checkpoint_step, first.restore_step),
    )
    return noun, Memory(phase, since, complete, ran)


def _phase(
    members: Sequence[Member], lost_nodes: frozenset[str], progress: Progress, *, complete: bool, old: bool
) -> GangPhase:
    pods = [m.pod for m in members]
    expected = members[0].launch.nodes
    if len(pods) == expected and all(p.status.phase == "Succeeded" for p in pods):
        return GangPhase.DONE
    if old or all(p.metadata.deletion_timestamp is not None for p in pods):
        return GangPhase.STOPPING
    broken = any(
        p.status.phase == "Failed" or p.metadata.deletion_timestamp is not None or node_of(p) in lost_nodes
        for p in pods
    )
    if broken or (complete and len(pods) < expected):
        return GangPhase.FAILED
    if len(pods) < expected or not all(p.status.phase in ("Running", "Succeeded") for p in pods):
        return GangPhase.FORMING
    ranks = expected * members[0].launch.gpus
    return (
        GangPhase.RUNNING
        if progress.joined >= ranks or progress.step > members[0].launch.restore_step
        else GangPhase.VERIFYING
    )


def _layout(members: Sequence[Member]) -> Layout:
    first = members[0].launch
    slots = tuple(
        Slot(node=node_of(m.pod), devices=m.launch.devices)
        for m in sorted(members, key=lambda m: m.launch.node_rank)
    )
    return Layout(
        tensor=first.tensor,
        pipeline=first.pipeline,
        data=first.data,
        micro_batch=first.micro_batch,
        slots=slots,
        network=first.network,
    )


def merge_progress(rows: Mapping[str, Progress]) -> Progress:
    """Progress of a whole gang from its nodes': joins add up, a step counts when every node has done it."""
    if not rows:
        return Progress()
    return Progress(
        joined=sum(r.joined for r in rows.values()),
        step=min(r.step for r in rows.values()),
        checkpoint_step=min(r.checkpoint_step for r in rows.values()),
        phase=max((r.phase for r in rows.values()), default=""),
    )
