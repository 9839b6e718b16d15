"""Instances that die, with or without warning, and those that start in their place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from simulator.physics.engine import EngineInstance
from simulator.world import watching
from simulator.world.core import Event
from simulator.world.instances import Instance
from simulator.world.moving import abort
from simulator.world.serving import replay
from simulator.world.spec import Failing


def warn(at_seconds: float, subject: Failing, world: Any) -> Iterable[Event]:
    """An instance is to be reclaimed: once that is known nothing new goes there, what runs may still end."""
    instance = world.instances[subject.instance]
    told = watching.noticed(at_seconds, instance, world) if instance.alive else []
    return (*told, (at_seconds + subject.notice_seconds, die, subject))


def die(at_seconds: float, subject: Failing, world: Any) -> Iterable[Event]:
    """An instance is gone with its KV: its requests go on elsewhere from the token log."""
    instance: Instance = world.instances[subject.instance]
    if not instance.alive:
        return ()
    events = halt(at_seconds, instance, world)
    if subject.start is not None:
        events += world.starts.begin(at_seconds, instance, subject.start, up, world)
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
    gone = watching.went(at_seconds, instance, world) if world.listens else []
    return [*gone, *((at_seconds, replay, handover) for handover in lost)]


def up(at_seconds: float, subject: Instance, world: Any) -> Iterable[Event]:
    """A cold start has ended: the instance takes requests as soon as that is known."""
    group = subject.group
    subject.engine = EngineInstance(group.gpu, subject.service.model, group.engine, at_seconds)
    subject.alive, subject.started = True, at_seconds
    if world.drawing is not None:
        world.drawing.came_up(subject, at_seconds, world)
    return watching.came(at_seconds, subject, world)
