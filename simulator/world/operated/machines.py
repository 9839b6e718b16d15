"""Machines in the world: what starts on one, how fast it runs, and that it may die."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from cluster.seeds import stable_hash
from simulator.physics.clocks import LaggedSetting
from simulator.physics.loading import Loader
from simulator.physics.power import GpuPower, HeldPower, gpu_cap_watts
from simulator.physics.server import PowerState
from simulator.world.core import Event
from simulator.world.operated.spec import Machine


class Site:
    """One machine as it is now. `units` are the pods bound to it by key, `down` whether it is dead.

    Starts share a `loader` (and its tiers' bandwidth) with the jitter of the fleet's machine of the same seed and name.
    """

    __slots__ = (
        "_gpu_power",
        "boots",
        "down",
        "heard",
        "held",
        "images",
        "loader",
        "setting",
        "spec",
        "units",
    )

    def __init__(self, spec: Machine, seed: int) -> None:
        self.spec = spec
        self.boots = 0
        self.down = False
        self.heard = 0.0
        self.images: set[str] = set()
        self.units: dict[str, Any] = {}
        server = spec.server
        self._gpu_power = GpuPower(server.gpu, server.power)
        self.boot(seed, 0.0)

    @property
    def name(self) -> str:
        """The node's name."""
        return self.spec.noun.name

    def boot(self, seed: int, at_seconds: float) -> None:
        """Everything that a power cycle makes new."""
        server = self.spec.server
        self.boots += 1
        self.down = False
        draws = np.random.SeedSequence(stable_hash(seed, self.name, self.boots)).spawn(2)
        rng = np.random.Generator(np.random.PCG64(draws[0]))
        self.loader = Loader(rng, at_seconds, server.tier_bytes_per_second)
        self.setting = LaggedSetting(self.state_for(server.safe_watts, 0), server.actuation_seconds)
        self.held = self._hold()

    def taken(self, key: str, devices: Iterable[int]) -> bool:
        """Whether another pod that is bound to it has any of these devices: then nobody else is bound to them."""
        wanted = set(devices)
        others = (pod for name, pod in self.units.items() if name != key and pod.bound)
        return any(not wanted.isdisjoint(pod.slot.devices) for pod in others)

    def state_for(self, watts: int, clock_mhz: int) -> PowerState:
        """What a cap on the whole server (0: none) and a clock lock (0: none) are for each GPU."""
        server = self.spec.server
        cap = gpu_cap_watts(server.gpu, watts, server.gpus, server.power) if watts else server.gpu.max_watts
        return PowerState(cap, clock_mhz)

    def _hold(self) -> HeldPower:
        state = self.setting.value
        return self._gpu_power.held(state.gpu_cap_watts, state.clock_mhz or None)

    def command(self, state: PowerState, at_seconds: float) -> list[Event]:
        """Ask for limits; they land after the machine's actuation time."""
        if state == self.setting.target:
            return []
        self.setting.command(state, at_seconds)
        return [(at_seconds + self.setting.lag_seconds, landed, self)]

    def pace(self, engine: Any) -> None:
        """Let an engine run as fast as the limits in effect let it."""
        engine.set_speed(self.held.prefill_clock, self.held.decode_clock, self.spec.server.speed)

    def land(self, at_seconds: float) -> bool:
        """Commands due by then take effect; whether anything changed."""
        changed = self.setting.advance_to(at_seconds)
        if changed:
            self.held = self._hold()
        return changed


def landed(at_seconds: float, subject: Site, world: Any) -> Iterable[Event]:
    """A limit or clock that was commanded lands: what runs there runs at its pace from now on."""
    if subject.down or not subject.land(at_seconds):
        return ()
    events: list[Event] = []
    for instance in world.nodes.get(subject.name, ()):
        world.live(instance, at_seconds)
        subject.pace(instance.engine)
        events += instance.attend()
    events += world.paced(subject, at_seconds)
    return events
