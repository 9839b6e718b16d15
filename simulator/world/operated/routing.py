"""What gateways are told: which replicas take requests, with what weight, and the plan by size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster.serving import ReplicaPhase
from cluster.size_plan import SizePlan
from simulator.world.core import Event
from simulator.world.served import Served
from simulator.world.serving import let_in

Weights = dict[str, float]
"""Weight of every replica that takes requests."""

Table = tuple[Weights, SizePlan | None]
"""What is told of a service."""


def publish(at_seconds: float, world: Any) -> list[Event]:
    """Send each service's table where it is another than the last: replicas that are ready, weights as place set them.

    A replica without a weight takes part where none has any, and gets nothing where others have.
    """
    ready: dict[str, list[str]] = {}
    for key, replica in world.observer.live("replicas").items():
        if replica.phase is ReplicaPhase.READY:
            ready.setdefault(replica.service, []).append(key)
    events: list[Event] = []
    for service in world.services:
        standing = world.observer.live("targets").get(f"Routes/{service.name}")
        keys = ready.get(service.name, ())
        weights = (
            standing.weights if standing is not None and any(k in standing.weights for k in keys) else {}
        )
        told = {key: weights.get(key, 0.0 if weights else 1.0) for key in keys}
        table: Table = (told, standing.plan if standing is not None else None)
        if world.routes.get(service.name) != table:
            world.routes[service.name] = table
            events.append((at_seconds + world.spec.delays.watch_seconds, routed, (service, table)))
    return events


def routed(at_seconds: float, subject: tuple[Served, Table], world: Any) -> Iterable[Event]:
    """A table reaches the gateways."""
    service, (weights, plan) = subject
    service.plan = plan
    rows = service.front.rows
    opened = False
    for instance in service.front.by_name.values():
        unit = world.units.get(instance.name)
        takes = instance.name in weights and instance.alive and unit is not None and not unit.stopping
        opened |= takes and not rows.table.ready[instance.row]
        rows.open(instance.row, ready=takes)
        rows.weigh(instance.row, weights.get(instance.name, 0.0))
    return ((at_seconds, let_in, service),) if opened and service.held else ()
