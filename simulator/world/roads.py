"""Copies that meet on NICs and PCIe switches: KV between instances, weights of starts, gradients of training jobs.

In place of `Wires`, where the scenario has PCIe switches or training jobs. NICs and switches carry their rate each way at once;
GPUs sit behind switches, some to each, and whatever leaves them or comes to them crosses theirs. Weights come from the store
(its tier, then the NIC where it is remote) and spread over the switches of the instance's GPUs. A ring of training ranks moves
as fast as the slowest thing that any of its members crosses. Rates are max-min fair (`simulator.physics.flows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simulator.physics.flows import FlowNetwork
from simulator.physics.loading import TIER_BYTES_PER_SECOND, StartSpec, WeightTier
from simulator.world.core import Event, Handler
from simulator.world.instances import Instance
from simulator.world.machines import Machines
from simulator.world.parts import Buses


class Roads:
    """Every link of the cluster. `nic_bytes_per_second` by node, `usual` where a node has no rate of its own."""

    __slots__ = ("_buses", "_machines", "_network", "_nics", "_scheduled", "_then", "_usual")

    def __init__(
        self, usual: float, nics: Mapping[str, float], buses: Buses | None, machines: Machines
    ) -> None:
        """`buses` None: nothing is held up between a GPU and its NIC."""
        self._usual, self._nics, self._buses, self._machines = usual, nics, buses, machines
        self._network = FlowNetwork()
        self._then: dict[str, tuple[Handler, Any]] = {}
        self._scheduled = -1.0

    def send(
        self, at_seconds: float, source: Instance, target: Instance, name: str, size_bytes: float, then: Handler,
        subject: Any,
    ) -> list[Event]:  # fmt: skip
        """Start a copy of KV between two instances; `then` happens to `subject` when all of it has arrived."""
        path = self._switches(source.node, self._machines.gpus_of(source), "up")
        if source.node != target.node:
            path |= {self._nic(source.node, "out"): 1.0, self._nic(target.node, "in"): 1.0}
        path |= self._switches(target.node, self._machines.gpus_of(target), "down")
        if not path:  # neighbours, and nothing is known to be between them but what they share
            path = {self._nic(source.node, "out"): 1.0}
        return self._go(at_seconds, name, path, size_bytes, then, subject)

    def load(
        self, at_seconds: float, instance: Instance, start: StartSpec, then: Handler, subject: Any
    ) -> list[Event]:
        """Start to fetch the weights of an instance from where they lie."""
        node, tier = instance.node, start.tier
        path = {self._network.link(f"{node}/{tier.value}", TIER_BYTES_PER_SECOND[tier]): 1.0}
        if tier is WeightTier.REMOTE:
            path[self._nic(node, "in")] = 1.0
        path |= self._switches(node, self._machines.gpus_of(instance), "down")
        return self._go(at_seconds, f"weights of {instance.name}", path, start.weight_bytes, then, subject)

    def ring(
        self, at_seconds: float, members: Sequence[tuple[str, tuple[int, ...]]], name: str, size_bytes: float,
        then: Handler, subject: Any,
    ) -> list[Event]:  # fmt: skip
        """Start to move `size_bytes` out of and into each of the members (node, GPUs), at the pace of the slowest."""
        path: dict[str, float] = {}
        for node, gpus in members:
            path |= {self._nic(node, "out"): 1.0, self._nic(node, "in"): 1.0}
            path |= self._switches(node, gpus, "up") | self._switches(node, gpus, "down")
        return self._go(at_seconds, name, path, size_bytes, then, subject)

    def stop(self, at_seconds: float, name: str) -> list[Event]:
        """Give a copy up: what it shared is free for the others."""
        events = self._settle(at_seconds)
        self._then.pop(name, None)
        self._network.cancel(name)
        return events + self._look()

    def forget(self, at_seconds: float, instance: Instance) -> list[Event]:
        """Give up the weights of an instance whose start ended before it was ready."""
        return self.stop(at_seconds, f"weights of {instance.name}")

    def due(self, at_seconds: float, _node: str) -> list[Event]:
        """Something is due to arrive, unless another copy has put it off."""
        if self._scheduled != at_seconds:
            return []
        return self._settle(at_seconds) + self._look()

    def _go(
        self, at: float, name: str, path: dict[str, float], size: float, then: Handler, subject: Any
    ) -> list[Event]:
        events = self._settle(at)
        self._then[name] = (then, subject)
        self._network.begin(name, path, size)
        return events + self._look()

    def _settle(self, at: float) -> list[Event]:
        return [(when, *self._then.pop(name)) for when, name in self._network.advance_to(at)]

    def _look(self) -> list[Event]:
        at = self._scheduled = self._network.next_event_seconds()
        return [(at, arrived, "")] if at < float("inf") else []

    def _nic(self, node: str, way: str) -> str:
        return self._network.link(f"{node}/{way}", self._nics.get(node, self._usual))

    def _switches(self, node: str, gpus: tuple[int, ...], way: str) -> dict[str, float]:
        """The switches that GPUs of a node sit behind, one way, and which share of their bytes crosses each."""
        if self._buses is None:
            return {}
        rate = self._buses.bytes_per_second or self._machines.by_name[node].gpu.pcie_bytes_per_second
        path: dict[str, float] = {}
        for gpu in gpus:
            link = self._network.link(f"{node}/switch-{gpu // self._buses.gpus_per_switch}/{way}", rate)
            path[link] = path.get(link, 0.0) + 1.0 / len(gpus)
        return path


def arrived(at_seconds: float, subject: str, world: Any) -> Iterable[Event]:
    """Bytes of a copy are due at the other end."""
    due: list[Event] = world.wires.due(at_seconds, subject)
    return due
