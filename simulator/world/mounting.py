"""Puts the mechanisms of a scenario into its world, and says what came of them.

A world without any of them has `drawing` and `jobs` None and plain `Wires`: nothing is scheduled and nothing asked.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simulator.physics.network import effective_bytes_per_second
from simulator.physics.power import DEFAULT_POWER
from simulator.physics.training import GangPhase
from simulator.world import breaking, drawing, jobs, metering
from simulator.world.machines import Machines
from simulator.world.parts import Domain, Parts, Power
from simulator.world.roads import Roads
from simulator.world.terms import ScenarioError
from simulator.world.wires import Wires

MOST_NODES_SHOWN = 64
"""Of so many nodes the watts are kept as series of their own."""


def wires_of(parts: Parts, bytes_per_second: float, machines: Machines, serving: set[str]) -> Wires | Roads:
    """What copies go over. `serving` nodes have NICs of `bytes_per_second`, those of training alone what their NICs give."""
    if parts.buses is None and not parts.training:
        return Wires(bytes_per_second)
    nics = {
        node: effective_bytes_per_second(job.nic)
        for job in parts.training
        for node in job.nodes
        if node not in serving
    }
    return Roads(bytes_per_second, nics, parts.buses, machines)


def begin(world: Any, parts: Parts) -> None:
    """Queue what the mechanisms do by themselves; the instances of the world are there."""
    kernel = world.kernel
    if parts.training:
        world.jobs = jobs.Jobs(parts.training, world.machines)
        for job in world.jobs.jobs:
            kernel.push((job.spec.at_seconds, jobs.begin, job))
    if parts.power is not None:
        _power(world, parts.power)
    for number, each in enumerate(parts.breaking):
        gpus = world.machines.by_name[each.node].gpus
        if each.gpu >= gpus:
            raise ScenarioError(
                f"breaking[{number}].gpu",
                f"is {each.gpu}; {each.node} has {gpus} GPUs in use, counted from 0",
            )
        happens = breaking.announced if each.notice_seconds else breaking.breaks
        kernel.push((each.at_seconds, happens, each))
    if parts.breaking or parts.hazards:
        world.broken.update(dict.fromkeys(breaking.KINDS, 0))
    for number, hazard in enumerate(parts.hazards):
        for event in breaking.following((hazard, breaking.source_of(hazard, number, world))):
            kernel.push(event)


def _power(world: Any, spec: Power) -> None:
    kernel = world.kernel
    world.drawing = made = drawing.Drawing(spec, _nodes_under(spec.domains, tuple(world.nodes)), world.jobs)
    for instance in world.instances:
        made.came_up(instance, 0.0, world)
    for machine in world.machines.by_name.values():
        made.found(machine, 0.0)
    for event in drawing.schedule(spec):
        kernel.push(event)
    for domain in spec.domains:
        kernel.push((spec.meter.every_seconds, metering.read, metering.Metered(domain.name)))
    kernel.push((spec.every_seconds, drawing.book, made))


def _nodes_under(domains: tuple[Domain, ...], serving: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Nodes of each domain and of all below it; parents come before their children."""
    under: dict[str, list[str]] = {}
    parents = {domain.name: domain.parent for domain in domains}
    for domain in domains:
        own = [*domain.nodes]
        for group in domain.groups:
            own += [node for node in serving if node.startswith(f"node-{group}-")]
        under[domain.name] = []
        above = domain.name
        while above:
            under[above] += [node for node in own if node not in under[above]]
            above = parents[above]
    return {name: tuple(nodes) for name, nodes in under.items()}


def end(world: Any) -> None:
    """The run is over: book what is not yet."""
    if world.drawing is not None:
        world.drawing.sample(world.kernel.now, world)


def figures(world: Any) -> dict[str, float]:
    """What came of the mechanisms, by name; nothing for those that were off."""
    found: dict[str, float] = {f"{kind.value}_failures": count for kind, count in world.broken.items()}
    if world.drawing is not None:
        found |= _energy(world)
    for job in world.jobs.jobs if world.jobs is not None else ():
        spent = job.spent
        there = max(min(job.ended, world.kernel.now) - job.spec.at_seconds, 1e-9)
        name = f"job_{job.spec.name}"
        found |= {
            f"{name}_steps": job.steps,
            f"{name}_attempts": job.attempt,
            f"{name}_failures": job.failures,
            f"{name}_lost_steps": job.lost_steps,
            f"{name}_exchange_share": spent[GangPhase.EXCHANGE] / there,
            f"{name}_checkpoint_share": spent[GangPhase.CHECKPOINT] / there,
            f"{name}_steps_per_hour": 3_600.0 * job.steps / there,
            f"{name}_done": float(job.over and not job.given_up),
        }
    return {name: float(value) for name, value in found.items()}


def _energy(world: Any) -> dict[str, float]:
    made: drawing.Drawing = world.drawing
    by_phase = made.joules_by_phase()
    total, seconds = sum(by_phase.values()), max(world.kernel.now, 1e-9)
    trained = by_phase["training"] + by_phase["boundary"]
    serving = (
        total - DEFAULT_POWER.server_watts_per_gpu_watt * trained
    )  # what training's own watts cost a server
    completed, tokens = world.book.completed, int(world.book.output_tokens.sum())
    found = {f"joules_{phase}": joules for phase, joules in by_phase.items()}
    found |= {
        "joules": total,
        "watts_mean": total / seconds,
        "watts_peak": made.peak_watts,
        "joules_per_request": serving / completed if completed else 0.0,
        "joules_per_token": serving / tokens if tokens else 0.0,
    }
    for domain, watts in made.ratings.items():
        found[f"watts_peak_{domain}"] = made.peaks[domain]
        found[f"peak_share_{domain}"] = made.peaks[domain] / watts
    return found


def series(world: Any, bins: int) -> dict[str, tuple[float, ...]]:
    """Watts over the run in so many pieces or fewer: by phase, domain and (of small clusters) node."""
    if world.drawing is None:
        return {}
    timeline, now = world.drawing.timeline, world.kernel.now
    columns = timeline.columns()
    if not columns:
        return {}
    count = len(next(iter(columns.values())))
    pieces = min(bins, count)
    edges = np.linspace(0, count, pieces + 1).astype(int)
    ends = np.minimum(edges * timeline.width_seconds, now)
    widths = np.maximum(np.diff(ends), 1e-9)
    found = {"watts_seconds": tuple(((ends[:-1] + ends[1:]) / 2).tolist())}
    for phase in drawing.CLOCKED:
        mhz = np.add.reduceat(columns.pop(f"mhz {phase}"), edges[:-1]) / widths
        found[f"mhz_{phase}"] = tuple(mhz.tolist())
    small = len(world.drawing.draws) <= MOST_NODES_SHOWN
    for name, joules in columns.items():
        kind, _, rest = name.partition(" ")
        if not rest and not small:
            continue
        watts = np.add.reduceat(joules, edges[:-1]) / widths
        found[f"watts_{kind}_{rest}" if rest else f"watts_node_{name}"] = tuple(watts.tolist())
    return found
