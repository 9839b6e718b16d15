"""Objects as they are watched: that an instance is up, to be reclaimed or gone is known a little after it is so.

The gateway opens a row when it has heard of an instance that is ready, and closes it when it has heard of a notice; a broken
connection it sees at once. The operator's model hears of both ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from cluster import events as ev
from cluster.base import Ref
from cluster.serving import Replica, ReplicaPhase, Role, Variant
from simulator.world.core import Event
from simulator.world.instances import Instance
from simulator.world.serving import let_in


class Change(NamedTuple):
    """What changed: an instance is `up` (or gone), in its life that `started` then. Its gateway `opens` or closes its row."""

    instance: Instance
    started: float
    made_seconds: float
    up: bool
    gone: bool


def came(at_seconds: float, instance: Instance, world: Any) -> list[Event]:
    """An instance is ready."""
    change = Change(instance, instance.started, at_seconds, up=True, gone=False)
    return [(at_seconds + world.spec.delays.watch_seconds, heard, change)]


def noticed(at_seconds: float, instance: Instance, world: Any) -> list[Event]:
    """An instance is told that it will be reclaimed."""
    change = Change(instance, instance.started, at_seconds, up=False, gone=False)
    return [(at_seconds + world.spec.delays.watch_seconds, heard, change)]


def went(at_seconds: float, instance: Instance, world: Any) -> list[Event]:
    """An instance is gone."""
    change = Change(instance, instance.started, at_seconds, up=False, gone=True)
    return [(at_seconds + world.spec.delays.watch_seconds, heard, change)]


def heard(at_seconds: float, subject: Change, world: Any) -> Iterable[Event]:
    """A change is known to the gateway, and to the operator where anybody listens."""
    instance, ready = subject.instance, subject.up
    current = instance.started == subject.started
    if world.listens and (subject.up or subject.gone):
        world.observer.fold(_told(subject, at_seconds))
    if subject.gone or not (current and instance.alive):
        return ()
    instance.pool.rows.open(instance.row, ready=ready)
    return ((at_seconds, let_in, instance.service),) if ready else ()


def _told(change: Change, at_seconds: float) -> ev.Seen | ev.Gone:
    instance = change.instance
    if change.gone:
        return ev.Gone(
            source="watch", observed_seconds=change.made_seconds, delivered_seconds=at_seconds,
            mapping="replicas", key=instance.name,
        )  # fmt: skip
    return ev.Seen(
        source="watch", observed_seconds=change.made_seconds, delivered_seconds=at_seconds,
        noun=replica_of(instance),
    )  # fmt: skip


def replica_of(instance: Instance) -> Replica:
    """An instance as the core names it; each of its lives is another object."""
    engine, gpu = instance.group.engine, instance.group.gpu
    uid = instance.name if not instance.started else f"{instance.name}@{instance.started:.6f}"
    variant = Variant(accelerator=gpu.product, gpus=engine.tensor_parallel, tensor=engine.tensor_parallel)
    return Replica(
        key=instance.name, ref=Ref("Replica", instance.name, uid), service=instance.service.name,
        launcher=instance.name, variant=variant, phase=ReplicaPhase.READY, role=Role(instance.group.role),
    )  # fmt: skip
