"""Power through the operator's own loop: grants as leases, limits that land on machines, watts that their agents tell.

A node without a lease falls back to its safe watts by itself. What is drawn is booked by `simulator.world.operated.powering`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from cluster import actions as act
from cluster.overlay import Overlay
from controller.loops.power import PowerLoop
from simulator.world.core import Event
from simulator.world.operated.acting import carry_out
from simulator.world.operated.machines import Site

AT_CAP = 0.95
"""A node drawing more than this share of its cap may want anything up to its maximum (as the operator reads it)."""


class Held(msgspec.Struct, frozen=True, gc=False):
    """The lease a node's agent has in force."""

    sequence: int
    watts: int
    expires_seconds: float


class Leases:
    """The power loop of the operator, and the leases that agents hold."""

    def __init__(self, seed: int, every_seconds: float) -> None:
        """Nobody holds a lease."""
        self.loop = PowerLoop(seed)
        self.every_seconds = every_seconds
        self.tick = self.sequence = 0
        self.due = 0.0
        self.held: dict[str, Held] = {}

    def step(self, at_seconds: float, world: Any) -> list[Event]:
        """Decide for every root domain where it is time to, and send the grants."""
        if at_seconds < self.due:
            return []
        self.due = at_seconds + self.every_seconds
        self.tick += 1
        now = world.origin + at_seconds
        events: list[Event] = []
        for decision in self.loop.decide(world.observer, now, self.tick, world.epoch):
            plan = decision.plan
            world.log.told(at_seconds, "power", self.tick, plan)
            events += carry_out(at_seconds, "power", self.tick, plan, plan.actions, world, quiet=True)
            world.aim(plan.targets, "power", now)
        return events

    def columns(self, site: Site, measured: dict[str, float], world: Any) -> dict[str, float]:
        """What a machine's agent measured, with the lease it holds; what it would draw if free is read as the operator reads it."""
        found = {name: value for name, value in measured.items() if name != "saved_watts"}
        found["safe_watts"] = float(site.spec.server.safe_watts or site.spec.server.max_watts)
        held, cap = self.held.get(site.name), math.nan
        if held is not None:
            cap = found["lease_watts"] = float(held.watts)
            found["lease_expires_seconds"] = world.origin + held.expires_seconds
        if "watts" in found:
            found["demand_watts"] = found["max_watts"] if found["watts"] >= AT_CAP * cap else found["watts"]
        return found


def grant(at: float, action: act.GrantPower, overlay: Overlay, world: Any) -> list[Event] | None:
    """Send a grant to a node's agent; None where nobody is connected."""
    site: Site = world.sites[action.node]
    power: Leases = world.power
    if site.down:
        return None
    power.sequence += 1
    overlay.apply(action)
    lease = overlay.read("leases")[action.node]
    world.ears.see(
        msgspec.structs.replace(lease, epoch=world.epoch, sequence=power.sequence), world.origin + at, "own"
    )
    arrives = at + world.spec.delays.watch_seconds
    held = Held(power.sequence, action.watts, arrives + action.ttl_seconds)
    return [
        (arrives, received, (site, held, action.clock_mhz)),
        (held.expires_seconds, expired, (site, held)),
    ]


def received(at_seconds: float, subject: tuple[Site, Held, int], world: Any) -> Iterable[Event]:
    """A grant reaches its agent."""
    site, held, clock = subject
    if site.down:
        return ()
    world.power.held[site.name] = held
    world.leases[site.name] = (world.epoch, held.sequence)
    return site.command(site.state_for(held.watts, clock), at_seconds)


def expired(at_seconds: float, subject: tuple[Site, Held], world: Any) -> Iterable[Event]:
    """A lease ends that was not renewed: the machine goes back to its safe watts."""
    site, held = subject
    if world.power.held.get(site.name) != held:
        return ()
    del world.power.held[site.name]
    if site.down:
        return ()
    return site.command(site.state_for(site.spec.server.safe_watts, 0), at_seconds)
