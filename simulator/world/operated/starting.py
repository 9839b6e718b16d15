"""A world that begins as a captured cluster was: what ran there runs here, and the operator knows what it knew."""

from __future__ import annotations

import math
from typing import Any

from cluster import events as ev
from cluster.actions import CreateReplica
from cluster.hardware import Offer
from cluster.serving import Replica, ReplicaPhase
from cluster.snapshot import Snapshot
from cluster.tables import InstanceTable
from cluster.targets import Routes
from simulator.world.operated import units

BELIEFS = ("capacity", "demand", "start", "hazard", "link", "power", "failure", "expert")
SERVES = (
    ReplicaPhase.READY,
    ReplicaPhase.DRAINING,
    ReplicaPhase.SLEEPING,
    ReplicaPhase.ASLEEP,
    ReplicaPhase.WAKING,
)
"""Phases of replicas whose engines are up. What slept serves here: tiers are not modelled yet."""
STARTS = (ReplicaPhase.PENDING, ReplicaPhase.STARTING)
"""Phases of replicas that begin their start anew."""


def resume(seen: Snapshot, world: Any) -> None:
    """Take over replicas, other people's claims, reservations, targets, beliefs and load. Leases end, as in a failover.

    Requests that were under way are not in a snapshot: engines begin empty.
    """
    ours = _replicas(seen, world)
    now = world.origin
    for key, claim in sorted(seen.claims.items()):
        if key not in ours and not _trains(claim.owner.kind):
            world.ears.see(claim, now)
    for reservation in seen.reservations.values():
        world.ears.see(reservation, now)
    for target in seen.targets.values():
        world.observer.fold(
            ev.Aimed(source="capture", observed_seconds=now, delivered_seconds=now, target=target)
        )
    for kind in BELIEFS:
        world.observer.believe(kind, dict(getattr(seen.beliefs, kind)))
    if seen.loads:
        world.observer.fold(
            ev.LoadReport(
                source="gateways", observed_seconds=now, delivered_seconds=now, gateway="capture",
                histograms=tuple(load for _, load in sorted(seen.loads.items())),
            )
        )  # fmt: skip
    world.observer.allow(seen.moves)
    _rows(seen, ours, world)


def _trains(kind: str) -> bool:
    """Whether a claim's owner is a job of ours: its gang takes the devices again when it is started."""
    return kind in ("TrainingJob", "Gang")


def _replicas(seen: Snapshot, world: Any) -> set[str]:
    """Bring up what ran and start what was starting; their keys."""
    found: set[str] = set()
    for key, replica in sorted(seen.replicas.items()):
        service = seen.services.get(replica.service)
        launcher = seen.launchers.get(replica.launcher)
        if service is None or launcher is None or not launcher.slots or replica.service not in world.served:
            continue
        node = seen.nodes.get(launcher.slots[0].node)
        lives = node is not None and node.offer is not Offer.LOST
        if lives and replica.phase in SERVES + STARTS:
            _one(replica, service, launcher.slots, world)
            found.add(key)
    return found


def _one(replica: Replica, service: Any, slots: Any, world: Any) -> None:
    action = CreateReplica(
        service=replica.service, name=replica.key, variant=replica.variant, pool=replica.pool,
        ordinal=replica.ordinal, slots=slots, reason=0,
    )  # fmt: skip
    unit = units.made(0.0, action, service, replica.ref.uid or replica.key, world)
    unit.revision, unit.version = replica.revision, replica.ref.version
    if replica.phase in STARTS:
        for event in units.begin(unit, 0.0, world):
            world.kernel.push(event)
    else:
        units.up(unit, 0.0, world)
        if replica.phase is ReplicaPhase.DRAINING:
            unit.phase = ReplicaPhase.DRAINING
    world.show(unit, 0.0)


def _rows(seen: Snapshot, ours: set[str], world: Any) -> None:
    """Route weights in force, and the last word about each instance."""
    table = seen.instance_table
    weights: dict[str, dict[str, float]] = {}
    for row, key in enumerate(table.keys):
        if key not in ours:
            continue
        values = {
            name: float(getattr(table, name)[row])
            for name in InstanceTable.columns()
            if name != "observed_seconds"
        }
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        world.observer.instance_rows.set(key, float(table.observed_seconds[row]), known)
        weight = known.get("route_weight", 0.0)
        if weight > 0.0:
            weights.setdefault(seen.replicas[key].service, {})[key] = weight
    now = seen.stamp.taken_seconds
    told = [
        Routes(owner="place", decided_seconds=now, service=name, weights=each)
        for name, each in weights.items()
        if seen.routes(name) is None
    ]
    world.aim(told, "capture", now)
