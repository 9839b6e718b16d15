"""Machines that die without a word, and those that boot again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster.serving import ReplicaPhase
from simulator.world.core import Event
from simulator.world.operated import powering, training, units
from simulator.world.operated.attempts import Ranks, tell
from simulator.world.operated.machines import Site
from simulator.world.operated.spec import Outage


def crash(at_seconds: float, subject: Outage, world: Any) -> Iterable[Event]:
    """All that runs on a machine ends; the operator finds out by itself. Requests go on elsewhere at once."""
    site: Site = world.sites[subject.node]
    if site.down:
        return ()
    powering.switched(site, False, at_seconds, world)
    site.down = True
    events: list[Event] = []
    for unit in list(site.units.values()):
        if isinstance(unit, Ranks):
            events += training.lose(unit, at_seconds, world)
        elif unit.instance is not None:
            events += world.remove(unit.instance, at_seconds)
            unit.instance = None
    if subject.back_seconds is not None:
        events.append((subject.back_seconds, boot, site))
    return events


def boot(at_seconds: float, subject: Site, world: Any) -> Iterable[Event]:
    """Power comes back: pods that were to go are gone, the others start again."""
    subject.boot(world.spec.seed, at_seconds)
    powering.switched(subject, True, at_seconds, world)
    powering.held(subject, at_seconds, world)
    events: list[Event] = []
    for unit in list(subject.units.values()):
        if isinstance(unit, Ranks):
            events += _ranks(unit, at_seconds, world)
        elif unit.stopping:
            events += units.gone(unit, at_seconds, world)
        else:
            unit.phase = ReplicaPhase.PENDING
            events += units.begin(unit, at_seconds, world)
    return events


def _ranks(ranks: Ranks, at: float, world: Any) -> list[Event]:
    """Ranks of before do not start again: their pod is gone, or has failed."""
    del ranks.site.units[ranks.key]
    ranks.here, ranks.status = not ranks.deleting, "Failed"
    world.settle_ranks(ranks, at)
    tell(ranks.attempt, at, world)
    return []
