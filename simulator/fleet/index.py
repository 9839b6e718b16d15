"""Pods by where they are: one index for scheduler, kubelets and node life cycle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from cluster.codec import from_json
from cluster.launch import EngineLaunch, RankLaunch
from simulator.fleet.feed import Change
from simulator.fleet.objects import GPU_RESOURCE, LAUNCH, Pod
from simulator.fleet.slices import numbered

Launch = EngineLaunch | RankLaunch


def launch_of(pod: Pod) -> Launch | None:
    """What to start in a pod; None for a pod that is not the operator's, or whose annotation cannot be read."""
    text = pod.metadata.annotations.get(LAUNCH)
    if text is None:
        return None
    try:
        return from_json(text, EngineLaunch)
    except msgspec.DecodeError:
        pass
    try:
        return from_json(text, RankLaunch)
    except msgspec.DecodeError:
        return None


class Seat(msgspec.Struct, frozen=True):
    """What a pod takes of its node. `devices` are those it was told to use, or given once it is bound; `milli` the
    thousandths that it has of each.
    """

    requests: dict[str, float]
    devices: tuple[int, ...] = ()
    milli: int = 1_000

    @property
    def gpus(self) -> int:
        """GPUs it asks for."""
        return int(self.requests.get(GPU_RESOURCE, 0.0))


def seat_of(pod: Pod) -> Seat:
    """What a pod takes."""
    launch = launch_of(pod)
    if launch is None:
        return Seat(pod.requests())
    milli = launch.variant.milli if isinstance(launch, EngineLaunch) else 1_000
    requests = pod.requests()
    return Seat(requests, numbered(requests, launch.devices), milli)


class PodIndex:
    """Every pod by node, and those that wait for one."""

    def __init__(self) -> None:
        self.on: dict[str, dict[str, Pod]] = {}
        """Bound pods by node and key, finished ones included."""
        self.waiting: dict[str, Pod] = {}
        """Pods without a node that still want one, by key."""
        self._seats: dict[str, tuple[str, Seat]] = {}

    def take(self, changes: Iterable[Change[Pod]]) -> None:
        """Follow the watch."""
        for change in changes:
            if change.old is not None:
                self._remove(change.key, change.old)
            if change.new is not None:
                self.put(change.new)

    def put(self, pod: Pod) -> None:
        """Have a pod as it is now (also one that was just bound, before the watch tells)."""
        key = pod.metadata.key
        if pod.spec.node_name:
            self.waiting.pop(key, None)
            self._number(pod)
            self.on.setdefault(pod.spec.node_name, {})[key] = pod
        elif not pod.finished and not pod.deleted and not pod.spec.scheduling_gates:
            self.waiting[key] = pod

    def pods_on(self, node: str) -> Mapping[str, Pod]:
        """Pods bound to a node, by key."""
        return self.on.get(node, {})

    def seat(self, pod: Pod) -> Seat:
        """What a pod takes; its specification never changes, so it is read once."""
        key, uid = pod.metadata.key, pod.metadata.uid
        known = self._seats.get(key)
        if known is None or known[0] != uid:
            known = self._seats[key] = (uid, seat_of(pod))
        return known[1]

    def used(self, node: str) -> tuple[dict[str, float], dict[int, str]]:
        """What unfinished pods of a node take: resources in base units, and devices with the key of who holds them."""
        resources: dict[str, float] = {"pods": 0.0}
        devices: dict[int, str] = {}
        for key, pod in self.pods_on(node).items():
            if pod.finished:
                continue
            seat = self.seat(pod)
            resources["pods"] += 1.0
            for name, quantity in seat.requests.items():
                resources[name] = resources.get(name, 0.0) + quantity
            devices.update(dict.fromkeys(seat.devices, key))
        return resources, devices

    def filled(self, node: str) -> dict[int, int]:
        """Thousandths that unfinished pods of a node have of each device that somebody has."""
        found: dict[int, int] = {}
        for pod in self.pods_on(node).values():
            if not pod.finished:
                seat = self.seat(pod)
                for index in seat.devices:
                    found[index] = found.get(index, 0) + seat.milli
        return found

    def _number(self, pod: Pod) -> None:
        """A pod that may take any devices takes the lowest free ones, as a device plugin would give it some."""
        seat = self.seat(pod)
        if seat.devices or not seat.gpus or pod.finished:
            return
        _, taken = self.used(pod.spec.node_name)
        free = [index for index in range(seat.gpus + len(taken)) if index not in taken]
        numbered = Seat(seat.requests, tuple(free[: seat.gpus]))
        self._seats[pod.metadata.key] = (pod.metadata.uid, numbered)

    def _remove(self, key: str, pod: Pod) -> None:
        self.waiting.pop(key, None)
        if pod.spec.node_name:
            self.on.get(pod.spec.node_name, {}).pop(key, None)
        self._seats.pop(key, None)
