"""One simulated machine as its agent, its kubelet and its engines' host see it: the physics, and what it has told.

Several owners let the machine live (the agent up to the end of a lease, the conductor up to the end of a window);
what happens meanwhile is kept until whoever it concerns takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from agent.engine.adapter import AdapterEvent, AdapterLoad, AdapterRefusal
from agent.node.drivers.base import (
    DriverCommand,
    GangState,
    GpuReadings,
    InstanceState,
    Inventory,
    Outcome,
    ReplicaState,
    Sample,
)
from simulator.fleet.inventory import inventory_of
from simulator.fleet.slices import layout
from simulator.fleet.specs import NodeSpec
from simulator.physics.loading import Loader, StageEvent, StartSpec
from simulator.physics.node import NodePhysics
from simulator.physics.sequence import EngineEvent, EngineLoad
from simulator.physics.server import NodeReading
from simulator.physics.specs import EngineSpec, ModelSpec

Rows = Callable[[float], tuple[tuple[ReplicaState, ...], tuple[GangState, ...]]]


class Machine:
    """One boot of one machine, from `started_seconds` on.

    It is the `NodePhysics` that the agent's simulated driver wants, and gives an `EngineAdapter` for each replica.
    `rows` says what pods and gangs are on it, for the agent's reports.
    """

    def __init__(self, spec: NodeSpec, seed: int, started_seconds: float, rows: Rows) -> None:
        self.spec = spec
        self.name = spec.name
        self._server = spec.server()
        draws = np.random.SeedSequence(seed).spawn(2)
        generators = [np.random.Generator(np.random.PCG64(each)) for each in draws]
        self.physics = NodePhysics(self._server, generators[0], started_seconds)
        self.slices = layout(spec.slices, spec.gpus)
        """Where each slice of its boards is, by resource; empty where they are whole."""
        self.images: set[str] = set()
        """Container images that are on its disk."""
        self._processes = Loader(generators[1], started_seconds)
        self._rows = rows
        self._events: dict[str, list[EngineEvent]] = {}
        self._loads: dict[str, EngineLoad] = {}
        self._stages: list[StageEvent] = []
        self._inventory: tuple[int, Inventory] | None = None
        self._reading: NodeReading | None = None

    # -------------------------------------------------------------------------------------------- time

    def advance_to(self, now_seconds: float) -> None:
        """Let it live up to then; a moment that it has passed already changes nothing."""
        if now_seconds <= self.physics.now:
            return
        self._loads.clear()
        told = self.physics.advance_to(now_seconds)
        for name, event in told.requests:
            self._events.setdefault(name, []).append(event)
        self._stages += told.stages
        if self.physics.alive:
            self._stages += self._processes.advance_to(now_seconds)

    def take_stages(self) -> list[StageEvent]:
        """Stages that starting replicas and processes entered since the last call, in order of time."""
        stages, self._stages = self._stages, []
        stages.sort(key=lambda event: (event.at_seconds, event.name))
        return stages

    # ------------------------------------------------------------------------------------------ engines

    def start_engine(
        self, name: str, model: ModelSpec, engine: EngineSpec, gpus: tuple[int, ...], start: StartSpec
    ) -> None:
        """Start a replica's engine on these GPUs. ValueError says why the machine cannot."""
        self.physics.place(name, model, engine, gpus, start)

    def stop_engine(self, name: str) -> None:
        """Take a replica off the machine, whatever it was doing."""
        self.physics.remove(name)
        self._events.pop(name, None)
        self.changed(name)

    def start_process(self, name: str, start: StartSpec) -> None:
        """Start a process that is no engine (the ranks of a gang)."""
        self._processes.begin(name, start)

    def stop_process(self, name: str) -> None:
        """Give its start up, if it is still starting."""
        self._processes.cancel(name)

    def adapter(self, name: str) -> ReplicaEngine:
        """A serving replica as the engines' host wants it."""
        return ReplicaEngine(self, name)

    def load(self, name: str) -> EngineLoad:
        """Occupancy of a replica's engine, worked out once per moment; nothing of an engine that is not here."""
        held = self._loads.get(name)
        if held is None:
            engine = self.physics.engine(name)
            held = self._loads[name] = engine.load() if engine is not None else _GONE
        return held

    def changed(self, name: str) -> None:
        """Requests came or went at this moment."""
        self._loads.pop(name, None)

    def take_events(self, name: str) -> list[EngineEvent]:
        """What happened to a replica's requests since the last call."""
        return self._events.pop(name, [])

    # ------------------------------------------------------------------------------- the agent's driver

    def inventory(self) -> Inventory:
        """What it has; the same object while nothing changed."""
        broken = len(self.physics.broken)
        if self._inventory is None or self._inventory[0] != broken:
            told = inventory_of(self.spec, self._server.base_watts, self.physics.broken)
            self._inventory = (broken, told)
        return self._inventory[1]

    def read(self, now_seconds: float) -> Sample:
        """Sensors, engines, pods and gangs."""
        reading = self.measure()
        replicas, gangs = self._rows(now_seconds)
        return Sample(
            node_watts=reading.watts,
            gpus=self._columns(reading),
            replicas=replicas,
            instances=self._instances(reading),
            gangs=gangs,
        )

    def set_cap(self, watts: int, clock_mhz: int) -> int:
        """Cap the server; the watts that the limits then add up to."""
        return self.physics.set_cap(watts, clock_mhz)

    def perform(self, command: DriverCommand, now_seconds: float) -> Outcome | None:  # noqa: ARG002
        """Nothing but power is modelled of what a hub can command."""
        return None

    def measure(self) -> NodeReading:
        """Sensors as means since the last moment they were read; once per moment, whoever asks."""
        held = self._reading
        if held is None or held.at_seconds != self.physics.now or not self.physics.alive:
            held = self._reading = self.physics.read()
        return held

    # ------------------------------------------------------------------------------------------ details

    def _columns(self, reading: NodeReading) -> GpuReadings:
        gpu, gpus = self.spec.gpu, reading.gpus
        held = dict.fromkeys(self._busy_gpus(), int(0.9 * gpu.memory_bytes))
        return GpuReadings(
            watts=tuple(round(each.watts, 1) for each in gpus),
            cap_watts=(reading.gpu_cap_watts,) * len(gpus),
            clock_mhz=tuple(round(each.clock * gpu.max_mhz) for each in gpus),
            utilisation=tuple(round(each.utilisation, 3) for each in gpus),
            memory_used_bytes=tuple(held.get(index, 0) for index in range(len(gpus))),
            energy_millijoules=tuple(int(each.energy_joules * 1000.0) for each in gpus),
        )

    def _busy_gpus(self) -> Iterator[int]:
        """GPUs whose memory an engine or ranks have taken; both take nearly all of it."""
        for name, gpus in self.physics.replicas():
            if self.physics.engine(name) is not None:
                yield from gpus
        for _, gpus in self.physics.gangs():
            yield from gpus

    def _instances(self, reading: NodeReading) -> tuple[InstanceState, ...]:
        found = []
        for name, gpus in self.physics.replicas():
            if self.physics.engine(name) is not None:
                speed = reading.gpus[gpus[0]].clock * self.spec.speed
                found.append(_instance(name, self.load(name), speed))
        return tuple(sorted(found, key=lambda each: each.name))


class ReplicaEngine:
    """A replica of a machine as an `EngineAdapter`: requests go to the physics, its events come back once."""

    __slots__ = ("_machine", "_name")

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine = machine
        self._name = name

    def submit(
        self,
        request_id: int,
        prompt_tokens: int,
        output_tokens: int,
        arrived_seconds: float,
        priority: int = 0,
    ) -> AdapterRefusal | None:
        """Hand a request in."""
        self._machine.changed(self._name)
        return self._machine.physics.submit(
            self._name, request_id, prompt_tokens, output_tokens, arrived_seconds, priority
        )

    def cancel(self, request_id: int) -> bool:
        """Drop a request."""
        self._machine.changed(self._name)
        return self._machine.physics.cancel(self._name, request_id)

    def advance_to(self, until_seconds: float) -> list[AdapterEvent]:
        """Let the whole machine live up to then; what happened to this replica's requests."""
        self._machine.advance_to(until_seconds)
        return list(self._machine.take_events(self._name))

    def load(self) -> AdapterLoad:
        """Occupancy; nothing of an engine that is gone."""
        return self._machine.load(self._name)


_GONE = EngineLoad(
    running=0,
    waiting=0,
    kv_free_tokens=0,
    kv_capacity_tokens=0,
    outstanding_tokens=0,
    generated_tokens=0,
    head_of_line_seconds=0.0,
    last_busy_seconds=0.0,
    preemptions=0,
    draining=True,
)


def _instance(name: str, load: EngineLoad, speed: float) -> InstanceState:
    return InstanceState(
        name=name,
        running=load.running,
        waiting=load.waiting,
        kv_free_tokens=max(0, load.kv_free_tokens),
        kv_capacity_tokens=load.kv_capacity_tokens,
        head_of_line_seconds=load.head_of_line_seconds,
        capped_speed=min(1.0, speed),
        last_busy_seconds=load.last_busy_seconds,
        generated_tokens=load.generated_tokens,
    )
