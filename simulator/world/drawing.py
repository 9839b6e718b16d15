"""Watts: what GPUs and servers draw by phase, and the clocks that limits leave.

The power of the fleet's nodes (`simulator.physics.power`), booked from the phase integrals of the engines and gangs on a node: no
engine knows of it. A limit or a locked clock sets the clocks of prefill and decode steps, which the engines follow from their next
step on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from simulator.physics.engine import EngineInstance
from simulator.physics.power import (
    GpuPower,
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


class Draw:
    """What one node draws: `joules` by phase since the start, `peak_watts` the highest mean of a sample."""

    __slots__ = (
        "free",
        "held",
        "joules",
        "limit",
        "machine",
        "peak_watts",
        "power",
        "sampled",
        "seen",
        "settled",
    )

    def __init__(self, machine: Machine, power: GpuPower, at_seconds: float) -> None:
        self.machine, self.power = machine, power
        self.free = self.held = power.held()
        self.limit = (0, 0)
        self.joules = dict.fromkeys(PHASES, 0.0)
        self.seen: dict[str, tuple[EngineInstance, EnginePhases | None, int]] = {}
        self.settled = at_seconds
        self.sampled = self.peak_watts = 0.0

    @property
    def total(self) -> float:
        """Joules since the start."""
        return sum(self.joules.values())

    @property
    def most_watts(self) -> float:
        """What the server draws with every GPU at its highest limit."""
        gpus = self.machine.gpus
        return server_watts(gpus * self.machine.gpu.max_watts, gpus, self.power.constants)


class Drawing:
    """Energy of all nodes of a world; `domains` are the nodes under each breaker, its children's included."""

    def __init__(self, spec: Power, domains: dict[str, tuple[str, ...]]) -> None:
        self.spec, self.domains = spec, domains
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
        if draw.held is not draw.free:
            instance.engine.set_speed(draw.held.prefill_clock, draw.held.decode_clock)

    def limit(self, node: str, watts: int, clock_mhz: int, at_seconds: float, world: Any) -> list[Event]:
        """A limit of a server (0: none) and a locked clock (0: free) land on a node."""
        draw = self.draws.get(node)
        if draw is None or draw.limit == (watts, clock_mhz):
            return []
        self.settle(draw, at_seconds, world)
        draw.limit = (watts, clock_mhz)
        gpu, gpus = draw.machine.gpu, draw.machine.gpus
        cap = gpu_cap_watts(gpu, watts, gpus, draw.power.constants) if watts else gpu.max_watts
        draw.held = draw.power.held(cap, clock_mhz or None) if watts or clock_mhz else draw.free
        for instance in world.nodes.get(node, ()):
            if instance.alive:
                instance.engine.set_speed(draw.held.prefill_clock, draw.held.decode_clock)
        if world.jobs is None:
            return []
        paced: list[Event] = world.jobs.paced(node, draw.held.training_clock, at_seconds, world)
        return paced

    def settle(self, draw: Draw, at_seconds: float, world: Any) -> None:
        """Book a node up to now, under the limit that held."""
        seconds, since = at_seconds - draw.settled, draw.settled
        if seconds <= 0.0:
            return
        draw.settled = at_seconds
        if draw.machine.down:
            return
        held, gpus = draw.held, draw.machine.gpus
        spent, busy = self._serving(draw, at_seconds, world)
        if world.jobs is not None:
            for shares, count in world.jobs.shares(draw.machine.name, since, at_seconds, world):
                whole = count * seconds
                busy += whole * (shares.training + shares.boundary)
                spent["training"] = spent.get("training", 0.0) + whole * shares.training * held.training_watts
                spent["boundary"] = spent.get("boundary", 0.0) + whole * shares.boundary * held.boundary_watts
        spent["idle"] = max(gpus * seconds - busy, 0.0) * held.idle_watts
        boards = sum(spent.values())
        spent["server"] = server_watts(boards / seconds, gpus, draw.power.constants) * seconds - boards
        for phase, joules in spent.items():
            draw.joules[phase] += joules

    def _serving(self, draw: Draw, at_seconds: float, world: Any) -> tuple[dict[str, float], float]:
        """Joules of the engines of a node since it was last booked, and GPU-seconds in which they ran."""
        for instance in world.nodes.get(draw.machine.name, ()):
            world.live(instance, at_seconds)
        spent, busy = {"prefill": 0.0, "decode": 0.0}, 0.0
        for key, (engine, before, gpus) in list(draw.seen.items()):
            now = engine.phases()
            if engine.stopped:
                del draw.seen[key]
            else:
                draw.seen[key] = (engine, now, gpus)
            prefill, decode, shares = _shares(before, now)
            spent["prefill"] += gpus * prefill * draw.held.prefill_watts
            spent["decode"] += gpus * decode * draw.held.mean_watts(shares)
            busy += gpus * (prefill + decode)
        return spent, busy

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


def _shares(before: EnginePhases | None, now: EnginePhases) -> tuple[float, float, PhaseShares]:
    """Seconds of prefill and decode between two readings, and how much arithmetic filled the decode."""
    if before is None:
        prefill, decode, compute = now.prefill_seconds, now.decode_seconds, now.decode_compute_seconds
    else:
        prefill = now.prefill_seconds - before.prefill_seconds
        decode = now.decode_seconds - before.decode_seconds
        compute = now.decode_compute_seconds - before.decode_compute_seconds
    return prefill, decode, PhaseShares(decode=1.0, decode_compute=compute / decode if decode > 0.0 else 0.0)


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
