"""Instances that die, with or without warning, and those that start in their place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from simulator.physics.engine import EngineInstance
from simulator.physics.loading import Loader, Stage
from simulator.world.core import Event
from simulator.world.instances import Instance
from simulator.world.moving import abort
from simulator.world.serving import let_in, replay
from simulator.world.spec import Failing


def warn(at_seconds: float, subject: Failing, world: Any) -> Iterable[Event]:
    """An instance is to be reclaimed: nothing new goes there, what runs may still end."""
    instance = world.instances[subject.instance]
    instance.pool.rows.open(instance.row, ready=False)
    return ((at_seconds + subject.notice_seconds, die, subject),)


def die(at_seconds: float, subject: Failing, world: Any) -> Iterable[Event]:
    """An instance is gone with its KV: its requests go on elsewhere from the token log."""
    instance: Instance = world.instances[subject.instance]
    if not instance.alive:
        return ()
    events = halt(at_seconds, instance, world)
    if subject.start is not None:
        loader = Loader(world.rng, at_seconds)
        loader.begin(instance.name, subject.start)
        events.append((loader.next_event_seconds(), starting, (instance, loader)))
    return events


def halt(at_seconds: float, instance: Instance, world: Any) -> list[Event]:
    """An engine ends with all it has; its requests go on elsewhere from the token log."""
    world.live(instance, at_seconds)
    for move in list(world.moves.values()):
        # One that has left its source, or is about to, is replayed by its commit where the target is what dies.
        if instance is move.source or (instance is move.target and not move.cut):
            abort(move, world)
    engine = instance.engine
    lost = [engine.handover(key) for key in engine.request_ids()]
    instance.spent = instance.totals()
    instance.busy_seconds += engine.phases().busy_seconds
    engine.kill()
    instance.alive, instance.leaving, instance.seen = False, 0, []
    instance.pool.rows.open(instance.row, ready=False)
    return [(at_seconds, replay, handover) for handover in lost]


def starting(at_seconds: float, subject: tuple[Instance, Loader], _: Any) -> Iterable[Event]:
    """A stage of a cold start ends; after the last, the instance takes requests."""
    instance, loader = subject
    if any(event.stage is Stage.READY for event in loader.advance_to(at_seconds)):
        group = instance.group
        instance.engine = EngineInstance(group.gpu, instance.service.model, group.engine, at_seconds)
        instance.alive, instance.started = True, at_seconds
        instance.pool.rows.open(instance.row, ready=True)
        return ((at_seconds, let_in, instance.service),)
    return ((loader.next_event_seconds(), starting, subject),)
