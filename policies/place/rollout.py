"""How a service's replicas come to another revision, and when they go back: the pure decision.

A rollout starts as many replicas of the new revision as may be beside the old ones (`room_of`), sends an old one away
for each that became ready (`trim`), and judges whether the new revision runs at all (`judge`). Everything is read off
the view: what exists of which revision, and what `Service.rollout` says is kept of it. A `Trial` only remembers what
was learned of a revision whose replicas are gone again; without it more is tried, and nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from cluster.serving import Replica, ReplicaPhase, Service, Variant
from cluster.snapshot import Snapshot
from policies.place.cases import Case, Part


class RolloutRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How boldly revisions are rolled out.

    `surge_share`: replicas beside what is wanted, as a share of it (at least one). `start_seconds`: how long a replica
    of a new revision may take to become ready where no start-time belief says so (its p99 otherwise); nothing but a
    deadline for revisions that can go back. `fault_seconds`: how long the kubelet may say that it cannot run the
    containers. `restarts`: nor may they be restarted so often. `failures`: replicas in a row that may fail.
    """

    surge_share: float = 0.10
    start_seconds: float = 600.0
    fault_seconds: float = 60.0
    restarts: int = 3
    failures: int = 3


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned of one revision's number: whether a replica of it was ever ready, how many failed in a row
    since, the newest ordinal that was counted, and the GPUs of the revision before when it began.
    """

    revision: str
    number: int = 0
    proven: bool = False
    failures: int = 0
    counted: int = 0
    before_gpus: int = 0


class Failure(msgspec.Struct, frozen=True):
    """Why a revision is given up: the reason's code, what showed it in the words of kubelet or server, seconds waited
    and the limit of that, and how often a container was started.
    """

    code: str
    shown_by: str
    waited_seconds: float
    limit_seconds: float
    starts: int = 0


@dataclass(slots=True)
class Room:
    """GPUs that may be started now, and how many of them only fill what is missing. Counted down by the caller."""

    left: int
    filling: int


def is_of(service: Service, replica: Replica) -> bool:
    """Whether a replica is of the service's revision; one that does not say is."""
    return not replica.revision or replica.revision == service.revision


def is_on_trial(service: Service) -> bool:
    """Whether the service's revision has yet to prove itself, and there is one to go back to."""
    return not service.rollout.complete and bool(service.rollout.back_to)


def start_limit(view: Snapshot, service: Service, variant: Variant, rules: RolloutRules) -> float:
    """Seconds from being bound in which a replica of a new revision must be ready: the p99 of the slowest tier that
    is believed in, else `rules.start_seconds`.
    """
    believed = [
        belief.p99_seconds
        for belief in view.beliefs.start.values()
        if (belief.model, belief.variant) == (service.model.name, variant.key)
    ]
    return max(believed, default=rules.start_seconds)


# ------------------------------------------------------------------------------------------------------ judging


def learned(trial: Trial | None, case: Case, replicas: Iterable[Replica]) -> Trial:
    """The trial with what is seen now; a new one for another revision, or a new try of the same."""
    service = case.service
    number = service.rollout.number
    if trial is None or (trial.revision, trial.number) != (service.revision, number):
        trial = Trial(revision=service.revision, number=number)
    own = [replica for replica in replicas if is_of(service, replica)]
    proofs = [r.ordinal for r in own if r.phase is ReplicaPhase.READY]
    failed = [r.ordinal for r in _failed(case) if r.ordinal > trial.counted]
    failures = 0 if any(ordinal > trial.counted for ordinal in proofs) else trial.failures
    before = sum(gpus_of(old) for old in case.outdated.values())
    return msgspec.structs.replace(
        trial,
        proven=trial.proven or bool(proofs),
        failures=failures + len(failed),
        counted=max([trial.counted, *failed]),
        before_gpus=max(trial.before_gpus, before),
    )


def _failed(case: Case) -> list[Replica]:
    """Replicas of the new revision that never became ready; a node that was lost is not its fault."""
    dead = [replica for replica in case.dead if replica.phase is ReplicaPhase.FAILED]
    return [replica for replica in (*case.stuck, *case.late, *dead) if is_of(case.service, replica)]


def judge(view: Snapshot, case: Case, trial: Trial, rules: RolloutRules, now: float) -> Failure | None:
    """Why the revision on trial is to be given up, or None while it may still come.

    One that nobody has seen ready is judged by its first replica that is too slow or cannot run; one that was seen
    ready by several in a row, since then the fault is rather a node's.
    """
    service = case.service
    if not is_on_trial(service):
        return None
    starting = [
        replica
        for part in sorted(case.current)
        for replica in case.current[part]
        if replica.phase in (ReplicaPhase.PENDING, ReplicaPhase.STARTING)
    ]
    found = [
        failure
        for replica in (*starting, *_failed(case))
        if (failure := _evidence(view, service, replica, rules, now)) is not None
    ]
    refused = service.refused
    if refused is not None and now - refused.since_seconds >= rules.start_seconds:
        waited = now - refused.since_seconds
        found.append(Failure("RolloutRefused", refused.sentence, waited, rules.start_seconds))
    worst = max(found, key=lambda f: (f.waited_seconds - f.limit_seconds, f.shown_by), default=None)
    if worst is not None and not trial.proven:
        return worst
    failed = _failed(case)
    if failed and trial.failures >= rules.failures:
        last = max(failed, key=lambda replica: replica.ordinal)
        waited = max(0.0, now - last.phase_since_seconds)
        return Failure("RolloutFailing", _said(last), waited, start_limit(view, service, last.variant, rules))
    return None


def _evidence(
    view: Snapshot, service: Service, replica: Replica, rules: RolloutRules, now: float
) -> Failure | None:
    waited = now - replica.phase_since_seconds
    limit = start_limit(view, service, replica.variant, rules)
    if replica.restarts >= rules.restarts or (replica.fault and waited >= min(rules.fault_seconds, limit)):
        return Failure("RolloutFaulty", _said(replica), waited, rules.fault_seconds, replica.restarts + 1)
    if replica.phase is ReplicaPhase.STARTING and waited >= limit:
        return Failure("RolloutTimedOut", _said(replica), waited, limit)
    return None


def _said(replica: Replica) -> str:
    said = replica.stage or replica.fault
    return f"{replica.key}: {said}" if said else replica.key


def is_complete(case: Case) -> bool:
    """Whether all that is wanted is there, ready and of the service's revision, and nothing of another one serves."""
    return (
        bool(case.service.revision)
        and not case.service.rollout.complete
        and bool(case.wanted)
        and not any(case.outdated.values())
        and all(len(_ready(case.current.get(part, ()))) >= units for part, units in case.wanted.items())
    )


# ------------------------------------------------------------------------------------------------------- pacing


def gpus_of(replicas: Iterable[Replica]) -> int:
    """GPUs they hold together."""
    return sum(replica.variant.gpus for replica in replicas)


def _ready(replicas: Iterable[Replica]) -> list[Replica]:
    return [replica for replica in replicas if replica.phase is ReplicaPhase.READY]


def _all(parts: dict[Part, list[Replica]]) -> list[Replica]:
    return [replica for part in sorted(parts) for replica in parts[part]]


def wanted_gpus(case: Case) -> int:
    """GPUs of the final mix."""
    gpus = {variant.key: variant.gpus for variant in case.service.variants}
    return sum(units * gpus.get(part[0], 1) for part, units in case.wanted.items())


def surge_gpus(case: Case, rules: RolloutRules) -> int:
    """GPUs that a rollout may hold beside what is wanted: at least one replica's, else a share of the wanted ones'."""
    gpus = {variant.key: variant.gpus for variant in case.service.variants}
    largest = max((gpus.get(part[0], 1) for part in case.wanted), default=1)
    return max(1, math.floor(rules.surge_share * sum(case.wanted.values()) + 1e-9)) * largest


def _size(case: Case, trial: Trial) -> int:
    """GPUs that the service may hold without any surge: what is wanted, or what served before where a change of mix
    wants fewer.
    """
    same = all(part in case.wanted for part, found in case.outdated.items() if found)
    wanted = wanted_gpus(case)
    return wanted if same else max(wanted, trial.before_gpus)


def room_of(case: Case, trial: Trial | None, held: Iterable[Replica], rules: RolloutRules) -> Room | None:
    """How many GPUs of the new revision may be started now; None where nothing of another one is left.

    `held` are all of the service's replicas that still hold devices, those on their way out included: the service
    never starts one beyond what is wanted (or what served, where a change of mix wants fewer) and the surge.
    """
    old = _all(case.outdated)
    if not old or trial is None:
        return None
    left = _size(case, trial) + surge_gpus(case, rules) - gpus_of(held)
    return Room(max(0, left), max(0, wanted_gpus(case) - gpus_of(_ready(old)) - gpus_of(_all(case.current))))


def may_leave(case: Case, trial: Trial) -> int:
    """GPUs of old ready replicas that have their successors: the mix's share that is ready of the new revision."""
    old = gpus_of(_ready(_all(case.outdated)))
    wanted = wanted_gpus(case)
    if not wanted:
        return old
    ready = min(wanted, sum(gpus_of(_ready(case.current.get(part, ()))) for part in case.wanted))
    keep = math.ceil(_size(case, trial) * (wanted - ready) / wanted - 1e-9)
    return max(0, old - keep)


__all__ = [
    "Failure", "RolloutRules", "Room", "Trial", "gpus_of", "is_complete", "is_of", "is_on_trial", "judge", "learned",
    "may_leave", "room_of", "start_limit", "surge_gpus", "wanted_gpus",
]  # fmt: skip
