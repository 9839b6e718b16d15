"""Attempts at training jobs as the operator hears of them: pods of ranks, progress that agents tell, the gang they are.

The reading is the operator's of pods (`controller.observe.gangs`): an attempt forms until all of its ranks run, is verified until
all have met, fails when one is lost, and is done when all have succeeded.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec

from cluster.base import Ref
from cluster.hardware import Slot
from cluster.occupancy import Claim
from cluster.overlay import gang_key
from cluster.training import Gang as GangNoun
from cluster.training import GangPhase as Phase
from cluster.training import Job, JobPhase, Layout
from simulator.physics.training import Gang
from simulator.world.operated.machines import Site

ENDED = (Phase.DONE, Phase.FAILED, Phase.STOPPED)


class Progress(NamedTuple):
    """What the agents of an attempt's nodes said last, together."""

    joined: int = 0
    step: int = 0
    checkpoint_step: int = 0


class Ranks:
    """The ranks of one node, a pod: its `status` as a kubelet tells it, and whether its deletion was asked for."""

    __slots__ = ("attempt", "billed", "bound", "deleting", "here", "joined", "key", "site", "slot", "status")

    def __init__(self, attempt: Attempt, key: str, site: Site, slot: Slot) -> None:
        self.attempt, self.key, self.site, self.slot = attempt, key, site, slot
        self.status, self.joined, self.deleting, self.here = "Pending", False, False, True
        self.billed = self.bound = False

    def claim(self) -> Claim | None:
        """What it holds, while it has not ended."""
        if self.status in ("Succeeded", "Failed") or not self.here:
            return None
        phase = (
            "stopping"
            if self.deleting
            else "running"
            if self.status == "Running"
            else "bound"
            if self.bound
            else "pending"
        )
        return Claim(key=self.key, owner=Ref("TrainingJob", self.attempt.job), slot=self.slot, phase=phase)


class Attempt:
    """One attempt at a job: its ranks, the gang they became, and what the operator has heard of it."""

    __slots__ = (
        "complete", "gang", "heard", "job", "key", "layout", "lost", "noun", "number", "progress", "ranks", "restore",
        "revision", "said", "scheduled", "since", "told",
    )  # fmt: skip

    def __init__(self, job: Job, number: int, layout: Layout, restore: int, at_seconds: float) -> None:
        self.job, self.number, self.layout, self.restore = job.name, number, layout, restore
        self.key = gang_key(job.name, number)
        self.revision = job.revision
        self.ranks: list[Ranks] = []
        self.gang: Gang | None = None
        self.since, self.lost, self.scheduled = at_seconds, math.inf, math.inf
        self.told = self.heard = 0
        self.said: tuple[tuple[str, bool, str], ...] = ()
        self.progress: dict[str, Progress] = {}
        self.complete = False
        self.noun: GangNoun | None = None


def tell(attempt: Attempt, at: float, world: Any) -> None:
    """The operator will hear how the pods of an attempt are now."""
    attempt.told += 1
    number, said = attempt.told, _said(attempt)
    world.ears.put(
        world.origin + at + world.spec.delays.watch_seconds,
        lambda now: _hear(attempt, number, said, now, world),
    )


def show(attempt: Attempt, at: float, world: Any) -> None:
    """The operator did it itself."""
    attempt.told += 1
    _hear(attempt, attempt.told, _said(attempt), world.origin + at, world)


def progressed(site: str, told: dict[str, Progress], now: float, world: Any) -> bool:
    """A node's report of its attempts is heard."""
    changed = False
    for key, progress in told.items():
        attempt = world.attempts.get(key)
        if attempt is not None:
            attempt.progress[site] = progress
            changed |= fold(attempt, now, world)
    return changed


def _said(attempt: Attempt) -> tuple[tuple[str, bool, str], ...]:
    return tuple((each.status, each.deleting, each.site.name) for each in attempt.ranks if each.here)


def _hear(
    attempt: Attempt, number: int, said: tuple[tuple[str, bool, str], ...], now: float, world: Any
) -> bool:
    if number < attempt.heard:
        return False
    attempt.heard, attempt.said = number, said
    changed = False
    for each in attempt.ranks:
        claim = each.claim()
        changed |= world.ears.see(claim, now) if claim else world.ears.drop("claims", each.key, now)
    return fold(attempt, now, world) or changed


def fold(attempt: Attempt, now: float, world: Any) -> bool:
    """The attempt as a noun, and its job; whether a planner would look at something new."""
    before: GangNoun | None = attempt.noun
    if not attempt.said:
        world.attempts.pop(attempt.key, None)
        gone = world.ears.drop("gangs", attempt.key, now) if before is not None else False
        return fold_job(attempt.job, now, world) or gone
    rows = attempt.progress.values()
    progress = Progress(
        sum(p.joined for p in rows), min((p.step for p in rows), default=0), min((p.checkpoint_step for p in rows), default=0)
    )  # fmt: skip
    attempt.complete |= len(attempt.said) == len(attempt.layout.slots)
    phase = _after(before.phase if before else Phase.FORMING, _phase(attempt, progress, world))
    since = before.phase_since_seconds if before is not None and phase is before.phase else now
    up = [status != "Pending" for status, _, _ in attempt.said]
    noun = attempt.noun = GangNoun(
        key=attempt.key, ref=Ref("Gang", attempt.key, attempt.key), job=attempt.job, attempt=attempt.number,
        rendezvous=attempt.key, layout=_layout(attempt), revision=attempt.revision, phase=phase,
        phase_since_seconds=since, members=tuple(f"{r.key}#{attempt.number}" for r in attempt.ranks if r.here),
        members_up=sum(status == "Running" for status, _, _ in attempt.said),
        ran=(before is not None and before.ran) or (len(up) == len(attempt.ranks) and all(up)),
        step=max(progress.step, attempt.restore), checkpoint_step=max(progress.checkpoint_step, attempt.restore),
    )  # fmt: skip
    world.ears.see(noun, now)
    news = before is None or (before.phase, before.members) != (phase, noun.members)
    return fold_job(attempt.job, now, world) or news


def _layout(attempt: Attempt) -> Layout:
    """The layout as pods show it: of those that are left."""
    given = attempt.layout
    slots = tuple(Slot(node=r.slot.node, devices=r.slot.devices) for r in attempt.ranks if r.here)
    return Layout(
        tensor=given.tensor, pipeline=given.pipeline, data=given.data, micro_batch=given.micro_batch, slots=slots,
        network=given.network,
    )  # fmt: skip


def _after(before: Phase, phase: Phase) -> Phase:
    """What a phase becomes after another one: an attempt neither comes back nor forgets that it failed."""
    if before is Phase.STOPPING and phase is not Phase.DONE:
        return Phase.STOPPING
    if phase is Phase.FORMING and before is not Phase.FORMING:
        return Phase.FAILED
    if phase is Phase.STOPPING and before is Phase.FAILED:
        return Phase.FAILED
    return phase


def _phase(attempt: Attempt, progress: Progress, world: Any) -> Phase:
    said, expected = attempt.said, len(attempt.layout.slots)
    if len(said) == expected and all(status == "Succeeded" for status, _, _ in said):
        return Phase.DONE
    newest = max(a.number for a in world.attempts.values() if a.job == attempt.job)
    if attempt.number < newest or all(deleting for _, deleting, _ in said):
        return Phase.STOPPING
    broken = any(status == "Failed" or deleting or node in world.ears.lost for status, deleting, node in said)
    if broken or (attempt.complete and len(said) < expected):
        return Phase.FAILED
    if len(said) < expected or not all(status in ("Running", "Succeeded") for status, _, _ in said):
        return Phase.FORMING
    ranks = sum(slot.gpus for slot in attempt.layout.slots)
    met = progress.joined >= ranks or progress.step > attempt.restore
    return Phase.RUNNING if met else Phase.VERIFYING


def fold_job(name: str, now: float, world: Any) -> bool:
    """A job with its newest attempt, active while one of them lives and done once one is."""
    job: Job = world.jobs_known[name]
    mine = [a.noun.phase for a in world.attempts.values() if a.job == name and a.noun is not None]
    phase = job.phase
    if phase is JobPhase.WAITING and any(each not in ENDED for each in mine):
        phase = JobPhase.ACTIVE
    elif phase is JobPhase.WAITING and Phase.DONE in mine:
        phase = JobPhase.DONE
    return bool(world.ears.see(msgspec.structs.replace(job, phase=phase), now))
