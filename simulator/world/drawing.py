"""Watts: what GPUs and servers draw by phase, and the clocks that limits leave.

The power of the fleet's nodes (`simulator.physics.power`), booked from the phase integrals of the engines and gangs on a node: no
engine knows of it. A limit or a locked clock sets the clocks of prefill and decode steps, which the engines follow from their next
step on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from simulator.physics.engine import EngineInstance
from simulator.physics.power import (
    GpuPower,
    HeldPower,
    PhaseShares,
    constants_of,
    gpu_cap_watts,
    server_watts,
)
from simulator.physics.sequence import EnginePhases
from simulator.world.core import Event
from simulator.world.instances import Instance
from simulator.world.machines import Machine
from simulator.world.parts import Cap, Power
from simulator.world.timeline import Timeline

PHASES: Final = ("prefill", "decode", "training", "boundary", "idle", "server")
"""What watts go to: `boundary` is a gang's exchange and checkpoints, `server` everything in a server but its GPUs."""
CLOCKED: Final = ("prefill", "decode")
"""Phases whose clocks are kept over time, as the mean over the nodes."""


class Reading(NamedTuple):
    """What a node's sensors say: means since they were read before. `uncapped_watts`: of the same work without any limit."""

    watts: float
    uncapped_watts: float
    utilisation: float


class Draw:
    """What one node draws: `joules` by phase since the start, `peak_watts` the highest mean of a sample.

    `uncapped` are joules of the same work without limits, `busy` GPU-seconds in which anything ran.
    """

    __slots__ = (
        "busy",
        "free",
        "held",
        "joules",
        "limit",
        "machine",
        "peak_watts",
        "power",
        "readings",
        "sampled",
        "seen",
        "settled",
        "uncapped",
    )

    def __init__(self, machine: Machine, power: GpuPower, at_seconds: float) -> None:
        self.machine, self.power = machine, power
        self.free = self.held = power.held()
        self.limit = (0, 0)
        self.joules = dict.fromkeys(PHASES, 0.0)
        self.seen: dict[str, tuple[EngineInstance, EnginePhases | None, int]] = {}
        self.settled = at_seconds
        self.sampled = self.peak_watts = self.uncapped = self.busy = 0.0
        self.readings = (at_seconds, 0.0, 0.0, 0.0)

    @property
    def total(self) -> float:
        """Joules since the start."""
        return sum(self.joules.values())


class Drawing:
    """Energy of all nodes of a world; `domains` are the nodes under each breaker, its children's included.

    `trained` says what gangs did on a node. `ratings` are watts by domain.
    """

    def __init__(self, spec: Power, domains: dict[str, tuple[str, ...]], trained: Any = None) -> None:
        self.spec, self.domains, self.trained = spec, domains, trained
        self.ratings = {domain.name: domain.rating_watts for domain in spec.domains}
        self.draws: dict[str, Draw] = {}
        self.timeline = Timeline(spec.every_seconds)
        self.peaks = dict.fromkeys(domains, 0.0)
        self.peak_watts = self._sampled_at = 0.0
        self._by_phase = dict.fromkeys(PHASES, 0.0)

    def found(self, machine: Machine, at_seconds: float, measured: Any = None) -> Draw:
        """The account of a node, opened now where there was none; `measured` is its GPUs' power as measured, or None."""
        draw = self.draws.get(machine.name)
        if draw is None:
            power = GpuPower(machine.gpu, constants_of(measured))
            draw = self.draws[machine.name] = Draw(machine, power, at_seconds)
        return draw

    def came_up(self, instance: Instance, at_seconds: float, world: Any) -> None:
        """An engine begins: it runs at the clocks of its node, and its energy counts from now."""
        measured = instance.group.engine.measured
        machine = world.machines.by_name[instance.node]
        draw = self.found(machine, at_seconds, measured.power if measured is not None else None)
        self.settle(draw, at_seconds, world)
        key = f"{instance.name}@{at_seconds}"
        draw.seen[key] = (instance.engine, None, len(world.machines.gpus_of(instance)))
        if draw.limit != (0, 0):
            instance.engine.set_speed(draw.held.prefill_clock, draw.held.decode_clock)

    def limit(self, node: str, watts: int, clock_mhz: int, at_seconds: float, world: Any) -> list[Event]:
        """A limit of a server (0: none) and a locked clock (0: free) land on a node."""
        draw = self.draws.get(node)
        if draw is None or draw.limit == (watts, clock_mhz):
            return []
        draw.limit = (watts, clock_mhz)
        gpu, gpus = draw.machine.gpu, draw.machine.gpus
        cap = gpu_cap_watts(gpu, watts, gpus, draw.power.constants) if watts else gpu.max_watts
        held = draw.power.held(cap, clock_mhz or None) if watts or clock_mhz else draw.free
        self.hold(draw, held, at_seconds, world)
        events: list[Event] = []
        for instance in world.nodes.get(node, ()):
            if instance.alive:
                instance.engine.set_speed(held.prefill_clock, held.decode_clock)
                events += instance.attend()
        if world.jobs is not None:
            events += world.jobs.paced(node, held.training_clock, at_seconds, world)
        return events

    def hold(self, draw: Draw, held: HeldPower, at_seconds: float, world: Any) -> None:
        """Other watts and clocks hold on a node from now on; whoever says so sets its engines' speed."""
        self.settle(draw, at_seconds, world)
        draw.held = held

    def read(self, draw: Draw, at_seconds: float, world: Any) -> Reading:
        """The sensors of a node are read."""
        self.settle(draw, at_seconds, world)
        since, joules, uncapped, busy = draw.readings
        seconds = max(at_seconds - since, 1e-9)
        draw.readings = (at_seconds, draw.total, draw.uncapped, draw.busy)
        return Reading(
            (draw.total - joules) / seconds,
            (draw.uncapped - uncapped) / seconds,
            (draw.busy - busy) / (seconds * max(draw.machine.gpus, 1)),
        )

    def settle(self, draw: Draw, at_seconds: float, world: Any) -> None:
        """Book a node up to now, under the limit that held."""
        seconds, since = at_seconds - draw.settled, draw.settled
        if seconds <= 0.0:
            return
        draw.settled = at_seconds
        if draw.machine.down:
            return
        work, busy = self._serving(draw, at_seconds, world)
        if self.trained is not None:
            for shares, count in self.trained.shares(draw.machine.name, since, at_seconds, world):
                work.append((count * seconds, shares))
                busy += count * seconds * (shares.training + shares.boundary)
        draw.busy += busy
        idle = max(draw.machine.gpus * seconds - busy, 0.0)
        spent = _joules(draw, draw.held, work, idle, seconds)
        for phase, joules in spent.items():
            draw.joules[phase] += joules
        free = spent if draw.held is draw.free else _joules(draw, draw.free, work, idle, seconds)
        draw.uncapped += sum(free.values())

    def _serving(
        self, draw: Draw, at_seconds: float, world: Any
    ) -> tuple[list[tuple[float, PhaseShares]], float]:
        """What the engines of a node did since it was last booked, and GPU-seconds in which they ran."""
        for instance in world.nodes.get(draw.machine.name, ()):
            world.live(instance, at_seconds)
        work, busy = [], 0.0
        for key, (engine, before, gpus) in list(draw.seen.items()):
            now = engine.phases()
            if engine.stopped:
                del draw.seen[key]
            else:
                draw.seen[key] = (engine, now, gpus)
            ran, shares = _shares(before, now)
            work.append((gpus * ran, shares))
            busy += gpus * ran
        return work, busy

    def sample(self, at_seconds: float, world: Any) -> None:
        """Book all nodes up to now, and keep what they drew since the last time."""
        seconds, self._sampled_at = at_seconds - self._sampled_at, at_seconds
        if seconds <= 0.0:
            return
        sums, drawn = dict.fromkeys(PHASES, 0.0), {}
        for name, draw in self.draws.items():
            self.settle(draw, at_seconds, world)
            for phase, joules in draw.joules.items():
                sums[phase] += joules
            drawn[name], draw.sampled = draw.total - draw.sampled, draw.total
            draw.peak_watts = max(draw.peak_watts, drawn[name] / seconds)
        for domain, nodes in self.domains.items():
            joules = sum(drawn.get(node, 0.0) for node in nodes)
            self.peaks[domain] = max(self.peaks[domain], joules / seconds)
            drawn[f"domain {domain}"] = joules
        phases = {f"phase {phase}": sums[phase] - self._by_phase[phase] for phase in PHASES}
        self._by_phase = sums
        self.peak_watts = max(self.peak_watts, sum(phases.values()) / seconds)
        self.timeline.add(phases | drawn | self._clocks(seconds))

    def _clocks(self, seconds: float) -> dict[str, float]:
        """Clocks in effect now, times seconds: the mean over the nodes that have power."""
        there = [draw for draw in self.draws.values() if not draw.machine.down]
        count = max(len(there), 1)
        prefill = sum(draw.held.prefill_clock * draw.machine.gpu.max_mhz for draw in there) / count
        decode = sum(draw.held.decode_clock * draw.machine.gpu.max_mhz for draw in there) / count
        return {"mhz prefill": prefill * seconds, "mhz decode": decode * seconds}

    def joules_by_phase(self) -> dict[str, float]:
        """Joules of all nodes since the start, as of the last time they were booked."""
        return {phase: sum(draw.joules[phase] for draw in self.draws.values()) for phase in PHASES}


def _shares(before: EnginePhases | None, now: EnginePhases) -> tuple[float, PhaseShares]:
    """Seconds in which an engine ran between two readings, and what it did in them."""
    prefill, decode, compute = now.prefill_seconds, now.decode_seconds, now.decode_compute_seconds
    if before is not None:
        prefill -= before.prefill_seconds
        decode -= before.decode_seconds
        compute -= before.decode_compute_seconds
    ran = max(prefill + decode, 1e-12)
    return prefill + decode, PhaseShares(
        prefill=prefill / ran, decode=decode / ran, decode_compute=compute / decode if decode > 0.0 else 0.0
    )


def _joules(
    draw: Draw, held: HeldPower, work: list[tuple[float, PhaseShares]], idle: float, seconds: float
) -> dict[str, float]:
    """Joules by phase of GPU-seconds of work and idleness under a limit."""
    spent = dict.fromkeys(PHASES[:-1], 0.0)
    for gpu_seconds, shares in work:
        decoding = held.decode_watts + held.decode_compute_watts * min(shares.decode_compute, 1.0)
        spent["prefill"] += gpu_seconds * shares.prefill * held.prefill_watts
        spent["decode"] += gpu_seconds * shares.decode * min(decoding, held.limit_watts)
        spent["training"] += gpu_seconds * shares.training * held.training_watts
        spent["boundary"] += gpu_seconds * shares.boundary * held.boundary_watts
    spent["idle"] = idle * held.idle_watts
    boards = sum(spent.values())
    spent["server"] = (
        server_watts(boards / seconds, draw.machine.gpus, draw.power.constants) * seconds - boards
    )
    return spent


def book(at_seconds: float, subject: Drawing, world: Any) -> Iterable[Event]:
    """The next sample of all nodes is due."""
    subject.sample(at_seconds, world)
    return ((at_seconds + subject.spec.every_seconds, book, subject),)


def set_cap(at_seconds: float, subject: tuple[Cap, bool], world: Any) -> Iterable[Event]:
    """A limit that the scenario has lands, or ends."""
    cap, on = subject
    drawing: Drawing = world.drawing
    nodes = drawing.domains[cap.domain] if cap.domain else (cap.node,) if cap.node else tuple(drawing.draws)
    events: list[Event] = []
    for node in nodes:
        watts, mhz = (cap.watts, cap.clock_mhz) if on else (0, 0)
        events += drawing.limit(node, watts, mhz, at_seconds, world)
    return events


def schedule(spec: Power) -> list[Event]:
    """The limits of a scenario as events; each lands a little after it was set."""
    events: list[Event] = []
    for cap in spec.caps:
        events.append((cap.at_seconds + spec.actuation_seconds, set_cap, (cap, True)))
        if cap.until_seconds:
            events.append((cap.until_seconds + spec.actuation_seconds, set_cap, (cap, False)))
    return events
