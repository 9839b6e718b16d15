"""Driver over modelled physics: it wraps the physics object it is given and translates, nothing more."""

from __future__ import annotations

from typing import Protocol

from agent.node.drivers.base import (
    Code,
    DriverCommand,
    Inventory,
    Outcome,
    Sample,
    SetPower,
    unsupported,
)


class NodePhysics(Protocol):
    """A modelled node. Pure state and injected time: it lives in the simulator, its owner composes it."""

    def inventory(self) -> Inventory:
        """What the node has; equal objects while nothing changed."""
        ...

    def advance_to(self, now_seconds: float) -> None:
        """Lets its engines, clocks and caps evolve, event by event, up to this moment. Idempotent."""
        ...

    def read(self, now_seconds: float) -> Sample:
        """Readings at the moment it was advanced to."""
        ...

    def set_cap(self, watts: int, clock_mhz: int) -> int:
        """Caps the node (base included; clock 0 = free) and returns the node watts that its caps now add up to."""
        ...

    def perform(self, command: DriverCommand, now_seconds: float) -> Outcome | None:
        """Carries out any other command; None for a kind that is not modelled."""
        ...


class SimulatedDriver:
    """`Driver` of one modelled node."""

    name = "simulated"

    def __init__(self, physics: NodePhysics) -> None:
        self._physics = physics

    def inventory(self) -> Inventory:
        """The modelled node's inventory."""
        return self._physics.inventory()

    def sample(self, now_seconds: float) -> Sample:
        """The modelled readings."""
        return self._physics.read(now_seconds)

    def apply(self, command: DriverCommand, now_seconds: float) -> Outcome:
        """Caps through `set_cap`, all else through `perform`; what is not modelled is UNSUPPORTED."""
        if isinstance(command, SetPower):
            readback = self._physics.set_cap(command.watts, command.clock_mhz)
            if readback > command.watts:
                return Outcome(
                    code=Code.FAILED,
                    message=f"The caps add up to {readback} W, more than the {command.watts} W asked for.",
                    readback_watts=readback,
                )
            return Outcome(code=Code.DONE, readback_watts=readback)
        return self._physics.perform(command, now_seconds) or unsupported(self.name, command)

    def advance(self, now_seconds: float) -> None:
        """Advances the physics."""
        self._physics.advance_to(now_seconds)
