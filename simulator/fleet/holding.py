"""Which pod has which GPU of a simulated node: what its kubelet would answer over the pod-resources API."""

from __future__ import annotations

from agent.node.holders import Holder, Holders
from simulator.fleet.index import PodIndex
from simulator.fleet.machine import Machine
from simulator.fleet.objects import GPU_RESOURCE

WHOLE = 1_000


class Holding:
    """One node's devices in the hands of pods, by the fleet's own index. The same object while nothing changed."""

    def __init__(self, node: str, index: PodIndex, machine: Machine) -> None:
        self._node = node
        self._index = index
        self._machine = machine
        self._seen: object = None
        self._held = Holders()

    def __call__(self) -> Holders:
        """Who holds what now; a broken GPU is offered to nobody."""
        devices = self._machine.inventory().devices
        _, held = self._index.used(self._node)
        pods = self._index.pods_on(self._node)
        # A share is had by claim, of which this API knows nothing.
        taken = {place: key for place, key in held.items() if self._index.seat(pods[key]).milli == WHOLE}
        seen = (tuple(sorted(taken.items())), tuple(device.healthy for device in devices))
        if seen != self._seen:
            self._seen = seen
            self._held = Holders(
                rows=tuple(
                    Holder(
                        device=place,
                        device_id=devices[place].uuid,
                        pod=pod,
                        container="main",
                        resource=GPU_RESOURCE,
                    )
                    for place, pod in sorted(taken.items())
                    if place < len(devices)
                ),
                known=True,
                offered=tuple(place for place, device in enumerate(devices) if device.healthy),
            )
        return self._held
