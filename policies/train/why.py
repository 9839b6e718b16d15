"""Reasons of training, with their numbers."""

from __future__ import annotations

from cluster.base import Ref
from cluster.occupancy import Reservation
from cluster.reasons import Reason, Remedy, Verdict
from cluster.refused import Refused
from cluster.training import Gang, Job
from placement.training.islands import Fit, Shortage
from policies.draft import quantity
from policies.resting import Rest, pause_seconds


def started(job: Job, fit: Fit) -> Reason:
    """A gang found its island."""
    return Reason(
        code="GangStarted", subject=job.ref, verdict=Verdict.CHOSEN, choice=fit.island.text,
        need=quantity("nodes", len(fit.nodes), "nodes"), have=quantity("free", fit.free_nodes, "nodes"),
        limit=quantity("rate", fit.island.rate, "bit/s"), refs=tuple(node.ref for node in fit.nodes[:8]),
    )  # fmt: skip


def waiting(job: Job, shortage: Shortage) -> Reason:
    """No island has enough whole nodes free."""
    if not shortage.divides:
        return cannot_divide(job, shortage)
    lacking = max(1, shortage.needed - shortage.free_nodes)
    return Reason(
        code="GangWaiting", subject=job.ref, verdict=Verdict.BLOCKED, choice=shortage.island,
        need=quantity("nodes", shortage.needed, "nodes"), have=quantity("free", shortage.free_nodes, "nodes"),
        limit=quantity("in_island", shortage.nodes, "nodes"),
        facts=(quantity("gpus", job.gpus_per_node, "GPU"),),
        remedy=Remedy("FreeNodes", shortage.island, (quantity("need", lacking, "nodes"),)),
    )  # fmt: skip


def making_room(job: Job, fit: Fit, free: int) -> Reason:
    """The gang's nodes are chosen, but not all free yet."""
    lacking = max(1, len(fit.nodes) - free)
    return Reason(
        code="GangWaiting", subject=job.ref, verdict=Verdict.BLOCKED, choice=fit.island.text,
        need=quantity("nodes", len(fit.nodes), "nodes"), have=quantity("free", free, "nodes"),
        limit=quantity("in_island", len(fit.island.nodes), "nodes"),
        facts=(quantity("gpus", job.gpus_per_node, "GPU"),),
        remedy=Remedy("FreeNodes", fit.island.text, (quantity("need", lacking, "nodes"),)),
    )  # fmt: skip


def cannot_divide(job: Job, shortage: Shortage) -> Reason:
    """Nodes are free, but no allowed number of them divides the batch and holds the model."""
    return Reason(
        code="GangIndivisible", subject=job.ref, verdict=Verdict.BLOCKED, choice=shortage.island,
        need=quantity("least", job.min_nodes, "nodes"), have=quantity("free", shortage.free_nodes, "nodes"),
        limit=quantity("most", job.max_nodes, "nodes"),
        facts=(quantity("batch", job.global_batch, "samples"),),
    )  # fmt: skip


def restarted(job: Job, gang: Gang, attempt: int) -> Reason:
    """An attempt lost a member or failed; the next one starts from the last checkpoint."""
    return Reason(
        code="GangRestarted", subject=job.ref, verdict=Verdict.MOVED, choice=gang.key,
        need=quantity("attempt", attempt, "attempt"), have=quantity("checkpoint", gang.checkpoint_step, "steps"),
        limit=quantity("restarts", job.restart_limit, "attempts"),
        facts=(quantity("lost", max(0, gang.step - gang.checkpoint_step), "steps"),),
        refs=(gang.ref,),
    )  # fmt: skip


def unbound(job: Job, gang: Gang, nodes: list[str], waited: float, limit: float) -> Reason:
    """Pods of an attempt were not bound to their nodes in time."""
    shown = ", ".join(nodes[:4]) + (f" and {len(nodes) - 4} more" if nodes[4:] else "")
    return Reason(
        code="GangUnbound", subject=job.ref, verdict=Verdict.REJECTED, choice=shown,
        need=quantity("attempt", gang.attempt, "attempt"), have=quantity("waited", waited, "s"),
        limit=quantity("limit", limit, "s"), refs=(gang.ref,),
    )  # fmt: skip


def refused(job: Job, refused: Refused) -> Reason:
    """The API server, or a webhook behind it, does not take the job's pods."""
    return Reason(
        code="GangRefused", subject=job.ref, verdict=Verdict.BLOCKED, choice=refused.sentence,
        need=quantity("attempt", job.attempt + 1, "attempt"),
        have=quantity("tries", refused.attempts, "attempts"), limit=quantity("wait", refused.wait_seconds, "s"),
    )  # fmt: skip


def blocked(job: Job, gang: Gang, limit: float) -> Reason:
    """Pods of an attempt do not start, and a kubelet says why."""
    return Reason(
        code="GangBlocked", subject=job.ref, verdict=Verdict.BLOCKED, choice=gang.blocked,
        need=quantity("members", len(gang.layout.slots), "nodes"),
        have=quantity("up", gang.members_up, "nodes"), limit=quantity("limit", limit, "s"), refs=(gang.ref,),
    )  # fmt: skip


def resting(job: Job, rest: Rest) -> Reason:
    """The next attempt waits: several in a row made no progress."""
    return Reason(
        code="GangHeldBack", subject=job.ref, verdict=Verdict.BLOCKED,
        need=quantity("attempt", rest.counted + 1, "attempt"), have=quantity("failures", rest.failures, "attempts"),
        limit=quantity("pause", pause_seconds(rest.failures), "s"),
    )  # fmt: skip


def stopped(job: Job, gang: Gang, grace: float) -> Reason:
    """The user suspended the job."""
    return Reason(
        code="GangStopped", subject=job.ref, verdict=Verdict.CHOSEN, choice=gang.key,
        need=quantity("wanted", 0, "nodes"), have=quantity("attempt", gang.attempt, "attempt"),
        limit=quantity("grace", grace, "s"), refs=(gang.ref,),
    )  # fmt: skip


def outdated(job: Job, gang: Gang) -> Reason:
    """What the job is started from was changed; its attempt is left to run."""
    return Reason(
        code="GangOutdated", subject=job.ref, verdict=Verdict.KEPT, choice=gang.key,
        need=quantity("next", gang.attempt + 1, "attempt"), have=quantity("attempt", gang.attempt, "attempt"),
        limit=quantity("saved", max(0, gang.checkpoint_step), "steps"), refs=(gang.ref,),
    )  # fmt: skip


def done(job: Job, gang: Gang, seconds: float) -> Reason:
    """The job has finished."""
    return Reason(
        code="GangDone", subject=job.ref, verdict=Verdict.CHOSEN, choice=gang.key,
        need=quantity("asked", job.steps, "steps"), have=quantity("done", max(gang.step, 0), "steps"),
        limit=quantity("since", seconds, "s"), refs=(gang.ref,),
    )  # fmt: skip


def limit_reached(job: Job, steps: int, failures: int) -> Reason:
    """Too many attempts failed."""
    return Reason(
        code="RestartLimitReached", subject=job.ref, verdict=Verdict.REJECTED,
        need=quantity("done", steps, "steps"), have=quantity("failures", failures, "attempts"),
        limit=quantity("restarts", job.restart_limit, "attempts"),
    )  # fmt: skip


def cadence(job: Job, interval: float) -> Reason:
    """How often the job saves."""
    return Reason(
        code="CadenceSet", subject=job.ref, verdict=Verdict.CHOSEN,
        need=quantity("asked", job.checkpoint.interval_seconds, "s"), have=quantity("interval", interval, "s"),
        limit=quantity("most", job.checkpoint.max_interval_seconds, "s"),
    )  # fmt: skip


def reserved(job: Job, fit: Fit, gpus: int) -> Reason:
    """Free devices of the gang's nodes are kept for it."""
    return Reason(
        code="NodesReserved", subject=job.ref, verdict=Verdict.CHOSEN, choice=fit.island.text,
        need=quantity("gpus", len(fit.nodes) * job.gpus_per_node, "GPU"), have=quantity("kept", gpus, "GPU"),
        limit=quantity("nodes", len(fit.nodes), "nodes"), refs=(Ref("Island", fit.island.name),),
    )  # fmt: skip


def released(reservation: Reservation) -> Reason:
    """A reservation is not needed any more."""
    return Reason(
        code="NodesReleased", subject=reservation.owner, verdict=Verdict.CHOSEN, choice=reservation.key,
        need=quantity("waiting", 0, "nodes"),
        have=quantity("kept", sum(slot.gpus for slot in reservation.slots), "GPU"),
    )  # fmt: skip
