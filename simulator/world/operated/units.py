"""Replicas as the world has them: placed, starting by stages, serving, draining, stopping, gone.

What the operator hears of one is what was true when it was said, after the delay of a watch; what it did itself it knows at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster.actions import CreateReplica
from cluster.base import Ref
from cluster.hardware import Slot
from cluster.launch import EngineLaunch
from cluster.occupancy import Claim
from cluster.serving import Launcher, Replica, ReplicaPhase, Service
from simulator.physics.loading import Stage, StageEvent
from simulator.physics.shapes import engine_of, model_of, start_of
from simulator.physics.specs import EngineSpec, ModelSpec
from simulator.world.core import Event
from simulator.world.instances import Instance
from simulator.world.operated.machines import Site
from simulator.world.spec import Group

STOP_SECONDS = 0.5
"""How long a kubelet takes to end a pod whose containers have nothing left to do."""
LOOK_SECONDS = 1.0
"""How often it looks whether a draining engine is empty."""


class Unit:
    """One replica. `since` is when it came, `deadline` until when its grace lasts once it is asked to stop.

    `told` counts what was said of it: an older word that comes later is not believed.
    """

    __slots__ = (
        "action",
        "bound",
        "claimed",
        "deadline",
        "engine",
        "fault",
        "instance",
        "key",
        "model",
        "phase",
        "revision",
        "service",
        "since",
        "site",
        "stage",
        "told",
        "uid",
        "version",
    )

    def __init__(
        self, action: CreateReplica, service: Service, site: Site, uid: str, at_seconds: float
    ) -> None:
        self.action, self.site, self.uid, self.since = action, site, uid, at_seconds
        self.key, self.service = action.name, service.name
        self.revision, self.version = service.revision, service.ref.version
        self.phase, self.stage, self.claimed = ReplicaPhase.PENDING, "", "pending"
        self.fault, self.bound = "", False
        self.told = 0
        self.deadline = 0.0
        self.instance: Instance | None = None
        self.model: ModelSpec | None = None
        self.engine: EngineSpec | None = None

    @property
    def slot(self) -> Slot:
        """Where it is."""
        return self.action.slots[0]

    @property
    def stopping(self) -> bool:
        """Whether its end was asked for."""
        return self.phase is ReplicaPhase.STOPPING

    def nouns(self, at_seconds: float) -> tuple[Claim, Launcher, Replica]:
        """It as the core names it, at a UTC time."""
        action, slot = self.action, self.slot
        claim = Claim(
            key=self.key, owner=Ref("Replica", self.key, self.uid), slot=slot, priority=0, phase=self.claimed
        )
        launcher = Launcher(
            key=self.key, ref=Ref("Launcher", self.key, self.uid), slots=(slot,), variant=action.variant,
            phase=self.phase,
        )  # fmt: skip
        replica = Replica(
            key=self.key, ref=Ref("Replica", self.key, self.uid, self.version), service=self.service,
            launcher=self.key, variant=action.variant, pool=action.pool, phase=self.phase, stage=self.stage,
            ordinal=action.ordinal, revision=self.revision, fault=self.fault, phase_since_seconds=at_seconds,
        )  # fmt: skip
        return claim, launcher, replica


def create(at_seconds: float, action: CreateReplica, service: Service, world: Any) -> list[Event]:
    """A replica is placed; its kubelet hears of it after a while. ValueError for what no engine can be."""
    world.created += 1
    unit = made(at_seconds, action, service, f"u{world.created}", world)
    world.show(unit, at_seconds)
    return [(at_seconds + world.spec.bind_seconds, bind, (unit, at_seconds + world.spec.bind_seconds))]


def made(at_seconds: float, action: CreateReplica, service: Service, uid: str, world: Any) -> Unit:
    """A replica that is where it was placed. ValueError for what no engine can be."""
    site: Site = world.sites[action.slots[0].node]
    unit = Unit(action, service, site, uid, at_seconds)
    launch = EngineLaunch(
        service=service.name, model=service.model, variant=action.variant, pool=action.pool,
        ordinal=action.ordinal, devices=unit.slot.devices,
    )  # fmt: skip
    unit.model, unit.engine = model_of(launch), engine_of(launch, world.spec.engine)
    world.units[unit.key] = site.units[unit.key] = unit
    return unit


def bind(_: float, subject: tuple[Unit, float], world: Any) -> Iterable[Event]:
    """A replica is bound to its node once its devices are free there, and its kubelet starts it."""
    unit, at_seconds = subject
    if unit.phase is not ReplicaPhase.PENDING or world.units.get(unit.key) is not unit:
        return ()
    if unit.site.taken(unit.key, unit.slot.devices):
        again = at_seconds + LOOK_SECONDS
        return ((again, bind, (unit, again)),)
    if not unit.site.down:
        return begin(unit, at_seconds, world)
    unit.bound, unit.phase, unit.claimed = True, ReplicaPhase.STARTING, "bound"
    world.tell(unit, at_seconds)
    return ()


def begin(unit: Unit, at_seconds: float, world: Any) -> list[Event]:
    """The stages of a start, from the image on."""
    site, profile, model = unit.site, world.spec.start, unit.model
    if model is None:
        raise ValueError(f"replica {unit.key} has no model yet; create it first")
    events = list(stages(at_seconds, site, world))
    unit.bound = True
    present = profile.images_present or unit.service in site.images
    unit.phase, unit.stage, unit.claimed = ReplicaPhase.STARTING, Stage.IMAGE.value, "bound"
    site.loader.begin(unit.key, start_of(profile, model.weight_bytes, present))
    world.tell(unit, at_seconds)
    return [*events, (site.loader.next_event_seconds(), stages, site)]


def stages(at_seconds: float, subject: Site, world: Any) -> Iterable[Event]:
    """Starts on a machine come to their next stages."""
    if subject.down:
        return ()
    events: list[Event] = []
    for event in subject.loader.advance_to(at_seconds):
        unit = subject.units.get(event.name)
        if unit is None or not isinstance(unit, Unit):
            events += world.entered(event, subject)
        else:
            events += _enter(unit, event, world)
    due = subject.loader.next_event_seconds()
    return [*events, (due, stages, subject)] if due < float("inf") else events


def _enter(unit: Unit, event: StageEvent, world: Any) -> list[Event]:
    if unit.phase is not ReplicaPhase.STARTING:
        return []
    if event.stage is Stage.CONTAINER:
        unit.site.images.add(unit.service)
    if event.stage not in {Stage.IMAGE, Stage.CONTAINER}:
        unit.claimed = "running"
    unit.stage = event.stage.value
    if event.stage is Stage.READY:
        up(unit, event.at_seconds, world)
    world.tell(unit, event.at_seconds)
    return []


def up(unit: Unit, at_seconds: float, world: Any) -> None:
    """Its engine is warm. Requests come when the gateways hear of it."""
    if unit.model is None or unit.engine is None:
        raise ValueError(f"replica {unit.key} has no engine yet; create it first")
    unit.phase, unit.stage, unit.claimed, unit.bound = ReplicaPhase.READY, "", "running", True
    column = f"{unit.action.variant.key}|{unit.action.pool}"
    group = Group(gpu=unit.site.spec.server.gpu, engine=unit.engine, column=column)
    instance = Instance(unit.key, unit.site.name, len(world.instances), group, unit.model, at_seconds)
    unit.site.pace(instance.engine)
    unit.instance = instance
    world.add(instance, world.served[unit.service])
    instance.pool.rows.open(instance.row, ready=False)


def stop(unit: Unit, at_seconds: float, grace_seconds: float, world: Any) -> list[Event]:
    """Its end is asked for; what it has may still end within the grace. A second, shorter grace shortens the first."""
    deadline = at_seconds + max(1.0, round(grace_seconds))
    unit.deadline = min(unit.deadline, deadline) if unit.stopping else deadline
    unit.phase, unit.claimed = ReplicaPhase.STOPPING, "stopping"
    if unit.instance is not None:
        unit.instance.pool.rows.open(unit.instance.row, ready=False)
    world.show(unit, at_seconds)
    return [(at_seconds + STOP_SECONDS, ending, unit)]


def ending(at_seconds: float, subject: Unit, world: Any) -> Iterable[Event]:
    """Its kubelet looks whether it may go."""
    if world.units.get(subject.key) is not subject or (subject.site.down and subject.bound):
        return ()
    instance = subject.instance
    if instance is not None and at_seconds < subject.deadline:
        world.live(instance, at_seconds)
        running, waiting, *_ = instance.engine.standing()
        if running + waiting:
            return ((min(at_seconds + LOOK_SECONDS, subject.deadline), ending, subject),)
    return gone(subject, at_seconds, world)


def gone(unit: Unit, at_seconds: float, world: Any) -> list[Event]:
    """Nothing of it is left, and the operator will hear so."""
    events: list[Event] = []
    if unit.instance is not None:
        events = world.remove(unit.instance, at_seconds)
        unit.instance = None
    else:
        unit.site.loader.cancel(unit.key)
    del world.units[unit.key], unit.site.units[unit.key]
    world.bill(unit.action.pool, unit.slot.gpus * (at_seconds - unit.since))
    world.forget(unit, at_seconds)
    return events
