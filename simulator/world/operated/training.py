"""Training jobs in the world: ranks that start on their nodes and meet, the gang they become, and how it ends.

When a rank is lost its gang fails at that moment; the others notice, and end, after a while.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from cluster import actions as act
from cluster.launch import RankLaunch
from cluster.training import Job, Layout
from simulator.physics.loading import Stage, StageEvent
from simulator.physics.shapes import rank_start_of, training_of
from simulator.physics.training import Gang, GangNode, GangPhase
from simulator.world.core import Event
from simulator.world.operated.attempts import Attempt, Progress, Ranks, fold_job, show, tell
from simulator.world.operated.machines import Site
from simulator.world.operated.units import LOOK_SECONDS, STOP_SECONDS, stages


def start(at: float, action: act.StartGang, overlay: Any, world: Any) -> list[Event]:
    """Every pod of an attempt, or none."""
    job = overlay.read("jobs")[action.job.name]
    return _form(at, job, action.attempt, action.layout, _saved(job.name, world), world)


def restart(at: float, action: act.RestartGang, overlay: Any, world: Any) -> list[Event]:
    """The members of an attempt go, and the next one is formed from its restore point."""
    old = world.attempts.get(action.gang.name)
    if old is not None and action.failed:
        _count(old, at, world)
    events = _dismiss(at, old, world)
    job = overlay.read("jobs")[action.job.name]
    return events + _form(at, job, action.attempt, action.layout, action.restore_step, world)


def end(at: float, action: act.StopGang, _: Any, world: Any) -> list[Event]:
    """The members of an attempt go."""
    old = world.attempts.get(action.gang.name)
    if old is not None and action.failed:
        _count(old, at, world)
    return _dismiss(at, old, world)


def _saved(job: str, world: Any) -> int:
    latest = world.vault.latest(job)
    return latest.step if latest is not None else 0


def _count(attempt: Attempt, at: float, world: Any) -> None:
    """An attempt counts as failed, once."""
    job: Job = world.jobs_known[attempt.job]
    if attempt.number > job.failed_attempt:
        world.jobs_known[job.name] = msgspec.structs.replace(
            job, failures=job.failures + 1, failed_attempt=attempt.number
        )
        fold_job(job.name, world.origin + at, world)


def _form(at: float, job: Job, number: int, layout: Layout, restore: int, world: Any) -> list[Event]:
    attempt = Attempt(job, number, layout, restore, at)
    world.attempts[attempt.key] = attempt
    for index, slot in enumerate(layout.slots):
        site: Site = world.sites[slot.node]
        ranks = Ranks(attempt, f"{attempt.key}-r{index}", site, slot)
        attempt.ranks.append(ranks)
        site.units[ranks.key] = ranks
    world.jobs_known[job.name] = msgspec.structs.replace(world.jobs_known[job.name], attempt=number)
    show(attempt, at, world)
    return [
        (at + world.spec.bind_seconds, bind, (each, at + world.spec.bind_seconds)) for each in attempt.ranks
    ]


def bind(_: float, subject: tuple[Ranks, float], world: Any) -> Iterable[Event]:
    """Ranks are bound to their node once their devices are free there, and its kubelet starts their process."""
    ranks, at = subject
    site = ranks.site
    if ranks.deleting or not ranks.here or ranks.status != "Pending":
        return ()
    if site.taken(ranks.key, ranks.slot.devices):
        again = at + LOOK_SECONDS
        return ((again, bind, (ranks, again)),)
    ranks.bound = True
    tell(ranks.attempt, at, world)
    if site.down:
        return ()
    events = list(stages(at, site, world))
    present = world.spec.start.images_present or ranks.attempt.job in site.images
    site.loader.begin(ranks.key, rank_start_of(world.spec.start, present))
    return [*events, (site.loader.next_event_seconds(), stages, site)]


def entered(event: StageEvent, site: Site, world: Any) -> list[Event]:
    """The process of ranks comes to its next stage; after the last its ranks go to their rendezvous."""
    ranks = site.units.get(event.name)
    if not isinstance(ranks, Ranks) or ranks.deleting:
        return []
    if event.stage is Stage.CONTAINER:
        site.images.add(ranks.attempt.job)
    if event.stage is Stage.WEIGHTS:
        ranks.status = "Running"
        tell(ranks.attempt, event.at_seconds, world)
    if event.stage is not Stage.READY:
        return []
    ranks.joined = True
    attempt = ranks.attempt
    if not all(each.joined for each in attempt.ranks):
        return []
    return _meet(attempt, event.at_seconds, world)


def _meet(attempt: Attempt, at: float, world: Any) -> list[Event]:
    """All ranks are there: the gang begins."""
    job = world.jobs_known[attempt.job]
    servers = {each.site.name: each.site.spec.server for each in attempt.ranks}
    nodes = {name: GangNode(server.gpu, job.gpus_per_node, server.nic) for name, server in servers.items()}
    spec = training_of(_launch(job, attempt))
    attempt.gang = Gang(attempt.job, attempt.number, spec, nodes, world.vault, at)
    for each in attempt.ranks:
        attempt.gang.set_speed(each.site.name, each.site.held.training_clock, each.site.spec.server.speed, at)
    return look(attempt)


def _launch(job: Job, attempt: Attempt) -> RankLaunch:
    layout = attempt.layout
    return RankLaunch(
        job=job.name, job_uid=job.name, attempt=attempt.number, rendezvous=attempt.key, node_rank=0,
        nodes=len(layout.slots), gpus=job.gpus_per_node, shape=job.shape, network=layout.network, steps=job.steps,
        global_batch=job.global_batch, micro_batch=layout.micro_batch, tensor=layout.tensor,
        pipeline=layout.pipeline, data=layout.data, checkpoint=job.checkpoint, restore_step=attempt.restore,
    )  # fmt: skip


def look(attempt: Attempt) -> list[Event]:
    """When the gang next changes by itself."""
    gang = attempt.gang
    at = attempt.scheduled = gang.next_event_seconds() if gang is not None else math.inf
    return [(at, turn, attempt)] if at < math.inf else []


def turn(at_seconds: float, subject: Attempt, world: Any) -> Iterable[Event]:
    """A phase of a gang ends, or its pace changes."""
    if at_seconds != subject.scheduled:
        return ()
    live(subject, at_seconds)
    return _goes_on(subject, at_seconds, world)


def live(attempt: Attempt, at: float) -> None:
    """Let a gang live up to then."""
    if attempt.gang is not None and not attempt.gang.over:
        for each in attempt.ranks:
            attempt.gang.advance_node(each.site.name, at)


def _goes_on(attempt: Attempt, at: float, world: Any) -> list[Event]:
    gang = attempt.gang
    if gang is None:
        return []
    if gang.phase is GangPhase.DONE:
        for each in attempt.ranks:
            each.status = "Succeeded"
            each.site.units.pop(each.key, None)
            world.settle_ranks(each, at)
        tell(attempt, at, world)
        return []
    return look(attempt)


def lose(ranks: Ranks, at: float, world: Any) -> list[Event]:
    """Ranks are no more; the others of their gang notice after a while."""
    attempt = ranks.attempt
    ranks.joined = False
    gang = attempt.gang
    if gang is None or gang.phase is GangPhase.DONE:
        return []
    live(attempt, at)
    if not gang.over:
        gang.fail(at, ranks.site.name)
    if attempt.lost == math.inf:
        attempt.lost = at
        return [(at + world.spec.peer_loss_seconds, noticed, attempt)]
    return []


def noticed(at_seconds: float, subject: Attempt, world: Any) -> Iterable[Event]:
    """The ranks that are left end: a collective has timed out."""
    for each in subject.ranks:
        if each.status == "Running" and not each.deleting and not each.site.down:
            each.status = "Failed"
            each.site.units.pop(each.key, None)
            world.settle_ranks(each, at_seconds)
    tell(subject, at_seconds, world)
    return ()


def _dismiss(at: float, attempt: Attempt | None, world: Any) -> list[Event]:
    """Deletion of every pod of an attempt is asked for."""
    if attempt is None:
        return []
    events: list[Event] = []
    for each in attempt.ranks:
        each.deleting = True
        if not each.site.down:
            events += lose(each, at, world)
            each.site.loader.cancel(each.key)
    show(attempt, at, world)
    return [*events, (at + STOP_SECONDS, cleared, attempt)]


def cleared(at_seconds: float, subject: Attempt, world: Any) -> Iterable[Event]:
    """Kubelets that live have removed the pods of an attempt that was to go."""
    for each in subject.ranks:
        if each.deleting and each.here and not (each.site.down and each.bound):
            each.here = False
            each.site.units.pop(each.key, None)
            world.settle_ranks(each, at_seconds)
    tell(subject, at_seconds, world)
    return ()


def report(site: Site, at: float) -> dict[str, Progress]:
    """What a node's agent says of the attempts on it."""
    found: dict[str, Progress] = {}
    for each in site.units.values():
        if isinstance(each, Ranks):
            attempt = each.attempt
            live(attempt, at)
            gang = attempt.gang
            joined = each.slot.gpus * each.joined
            found[attempt.key] = (
                Progress(joined, gang.step, gang.checkpoint_step) if gang is not None else Progress(joined)
            )
    return found
