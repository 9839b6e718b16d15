"""Which jobs wait for a start and in what order; shared by commitment (what to keep free) and training."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.hardware import Offer
from cluster.snapshot import Snapshot
from cluster.training import Gang, GangPhase, Job, JobPhase

ENDED = (GangPhase.STOPPED, GangPhase.DONE)
"""Phases of an attempt whose pods are gone."""


def newest_gangs(view: Snapshot) -> dict[str, Gang]:
    """The latest attempt of each job that is in view."""
    found: dict[str, Gang] = {}
    for key in sorted(view.gangs):
        gang = view.gangs[key]
        if gang.job not in found or gang.attempt > found[gang.job].attempt:
            found[gang.job] = gang
    return found


def in_queue_order(jobs: Mapping[str, Job]) -> list[Job]:
    """Jobs by (priority descending, waiting longest, name), without those that are left as they are."""
    return sorted(
        (j for j in jobs.values() if not j.held), key=lambda j: (-j.priority, j.waiting_since_seconds, j.name)
    )


def waits(view: Snapshot, job: Job, gang: Gang | None) -> bool:
    """Whether a job should start and has no attempt in view that holds anything it could use."""
    if job.suspended or job.phase in (JobPhase.DONE, JobPhase.FAILED):
        return False
    if job.spent:
        return False
    return gang is None or gang.phase is GangPhase.STOPPED or _buried(view, gang)


def _buried(view: Snapshot, gang: Gang) -> bool:
    """Whether all that is left of a stopping attempt lies on lost nodes: nobody will say that it is gone before they
    are back, and its ranks are fenced by then.
    """
    if gang.phase is not GangPhase.STOPPING:
        return False
    claims = [view.claims.get(member.partition("#")[0]) for member in gang.members]
    left = [claim for claim in claims if claim is not None]
    return all(claim.phase == "stopping" and _lost(view, claim.slot.node) for claim in left)


def _lost(view: Snapshot, name: str) -> bool:
    node = view.nodes.get(name)
    return node is None or node.offer is Offer.LOST
