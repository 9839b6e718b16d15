"""What placing may not do by its own choice: move what is kept where it is, or more than a disruption budget allows."""

from __future__ import annotations

import math

from cluster.base import Ref
from cluster.reasons import Reason, Verdict
from cluster.restraint import Moves, PodBudget
from cluster.serving import Replica, ReplicaPhase
from cluster.targets import Capacity, Mix, MixPart
from policies.draft import quantity
from policies.groups import held_services
from policies.place.cases import Case, Limits, Part, case_of
from policies.place.run import Run

AS_IT_RUNS = "held"
"""Owner of the capacity of a service that is left as it is: what runs is what is wanted."""


def held_cases(run: Run) -> list[Case]:
    """Services that are left as they are, with what runs of them as their mix: traffic follows what is ready."""
    limits = Limits(run.config.bind_seconds, run.config.start_seconds)
    found = []
    for service in held_services(run.view):
        counts: dict[Part, int] = {}
        for replica in run.groups.replicas.get(service.name, ()):
            if replica.phase is ReplicaPhase.READY:
                part = (replica.variant.key, replica.pool)
                counts[part] = counts.get(part, 0) + 1
        parts = tuple(MixPart(variant=v, pool=p, units=n) for (v, p), n in sorted(counts.items()))
        standing = run.view.capacity(service.name)
        capacity = Capacity(
            owner=AS_IT_RUNS,
            decided_seconds=run.now,
            service=service.name,
            mix=Mix(parts=parts),
            wanted_per_second=0.0,
            shape=standing.shape if standing is not None else None,
            final=True,
        )
        found.append(case_of(run.groups, service, capacity, run.now, limits))
    return found


def may_move(run: Run, case: Case, replica: Replica) -> bool:
    """Whether a running replica may be ended now because something else seems better to us; why not is told.

    Whoever ends it then does so by a `Drain` with `voluntary` set, applied to `run.overlay`, which charges it.
    """
    return _told(run, _kept(case, replica) or _guarded(run, case, replica) or _spent(run, case, replica))


def may_end(run: Run, case: Case, replica: Replica) -> bool:
    """Whether a running replica may be ended now though nothing forces us; why not is told. Budgets of moves do not
    count: what its load no longer needs, or a higher priority does, is no move.
    """
    return _told(run, _kept(case, replica) or _guarded(run, case, replica))


def is_free_to_end(run: Run, case: Case, replica: Replica) -> bool:
    """The same, without a word: what never became ready is free, and so is what nobody keeps."""
    if replica.phase is not ReplicaPhase.READY:
        return True
    return _kept(case, replica) is None and _guarded(run, case, replica) is None


def _told(run: Run, why: Reason | None) -> bool:
    if why is not None:
        run.draft.because(why)
    return why is None


def _kept(case: Case, replica: Replica) -> Reason | None:
    """Its user keeps it where it is, by an annotation of its pod."""
    return kept(case, replica) if replica.kept_by else None


def _guarded(run: Run, case: Case, replica: Replica) -> Reason | None:
    """The first PodDisruptionBudget over it that allows nothing more. The Eviction API serves one budget a pod: under
    several nothing can be evicted.
    """
    if len(replica.budgets) > 1:
        return guarded(case, replica, replica.budgets[0], run, " and ".join(replica.budgets[1:]))
    for key in replica.budgets:
        budget = run.view.budgets.get(key)
        if budget is not None and budget.allowed - run.ending(key) < 1:
            return guarded(case, replica, key, run)
    return None


def _spent(run: Run, case: Case, replica: Replica) -> Reason | None:
    """The first budget that has nothing left: the service's own, then the cluster's."""
    service = run.overlay.read("services").get(case.service.name)
    own = service.moves if service is not None else None
    for whose, moves in (("by its service's budget", own), ("by the cluster's budget", run.overlay.moves)):
        if moves is not None and not moves.left:
            return moves_spent(case, replica, whose, moves, run.now)
    return None


def moves_spent(case: Case, replica: Replica, whose: str, moves: Moves, now: float) -> Reason:
    """A budget is used up: how much there was, and when more comes."""
    return Reason(
        code="MovesSpent", subject=case.service.ref, verdict=Verdict.KEPT, choice=f"{replica.key} ({whose})",
        need=quantity("next", minutes_until(moves.next_seconds, now), "min"),
        have=quantity("made", moves.made, "moves"), limit=quantity("allowed", moves.allowed, "moves"),
        refs=(replica.ref,),
    )  # fmt: skip


def kept(case: Case, replica: Replica) -> Reason:
    """An annotation keeps a replica's pod."""
    return Reason(
        code="PodKept", subject=case.service.ref, verdict=Verdict.KEPT, choice=f"{replica.key} ({replica.kept_by})",
        need=quantity("wanted", sum(case.wanted.values()), "replicas"),
        have=quantity("live", sum(len(case.live(part)) for part in case.parts()), "replicas"),
        refs=(replica.ref,),
    )  # fmt: skip


def guarded(case: Case, replica: Replica, key: str, run: Run, others: str = "") -> Reason:
    """A PodDisruptionBudget allows no eviction now, or there are `others` beside it."""
    budget = run.view.budgets.get(key) or PodBudget(ref=Ref("PodDisruptionBudget", key), allowed=0)
    who = f"PodDisruptionBudget {key}" + (f" beside {others}: eviction serves one" if others else "")
    return Reason(
        code="PodGuarded", subject=case.service.ref, verdict=Verdict.KEPT, choice=f"{replica.key} ({who})",
        need=quantity("desired", budget.desired, "pods"), have=quantity("healthy", budget.healthy, "pods"),
        limit=quantity("allowed", budget.allowed, "pods"),
        facts=(quantity("ending", run.ending(key), "pods"),),
        refs=(replica.ref, Ref("PodDisruptionBudget", key)),
    )  # fmt: skip


def minutes_until(at_seconds: float | None, now: float) -> int:
    """Whole minutes until a moment, above ten in steps of five: a number that counts down is no news each minute."""
    left = 60 if at_seconds is None else max(1, math.ceil((at_seconds - now) / 60.0))
    return left if left <= 10 else 5 * math.ceil(left / 5)
