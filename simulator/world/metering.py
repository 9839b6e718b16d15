"""Meters of power domains: the mean over a while, told later. Who decides on power knows no more than they and the agents say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cluster import events as ev
from simulator.world.core import Event
from simulator.world.drawing import Drawing


class Metered:
    """The meter of one domain; `joules` and `at_seconds` are of its last reading."""

    __slots__ = ("at_seconds", "domain", "joules")

    def __init__(self, domain: str) -> None:
        self.domain, self.at_seconds, self.joules = domain, 0.0, 0.0


def read(at_seconds: float, subject: Metered, world: Any) -> Iterable[Event]:
    """A meter takes the mean since its last reading."""
    watts, meter = mean(at_seconds, subject, world), world.drawing.spec.meter
    return (
        (at_seconds + meter.delay_seconds, told, (subject.domain, at_seconds, watts)),
        (at_seconds + meter.every_seconds, read, subject),
    )


def mean(at_seconds: float, subject: Metered, world: Any) -> float:
    """Watts of a domain since its meter was last read."""
    drawing: Drawing = world.drawing
    joules = 0.0
    for node in drawing.domains[subject.domain]:
        draw = drawing.draws.get(node)
        if draw is not None:
            drawing.settle(draw, at_seconds, world)
            joules += draw.total
    watts = (joules - subject.joules) / max(at_seconds - subject.at_seconds, 1e-9)
    subject.joules, subject.at_seconds = joules, at_seconds
    return watts


def told(at_seconds: float, subject: tuple[str, float, float], world: Any) -> Iterable[Event]:
    """A reading reaches the operator's model."""
    domain, made, watts = subject
    world.observer.fold(
        ev.MeterReport(
            source="meters", observed_seconds=world.origin + made, delivered_seconds=world.origin + at_seconds,
            domain=domain,
            columns={"meter_watts": watts},
        )
    )  # fmt: skip
    return ()
