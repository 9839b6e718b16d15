"""Hardware that breaks: a node with everything on it, or one GPU with whatever uses that one.

What served goes on elsewhere from the token log, training attempts fail; after the repair the instances begin a cold start where
they were. An instance on several GPUs is gone with any of them, its neighbours on the node go on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from cluster.seeds import stable_hash
from simulator.physics.failures import FailureKind, FailureSource
from simulator.world.core import Event
from simulator.world.failing import halt, up
from simulator.world.machines import Machine
from simulator.world.parts import Breaking, Hazard
from simulator.world.watching import noticed

KINDS: Final = (FailureKind.NODE_CRASH, FailureKind.GPU_XID)
"""What breaks in the world; what stops without a word (a hang) does not."""


def announced(at_seconds: float, subject: Breaking, world: Any) -> Iterable[Event]:
    """A node is to be reclaimed: what serves there is told, and goes on until then."""
    machine: Machine = world.machines.by_name[subject.node]
    events: list[Event] = []
    for name in world.machines.users(machine, _gpus(subject, machine)):
        instance = world.by_name.get(name)
        if instance is not None and instance.alive:
            events += noticed(at_seconds, instance, world)
    return (*events, (at_seconds + subject.notice_seconds, breaks, subject))


def _gpus(subject: Breaking, machine: Machine) -> Sequence[int]:
    return range(machine.gpus) if subject.gpu < 0 else (subject.gpu,)


def breaks(at_seconds: float, subject: Breaking, world: Any) -> Iterable[Event]:
    """Something breaks now; what is broken already breaks no further."""
    machine: Machine = world.machines.by_name[subject.node]
    gpus = _gpus(subject, machine)
    if machine.down or subject.gpu in machine.broken:
        return ()
    world.broken[FailureKind.NODE_CRASH if subject.gpu < 0 else FailureKind.GPU_XID] += 1
    if world.drawing is not None:
        world.drawing.settle(world.drawing.found(machine, at_seconds), at_seconds, world)
    if subject.gpu < 0:
        machine.down = True
    else:
        machine.broken.add(subject.gpu)
    events: list[Event] = []
    for name in world.machines.users(machine, gpus):
        instance = world.by_name.get(name)
        if instance is None:
            continue
        if instance.alive:
            events += halt(at_seconds, instance, world)
        else:
            events += world.starts.cancel(at_seconds, instance, world)
        if subject.start is not None:
            machine.waiting[name] = subject.start
    if world.jobs is not None:
        events += world.jobs.broke(at_seconds, machine, gpus, world)
    return (*events, (at_seconds + subject.repair_seconds, repaired, subject))


def repaired(at_seconds: float, subject: Breaking, world: Any) -> Iterable[Event]:
    """It is sound again: who waits for it, and for nothing else that is broken, begins a cold start."""
    machine: Machine = world.machines.by_name[subject.node]
    if world.drawing is not None:
        world.drawing.settle(world.drawing.found(machine, at_seconds), at_seconds, world)
    if subject.gpu < 0:
        machine.down = False
    machine.broken.discard(subject.gpu)
    events: list[Event] = []
    for name, start in list(machine.waiting.items()):
        instance = world.by_name.get(name)
        if instance is None:
            del machine.waiting[name]
        elif machine.sound(world.machines.gpus_of(instance)):
            del machine.waiting[name]
            events += world.starts.begin(at_seconds, instance, start, up, world)
    if world.jobs is not None:
        events += world.jobs.repaired(at_seconds, machine, world)
    return events


def source_of(hazard: Hazard, number: int, world: Any) -> FailureSource:
    """Random failures of the world's nodes: each hazard, node and kind has a stream of its own."""
    names = hazard.nodes or tuple(world.machines.by_name)
    rates = {
        FailureKind.NODE_CRASH: (1.0 - hazard.gpu_share) * hazard.per_gpu_hour,
        FailureKind.GPU_XID: hazard.gpu_share * hazard.per_gpu_hour,
    }
    gpus = {name: world.machines.by_name[name].gpus for name in names}
    return FailureSource(stable_hash(world.spec.seed, "hazard", number), gpus=gpus, rates_per_gpu_hour=rates)


def chance(at_seconds: float, subject: tuple[Hazard, FailureSource], world: Any) -> Iterable[Event]:
    """What breaks at random breaks now."""
    hazard, source = subject
    events: list[Event] = []
    for failure in source.advance_to(at_seconds):
        each = Breaking(
            node=failure.node, at_seconds=at_seconds, gpu=failure.gpu, notice_seconds=hazard.notice_seconds,
            repair_seconds=hazard.repair_seconds, start=hazard.start,
        )  # fmt: skip
        events += (announced if each.notice_seconds else breaks)(at_seconds, each, world)
    return (*events, *following(subject))


def following(subject: tuple[Hazard, FailureSource]) -> list[Event]:
    """The next random failure, where any will come."""
    at = subject[1].next_event_seconds()
    return [(at, chance, subject)] if at < float("inf") else []
