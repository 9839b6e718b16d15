"""Information delay: what engines say reaches the gateway's rows and the operator's model later, and not at once.

Engines report node by node. The rows of dispatch have a report after one delay, the operator's `Observer` after another, drawn
for each: both fold what was true when it was said.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from cluster import events as ev
from simulator.world.core import Event
from simulator.world.instances import Instance

Standing = tuple[int, int, int, int]
Running = list[tuple[int, int]]


class Said(NamedTuple):
    """What the instances of one node said at one moment: `EngineInstance.standing`, and what runs where it is crowded."""

    node: str
    made_seconds: float
    loads: list[tuple[Instance, Standing, Running]]


def report(at_seconds: float, subject: list[Instance], world: Any) -> Iterable[Event]:
    """The instances of a node say how they are."""
    loads: list[tuple[Instance, Standing, Running]] = []
    delays, live = world.spec.delays, world.live
    crowded = world.spec.moving.crowded_share
    for instance in subject:
        if instance.alive:
            live(instance, at_seconds)
            engine = instance.engine
            standing = engine.standing()
            left = standing[2] - standing[3]
            tells = left < crowded * engine.capacity_tokens and instance.service.migration is not None
            loads.append((instance, standing, engine.decoding() if tells else []))
    said = Said(subject[0].node, at_seconds, loads)
    again = (at_seconds + delays.report_seconds, report, subject)
    told: tuple[Event, ...] = ((at_seconds + delays.gateway_seconds, tell_gateway, said),)
    if delays.each_step:
        told = ()
    if not world.listens:
        return (*told, again)
    late = delays.agent_low_seconds + world.draw() * (delays.agent_high_seconds - delays.agent_low_seconds)
    return (*told, (at_seconds + late, tell_operator, said), again)


def tell_gateway(_at_seconds: float, subject: Said, _world: Any) -> Iterable[Event]:
    """A report reaches the rows that dispatch reads."""
    made = subject.made_seconds
    for instance, standing, _running in subject.loads:
        if instance.alive and instance.started <= made:
            instance.pool.rows.report(instance.row, standing, made)
    return ()


def tell_operator(at_seconds: float, subject: Said, world: Any) -> Iterable[Event]:
    """A report reaches the operator's model of the cluster."""
    instances: dict[str, dict[str, float]] = {}
    for instance, (running, waiting, free, queued), seen in subject.loads:
        if not instance.alive or instance.started > subject.made_seconds:
            continue
        instance.seen = seen
        instances[instance.name] = {
            "kv_free_tokens": free, "kv_capacity_tokens": instance.engine.capacity_tokens, "kv_reserved_tokens": queued,
            "running": running, "waiting": waiting, "ready": 1.0,
        }  # fmt: skip
    world.observer.fold(
        ev.AgentReport(
            source="agents", observed_seconds=subject.made_seconds, delivered_seconds=at_seconds,
            node=subject.node, columns={}, instances=instances,
        )
    )  # fmt: skip
    return ()
