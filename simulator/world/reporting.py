"""Information delay: what engines say reaches the gateway's rows and the operator's model later, and not at once.

Engines report node by node. The rows of dispatch have a report after one delay, the operator's `Observer` after another, drawn
for each: both fold what was true when it was said.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from cluster import events as ev
from simulator.physics.sequence import EngineLoad
from simulator.world.core import Event
from simulator.world.instances import Instance


class Said(NamedTuple):
    """What the instances of one node said at one moment; `running` only of those that are crowded."""

    node: str
    made_seconds: float
    loads: list[tuple[Instance, EngineLoad, list[tuple[int, int]]]]


def report(at_seconds: float, subject: list[Instance], world: Any) -> Iterable[Event]:
    """The instances of a node say how they are."""
    loads = []
    delays, crowded = world.spec.delays, world.spec.moving.crowded_share
    for instance in subject:
        if instance.alive:
            world.live(instance, at_seconds)
            load = instance.load()
            left = load.kv_free_tokens - load.queued_tokens
            tells = instance.service.migration is not None and left < crowded * load.kv_capacity_tokens
            loads.append((instance, load, instance.engine.decoding() if tells else []))
    said = Said(subject[0].node, at_seconds, loads)
    again = (at_seconds + delays.report_seconds, report, subject)
    told = (at_seconds + delays.gateway_seconds, tell_gateway, said)
    if not world.listens:
        return (told, again)
    late = delays.agent_low_seconds + world.draw() * (delays.agent_high_seconds - delays.agent_low_seconds)
    return (told, (at_seconds + late, tell_operator, said), again)


def tell_gateway(_: float, subject: Said, _world: Any) -> Iterable[Event]:
    """A report reaches the rows that dispatch reads."""
    for instance, load, _running in subject.loads:
        if instance.alive and instance.started <= subject.made_seconds:
            instance.pool.rows.report(instance.row, load, subject.made_seconds)
    return ()


def tell_operator(at_seconds: float, subject: Said, world: Any) -> Iterable[Event]:
    """A report reaches the operator's model of the cluster."""
    instances: dict[str, dict[str, float]] = {}
    for instance, load, running in subject.loads:
        if not instance.alive or instance.started > subject.made_seconds:
            continue
        instance.seen = running
        instances[instance.name] = {
            "kv_free_tokens": load.kv_free_tokens, "kv_capacity_tokens": load.kv_capacity_tokens,
            "kv_reserved_tokens": load.queued_tokens, "running": load.running, "waiting": load.waiting,
            "ready": 1.0,
        }  # fmt: skip
    world.observer.fold(
        ev.AgentReport(
            source="agents", observed_seconds=subject.made_seconds, delivered_seconds=at_seconds,
            node=subject.node, columns={}, instances=instances,
        )
    )  # fmt: skip
    return ()
