"""Power of a cluster under the planner: what its machines draw, what their agents and meters say of it, and when.

Watts are booked as in the other world (`simulator.world.drawing`), under the limits that each machine has. Where nothing asks for
power nothing is booked, and agents say no watts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from cluster import events as ev
from simulator.physics.node import gang_shares
from simulator.physics.power import PhaseShares
from simulator.world import drawing
from simulator.world.core import Event
from simulator.world.drawing import Drawing
from simulator.world.metering import Metered, mean
from simulator.world.operated.machines import Site


class Trained:
    """What the attempts of the world did on a node, for whoever books its watts."""

    def shares(self, node: str, since: float, until: float, world: Any) -> Iterator[tuple[PhaseShares, int]]:
        """Of each gang with ranks there: what it did, and on how many GPUs."""
        for attempt in world.attempts.values():
            gpus = sum(each.slot.gpus for each in attempt.ranks if each.site.name == node)
            if attempt.gang is not None and gpus:
                yield gang_shares(attempt.gang, since, until), gpus


def begin(world: Any) -> list[Event]:
    """Open the books of every machine, where the scenario has power."""
    spec = world.spec.parts.power
    if spec is None:
        return []
    domains = {domain.name: domain for domain in world.spec.domains}
    under: dict[str, list[str]] = {name: [] for name in domains}
    for name, domain in domains.items():
        above, seen = name, set[str]()
        while above in domains and above not in seen:
            seen.add(above)
            under[above] += [node for node in domain.members if node not in under[above]]
            above = domains[above].parent
    made = world.drawing = Drawing(spec, {name: tuple(nodes) for name, nodes in under.items()}, Trained())
    made.ratings = {name: domain.rating_watts for name, domain in domains.items()}
    for site in world.sites.values():
        made.found(world.machines.by_name[site.name], 0.0)
        held(site, 0.0, world)
    events: list[Event] = [(spec.every_seconds, drawing.book, made)]
    return events + [(spec.meter.every_seconds, read, Metered(name)) for name in domains]


def held(site: Site, at_seconds: float, world: Any) -> None:
    """Other limits hold on a machine from now on."""
    if world.drawing is not None:
        world.drawing.hold(world.drawing.draws[site.name], site.held, at_seconds, world)


def switched(site: Site, on: bool, at_seconds: float, world: Any) -> None:
    """A machine loses its power, or has it back."""
    if world.drawing is not None:
        world.drawing.settle(world.drawing.draws[site.name], at_seconds, world)
    world.machines.by_name[site.name].down = not on


def columns(site: Site, at_seconds: float, world: Any) -> dict[str, float]:
    """What an agent's sensors say, means since it last looked; nothing where no watts are booked."""
    if world.drawing is None:
        return {}
    reading = world.drawing.read(world.drawing.draws[site.name], at_seconds, world)
    return {
        "watts": reading.watts, "saved_watts": reading.uncapped_watts - reading.watts,
        "demand_watts": reading.uncapped_watts, "utilisation": reading.utilisation,
    }  # fmt: skip


def read(at_seconds: float, subject: Metered, world: Any) -> Iterable[Event]:
    """A domain's meter takes its mean; the operator hears of it later."""
    meter, made = world.spec.parts.power.meter, world.origin + at_seconds
    watts = mean(at_seconds, subject, world)

    def fold(now_seconds: float) -> bool:
        heard: bool = world.observer.fold(
            ev.MeterReport(
                source="meters", observed_seconds=made, delivered_seconds=now_seconds, domain=subject.domain,
                columns={"meter_watts": watts},
            )
        )  # fmt: skip
        return heard

    world.ears.put(made + meter.delay_seconds, fold)
    return ((at_seconds + meter.every_seconds, read, subject),)
