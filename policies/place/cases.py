"""What a service has and what it should have: the difference that placing works off."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from cluster.hardware import Offer
from cluster.serving import Replica, ReplicaPhase, Service
from cluster.snapshot import Snapshot
from cluster.targets import Capacity
from policies.groups import Groups

Part = tuple[str, str]
"""(variant key, pool)."""

LIVE = (ReplicaPhase.PENDING, ReplicaPhase.STARTING, ReplicaPhase.READY, ReplicaPhase.WAKING)
"""Phases that give capacity now or soon; sleeping replicas are the warm stage's."""

LEAVING = (Offer.RECLAIMING, Offer.ISOLATED, Offer.LOST)
"""Offers of a node that its replicas must leave; `cordoned` only keeps new ones away."""

NAME_LIMIT = 63
"""Longest pod name that also serves as a host name."""


class Case(NamedTuple):
    """One service: wanted replicas per part, and its replicas by what is to become of them.

    `current` and `outdated` are live ones per part, `outdated` of another revision. `leaving` are
    live on a node that is being lost, `stuck` never bound, `late` bound and never ready, `dead` failed or lost,
    `draining` not yet empty.
    """

    service: Service
    capacity: Capacity
    wanted: dict[Part, int]
    current: dict[Part, list[Replica]]
    outdated: dict[Part, list[Replica]]
    leaving: list[Replica]
    draining: list[Replica]
    stuck: list[Replica]
    late: list[Replica]
    dead: list[Replica]

    def live(self, part: Part) -> list[Replica]:
        """Live replicas of a part, both revisions."""
        return [*self.current.get(part, ()), *self.outdated.get(part, ())]

    def ready(self, part: Part) -> int:
        """How many of a part are ready."""
        return sum(1 for r in self.live(part) if r.phase is ReplicaPhase.READY)

    def parts(self) -> list[Part]:
        """Every part that is wanted or live, in order."""
        return sorted({*self.wanted, *self.current, *self.outdated})

    def all_ready(self) -> bool:
        """Whether every wanted replica is ready."""
        return all(self.ready(part) >= units for part, units in self.wanted.items())


class Limits(NamedTuple):
    """How long a replica may take to be bound, and from then on to become ready (seconds)."""

    bind_seconds: float
    start_seconds: float


def case_of(groups: Groups, service: Service, capacity: Capacity, now: float, limits: Limits) -> Case:
    """Sort a service's replicas against its final mix."""
    case = Case(service, capacity, {}, {}, {}, [], [], [], [], [])
    for part in capacity.mix.parts:
        if part.units > 0:
            key = (part.variant, part.pool)
            case.wanted[key] = case.wanted.get(key, 0) + part.units
    for replica in groups.replicas.get(service.name, ()):
        _sort(case, replica, groups.view, now, limits)
    return case


def _sort(case: Case, replica: Replica, view: Snapshot, now: float, limits: Limits) -> None:
    phase, age = replica.phase, now - replica.phase_since_seconds
    if phase in (ReplicaPhase.FAILED, ReplicaPhase.LOST):
        case.dead.append(replica)
    elif phase is ReplicaPhase.DRAINING:
        case.draining.append(replica)
    elif phase is ReplicaPhase.PENDING and age >= limits.bind_seconds:
        case.stuck.append(replica)
    elif phase is ReplicaPhase.STARTING and age >= limits.start_seconds:
        case.late.append(replica)
    elif phase in LIVE:
        part = (replica.variant.key, replica.pool)
        if must_leave(view, replica):
            case.leaving.append(replica)
        elif replica.revision and replica.revision != case.service.revision:
            case.outdated.setdefault(part, []).append(replica)
        else:
            case.current.setdefault(part, []).append(replica)


def must_leave(view: Snapshot, replica: Replica) -> bool:
    """Whether a node under the replica is being lost or already gone."""
    launcher = view.launchers.get(replica.launcher)
    for slot in launcher.slots if launcher is not None else ():
        node = view.nodes.get(slot.node)
        if node is None or node.offer in LEAVING:
            return True
    return False


def is_empty(groups: Groups, replica: Replica, settle_seconds: float) -> bool:
    """Whether a draining replica is known to be empty, by a report made well after draining began."""
    observed = groups.instance(replica.key, "observed_seconds")
    if not math.isfinite(observed) or observed < replica.phase_since_seconds + settle_seconds:
        return False
    busy = groups.instance(replica.key, "running") + groups.instance(replica.key, "waiting")
    pending = groups.instance(replica.key, "pending")
    return busy == 0.0 and not pending > 0.0


def outstanding(groups: Groups, replica: Replica) -> float:
    """Requests a replica works on; 0 when unknown."""
    numbers = [groups.instance(replica.key, name) for name in ("running", "waiting", "pending")]
    return sum(number for number in numbers if math.isfinite(number))


def replica_name(service: str, variant: str, ordinal: int) -> str:
    """`namespace/service-variant-ordinal`, fit for a pod name."""
    namespace, slash, name = service.rpartition("/")
    slug = re.sub(r"[^a-z0-9]+", "-", variant.lower()).strip("-")
    room = max(1, NAME_LIMIT - len(name) - len(str(ordinal)) - 2)
    return f"{namespace}{slash}{name}-{slug[:room].strip('-')}-{ordinal}"
