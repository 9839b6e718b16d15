"""Reasons of placing, with their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.admission import Fence
from cluster.base import Ref
from cluster.reasons import Alternative, Reason, Remedy, Verdict
from cluster.refused import Refused
from cluster.serving import Replica, ReplicaPhase, Service, Variant
from placement.packing.best_fit import Choice, Rooms
from policies.confining import Confined, confined
from policies.draft import quantity
from policies.place.cases import Case, Part
from policies.place.rollout import Failure
from policies.resting import Rest, pause_seconds

if TYPE_CHECKING:
    from policies.place.run import Missing


def placed(case: Case, variant: Variant, choice: Choice) -> Reason:
    """A replica found a node; the runner-up is told with what it would have cost beyond the chosen one.

    Of one whose pods are refused it is a try, told once whatever node it falls on.
    """
    tried = case.service.refused is not None
    against: tuple[Alternative, ...] = ()
    if choice.second:
        more = quantity("cost", (choice.second_milli - choice.cost_milli) / 1_000.0, "GPU")
        against = (Alternative(choice.second, cost=more),)
    return Reason(
        code="ReplicaTried" if tried else "ReplicaPlaced", subject=case.service.ref, verdict=Verdict.CHOSEN,
        choice=variant.key if tried else choice.slot.node,
        need=quantity("gpus", variant.gpu_share, "GPU"), have=quantity("free", choice.free, "GPU"),
        limit=quantity("fit_nodes", choice.fit_nodes, "nodes"),
        facts=(quantity("left", choice.left, "GPU"), quantity("cost", choice.cost_milli / 1_000.0, "GPU")),
        against=against, refs=(Ref("Node", choice.slot.node),),
    )  # fmt: skip


def unplaceable(case: Case, part: Part, variant: Variant, rooms: Rooms, fence: Fence | None = None) -> Reason:
    """No open node of the pool has room; where a fence keeps the pods off some, it says so."""
    best = rooms.most_left(part[1], fence) if variant.shares else rooms.most_free(part[1], fence)
    if fence is not None and rooms.open_nodes(part[1], fence) < rooms.open_nodes(part[1]):
        return _confined(case, part, variant, rooms, fence)
    lacking = quantity("need", variant.gpu_share - best, "GPU")
    return Reason(
        code="ReplicaUnplaceable", subject=case.service.ref, verdict=Verdict.BLOCKED, choice=f"{part[0]} in {part[1]}",
        need=quantity("gpus", variant.gpu_share, "GPU"), have=quantity("free", best, "GPU"),
        limit=quantity("open_nodes", rooms.open_nodes(part[1]), "nodes"),
        remedy=Remedy("AddCapacity", part[1], (lacking,)), refs=(Ref("Pool", part[1]),),
    )  # fmt: skip


def _confined(case: Case, part: Part, variant: Variant, rooms: Rooms, fence: Fence) -> Reason:
    """Volumes, taints, CPU or memory leave only some of the pool's open nodes."""
    pool = part[1]
    seen = Confined(
        nodes=rooms.open_nodes(pool, fence), open_nodes=rooms.open_nodes(pool),
        free=rooms.free_devices(pool, fence), elsewhere=rooms.free_devices(pool),
    )  # fmt: skip
    return confined(case.service.ref, fence, seen, quantity("gpus", variant.gpu_share, "GPU"))


def resumed(case: Case, part: Part, replica: Replica) -> Reason:
    """A draining replica is wanted again."""
    return Reason(
        code="ReplicaResumed", subject=case.service.ref, verdict=Verdict.KEPT, choice=replica.key,
        need=quantity("wanted", case.wanted.get(part, 0), "replicas"),
        have=quantity("live", len(case.live(part)), "replicas"),
        limit=quantity("drain", case.service.drain_seconds, "s"), refs=(replica.ref,),
    )  # fmt: skip


def serves_on(case: Case, replica: Replica) -> Reason:
    """A drained replica may not be evicted: it takes requests again."""
    return Reason(
        code="EvictionRefused", subject=case.service.ref, verdict=Verdict.KEPT,
        choice=f"{replica.key} (PodDisruptionBudget {' and '.join(replica.budgets)})",
        need=quantity("left_to_allow", 1, "pods"), have=quantity("allowed", 0, "pods"),
        limit=quantity("wanted", sum(case.wanted.values()), "replicas"), refs=(replica.ref,),
    )  # fmt: skip


def stuck(case: Case, replica: Replica, waited: float, limit: float) -> Reason:
    """A replica was not bound to its node in time; `stage` is what the scheduler says about it."""
    return Reason(
        code="ReplicaStuck", subject=case.service.ref, verdict=Verdict.REJECTED, choice=_said_of(replica),
        need=quantity("expected", limit, "s"), have=quantity("waited", waited, "s"),
        limit=quantity("limit", limit, "s"), refs=(replica.ref,),
    )  # fmt: skip


def late(case: Case, replica: Replica, waited: float, limit: float) -> Reason:
    """A replica was bound and did not become ready in time; `stage` is what the kubelet says about it."""
    return Reason(
        code="ReplicaNotStarted", subject=case.service.ref, verdict=Verdict.REJECTED, choice=_said_of(replica),
        need=quantity("expected", limit, "s"), have=quantity("waited", waited, "s"),
        limit=quantity("limit", limit, "s"), refs=(replica.ref,),
    )  # fmt: skip


def refused(case: Case, refused: Refused) -> Reason:
    """The API server, or a webhook behind it, does not take the service's pods."""
    return Reason(
        code="ReplicaRefused", subject=case.service.ref, verdict=Verdict.BLOCKED, choice=refused.sentence,
        need=quantity("wanted", sum(case.wanted.values()), "replicas"),
        have=quantity("tries", refused.attempts, "attempts"), limit=quantity("wait", refused.wait_seconds, "s"),
    )  # fmt: skip


def blocked(case: Case, replica: Replica, limit: float) -> Reason:
    """A bound replica does not start, and its kubelet says why. Without a clock: what is told rests while nothing changes."""
    ready = sum(case.ready(part) for part in case.parts())
    unmounted = "its volumes or its network are not ready, kubectl describe pod has the kubelet's events"
    return Reason(
        code="ReplicaBlocked", subject=case.service.ref, verdict=Verdict.BLOCKED,
        choice=f"{replica.key} ({replica.blocked or unmounted})",
        need=quantity("wanted", sum(case.wanted.values()), "replicas"),
        have=quantity("ready", ready, "replicas"), limit=quantity("limit", limit, "s"), refs=(replica.ref,),
    )  # fmt: skip


def resting(case: Case, rest: Rest) -> Reason:
    """The next try waits: several in a row did not start."""
    return Reason(
        code="ReplicaHeldBack", subject=case.service.ref, verdict=Verdict.BLOCKED,
        need=quantity("wanted", sum(case.wanted.values()), "replicas"),
        have=quantity("failures", rest.failures, "replicas"),
        limit=quantity("pause", pause_seconds(rest.failures), "s"),
    )  # fmt: skip


def _said_of(replica: Replica) -> str:
    return f"{replica.key} ({replica.stage})" if replica.stage else replica.key


def lost(case: Case, replica: Replica, silent: float, limit: float) -> Reason:
    """A replica went with its node."""
    return Reason(
        code="ReplicaLost", subject=case.service.ref, verdict=Verdict.REJECTED, choice=replica.key,
        need=quantity("replaced", 1, "replicas"), have=quantity("silent", silent, "s"),
        limit=quantity("limit", limit, "s"), refs=(replica.ref,),
    )  # fmt: skip


def ended(case: Case, replica: Replica, waited: float, requests: float) -> Reason:
    """A replica is empty, past its deadline, or failed."""
    return Reason(
        code="ReplicaEnded", subject=case.service.ref, verdict=Verdict.CHOSEN, choice=replica.key,
        need=quantity("wanted", sum(case.wanted.values()), "replicas"),
        have=quantity("outstanding", requests, "req"), limit=quantity("waited", waited, "s"),
        refs=(replica.ref,),
    )  # fmt: skip


def surplus(case: Case, part: Part) -> Reason:
    """More replicas of a part than wanted."""
    return Reason(
        code="ReplicaSurplus", subject=case.service.ref, verdict=Verdict.CHOSEN, choice=f"{part[0]} in {part[1]}",
        need=quantity("wanted", case.wanted.get(part, 0), "replicas"),
        have=quantity("live", len(case.live(part)), "replicas"),
        limit=quantity("drain", case.service.drain_seconds, "s"),
    )  # fmt: skip


def outdated(case: Case, replica: Replica) -> Reason:
    """A replica of an older spec has a ready successor."""
    return Reason(
        code="ReplicaOutdated", subject=case.service.ref, verdict=Verdict.CHOSEN, choice=replica.key,
        need=quantity("generation", case.service.ref.version, "versions"),
        have=quantity("made_from", replica.ref.version, "versions"),
        limit=quantity("drain", case.service.drain_seconds, "s"), refs=(replica.ref,),
    )  # fmt: skip


def revoked(case: Case, replica: Replica) -> Reason:
    """A replica is of a revision that was given up."""
    return Reason(
        code="ReplicaRevoked", subject=case.service.ref, verdict=Verdict.REJECTED, choice=_said_of(replica),
        need=quantity("wanted", sum(case.wanted.values()), "replicas"),
        have=quantity("serving", len(_serving(case.outdated)), "replicas"),
        limit=quantity("drain", case.service.drain_seconds, "s"), refs=(replica.ref,),
    )  # fmt: skip


def progress(case: Case, surge_gpus: int) -> Reason:
    """Where a rollout stands."""
    return Reason(
        code="RolloutProgressing", subject=case.service.ref, verdict=Verdict.CHOSEN, choice=case.service.revision,
        need=quantity("wanted", sum(case.wanted.values()), "replicas"),
        have=quantity("updated", len(_serving(case.current)), "replicas"),
        limit=quantity("surge", surge_gpus, "GPU"),
        facts=(quantity("old", len(_serving(case.outdated)), "replicas"),),
    )  # fmt: skip


def completed(case: Case, now: float) -> Reason:
    """All that is wanted is ready and of one revision."""
    return Reason(
        code="RolloutComplete", subject=case.service.ref, verdict=Verdict.CHOSEN, choice=case.service.revision,
        need=quantity("wanted", sum(case.wanted.values()), "replicas"),
        have=quantity("ready", len(_serving(case.current)), "replicas"),
        limit=quantity("took", max(0.0, now - case.service.rollout.began_seconds), "s"),
    )  # fmt: skip


def given_up(case: Case, failure: Failure) -> Reason:
    """A revision does not become ready."""
    facts = [quantity("ready", len(_serving(case.current)), "replicas")]
    if failure.code == "RolloutFaulty":
        facts.append(quantity("starts", failure.starts, "attempts"))
    return Reason(
        code=failure.code, subject=case.service.ref, verdict=Verdict.REJECTED,
        choice=f"{case.service.revision} ({failure.shown_by})",
        need=quantity("wanted", sum(case.wanted.values()), "replicas"),
        have=quantity("waited", failure.waited_seconds, "s"),
        limit=quantity("limit", failure.limit_seconds, "s"),
        facts=tuple(facts),
    )  # fmt: skip


def waits_for_room(case: Case, variant: Variant, serving: int, most_free: float) -> Reason:
    """A rollout that could only go on by ending the last replica that serves."""
    return Reason(
        code="RolloutWaiting", subject=case.service.ref, verdict=Verdict.BLOCKED, choice=case.service.revision,
        need=quantity("gpus", variant.gpu_share, "GPU"), have=quantity("free", most_free, "GPU"),
        limit=quantity("serving", serving, "replicas"),
        remedy=Remedy("AddCapacity", variant.accelerator, (quantity("need", variant.gpu_share - most_free, "GPU"),)),
    )  # fmt: skip


def makes_room(case: Case, replica: Replica, load: float, carried: float) -> Reason:
    """An old replica goes first, as its successor has no room beside it."""
    return Reason(
        code="RolloutMakesRoom" if carried >= load else "RolloutBelowLoad",
        subject=case.service.ref, verdict=Verdict.MOVED, choice=replica.key,
        need=quantity("load", load, "req/s"), have=quantity("carried", carried, "req/s"),
        limit=quantity("drain", case.service.drain_seconds, "s"), refs=(replica.ref,),
    )  # fmt: skip


def _serving(parts: dict[Part, list[Replica]]) -> list[Replica]:
    return [r for found in parts.values() for r in found if r.phase is ReplicaPhase.READY]


def leaving(case: Case, replica: Replica, node: str) -> Reason:
    """A replica's node is being lost."""
    return Reason(
        code="ReplicaLeaving", subject=case.service.ref, verdict=Verdict.MOVED, choice=replica.key,
        need=quantity("wanted", sum(case.wanted.values()), "replicas"),
        have=quantity("leaving", len(case.leaving), "replicas"),
        limit=quantity("drain", case.service.drain_seconds, "s"), refs=(replica.ref, Ref("Node", node)),
    )  # fmt: skip


def preempted(victim: Service, winner: Service, gpus: float) -> Reason:
    """A replica gives way to a service of higher priority."""
    return Reason(
        code="PreemptedFor", subject=victim.ref, verdict=Verdict.SHED, choice=winner.name,
        need=quantity("priority", winner.priority, "priority"),
        have=quantity("own_priority", victim.priority, "priority"),
        limit=quantity("freed", gpus, "GPU"), refs=(winner.ref,),
    )  # fmt: skip


def moves(case: Case, replica: Replica, choice: Choice, wish: Missing, free: float, most: int) -> Reason:
    """A replica's successor starts elsewhere, so that another service finds room where it is."""
    return Reason(
        code="ReplicaMoves", subject=case.service.ref, verdict=Verdict.MOVED,
        choice=f"{replica.key} to {choice.slot.node} for {wish.case.service.name}",
        need=quantity("gpus", wish.variant.gpu_share, "GPU"), have=quantity("free", free, "GPU"),
        limit=quantity("moves", most, "moves"),
        facts=(quantity("moved", replica.variant.gpu_share, "GPU"),),
        refs=(replica.ref, wish.case.service.ref, Ref("Node", choice.slot.node)),
    )  # fmt: skip


def moved(case: Case, replica: Replica, successor: str, waited: float) -> Reason:
    """A replica that moved ends where it was."""
    return Reason(
        code="ReplicaMoved", subject=case.service.ref, verdict=Verdict.MOVED, choice=f"{replica.key}, now {successor},",
        need=quantity("freed", replica.variant.gpu_share, "GPU"), have=quantity("took", waited, "s"),
        limit=quantity("drain", case.service.drain_seconds, "s"), refs=(replica.ref,),
    )  # fmt: skip


def routes(case: Case, weights: dict[str, float]) -> Reason:
    """Route weights moved."""
    return Reason(
        code="RoutesSet", subject=case.service.ref, verdict=Verdict.CHOSEN,
        need=quantity("wanted", sum(case.wanted.values()), "replicas"),
        have=quantity("ready", len(weights), "replicas"),
        limit=quantity("largest", max(weights.values(), default=0.0), "ratio"),
    )  # fmt: skip
