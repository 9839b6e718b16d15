"""Machines that die without a word, and those that boot again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster.serving import ReplicaPhase
from simulator.world.core import Event
from simulator.world.operated import units
from simulator.world.operated.machines import Site
from simulator.world.operated.spec import Outage


def crash(at_seconds: float, subject: Outage, world: Any) -> Iterable[Event]:
    """All that runs on a machine ends; the operator finds out by itself. Requests go on elsewhere at once."""
    site: Site = world.sites[subject.node]
    if site.down:
        return ()
    site.down = True
    events: list[Event] = []
    for unit in site.units.values():
        if unit.instance is not None:
            events += world.remove(unit.instance, at_seconds)
            unit.instance = None
    if subject.back_seconds is not None:
        events.append((subject.back_seconds, boot, site))
    return events


def boot(at_seconds: float, subject: Site, world: Any) -> Iterable[Event]:
    """Power comes back: pods that were to go are gone, the others start again."""
    subject.boot(world.spec.seed, at_seconds)
    events: list[Event] = []
    for unit in list(subject.units.values()):
        if unit.stopping:
            events += units.gone(unit, at_seconds, world)
        else:
            unit.phase = ReplicaPhase.PENDING
            events += units.begin(unit, at_seconds, world)
    return events
