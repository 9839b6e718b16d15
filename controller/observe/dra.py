"""GPUs that drivers announce in ResourceSlices, and who got them through ResourceClaims.

Slices and claims come in any order and are joined when asked. A claim that the scheduler made for a pod's extended
resource is the pod's own request, and is not counted beside it; one with admin access takes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import NamedTuple

from controller.observe.quantities import quantity_of
from controller.resources.coredra import Allotted, ResourceClaim, ResourceSlice, SliceDevice

REPELLING = ("NoSchedule", "NoExecute")
WHOLE = 1_000
GPU_DRIVERS = "gpu."
"""Drivers whose name begins so announce GPUs, whatever the classes name."""


class Announced(NamedTuple):
    """One GPU as a driver announces it; `number` -1 where it says none. A slice of one has its GPU's uuid as `parent`.
    `capacities` (name, base units) are those of which claims may ask for a part; none where it is given out whole.
    """

    driver: str
    pool: str
    name: str
    uuid: str = ""
    number: int = -1
    product: str = ""
    parent: str = ""
    usable: bool = True
    capacities: tuple[tuple[str, int], ...] = ()


class Held(NamedTuple):
    """What one allocated claim has of a node's GPUs. `pods` are the uids it is reserved for, `milli` the thousandths that it
    has of each: of the capacity, and of the GPU, that it has most of.
    """

    key: str
    uid: str
    pods: frozenset[str]
    gpus: tuple[Announced, ...]
    milli: int = WHOLE


class DraBook:
    """Slices and claims as the caches have them."""

    def __init__(self) -> None:
        """Start with none: so it stays where the cluster does not serve them."""
        self._slices: dict[str, ResourceSlice] = {}
        self._claims: dict[str, ResourceClaim] = {}
        self._on_node: dict[str, set[str]] = defaultdict(set)
        self._node_of: dict[tuple[str, str], str] = {}
        self._by_pool: dict[tuple[str, str], set[str]] = defaultdict(set)

    def slice(self, key: str, obj: ResourceSlice | None) -> set[str]:
        """A slice changed (None: it is gone); nodes whose devices are another matter now."""
        touched = set()
        before = self._slices.pop(key, None)
        for found in (before, obj):
            if found is not None and found.spec.node_name:
                touched.add(found.spec.node_name)
        if before is not None:
            self._on_node[before.spec.node_name].discard(key)
        if obj is not None and obj.spec.node_name:
            self._slices[key] = obj
            self._on_node[obj.spec.node_name].add(key)
        for node in sorted(touched):
            self._place(node, before)
        return touched

    def _place(self, node: str, before: ResourceSlice | None) -> None:
        """Where each pool is: the pools of a node are found by any of its slices."""
        if before is not None:
            self._node_of.pop(_pool(before), None)
        for key in self._on_node[node]:
            self._node_of[_pool(self._slices[key])] = node
        if not self._on_node[node]:
            del self._on_node[node]

    def claim(self, key: str, obj: ResourceClaim | None) -> set[str]:
        """A claim changed (None: it is gone); nodes on which something is held by it, or no more."""
        before = self._claims.pop(key, None)
        touched = set()
        for found in (before, obj):
            for result in found.results if found is not None else ():
                pool = (result.driver, result.pool)
                touched.add(self._node_of.get(pool, ""))
                (self._by_pool[pool].add if found is obj else self._by_pool[pool].discard)(key)
                if not self._by_pool[pool]:
                    del self._by_pool[pool]
        if obj is not None and obj.results:
            self._claims[key] = obj
        return touched - {""}

    def gpus(self, node: str, drivers: Collection[str] = ()) -> tuple[Announced, ...]:
        """GPUs and slices of GPUs announced for a node, by index and name; `drivers` are those that classes name."""
        keys = self._on_node.get(node, ())
        newest: dict[tuple[str, str], int] = {}
        for key in keys:
            pool = _pool(self._slices[key])
            newest[pool] = max(newest.get(pool, 0), self._slices[key].spec.pool.generation)
        found = [
            _announced(self._slices[key], device)
            for key in keys
            for device in self._slices[key].spec.devices
            if self._counts(self._slices[key], newest, drivers)
        ]
        return tuple(sorted(found, key=lambda gpu: (gpu.number, gpu.driver, gpu.pool, gpu.name)))

    @staticmethod
    def _counts(found: ResourceSlice, newest: dict[tuple[str, str], int], drivers: Collection[str]) -> bool:
        spec = found.spec
        gpus = spec.driver in drivers or spec.driver.startswith(GPU_DRIVERS)
        return gpus and spec.pool.generation == newest[_pool(found)]

    def held(self, node: str, drivers: Collection[str] = ()) -> list[Held]:
        """Allocated claims with GPUs of a node, by key."""
        known = {(gpu.driver, gpu.pool, gpu.name): gpu for gpu in self.gpus(node, drivers)}
        pools = {_pool(self._slices[key]) for key in self._on_node.get(node, ())}
        keys = sorted({key for pool in pools for key in self._by_pool.get(pool, ())})
        found = []
        for key in keys:
            claim = self._claims[key]
            each = [
                (known[place], result)
                for result in claim.results
                if (place := (result.driver, result.pool, result.device)) in known
            ]
            if each:
                pods = frozenset(c.uid for c in claim.status.reserved_for if c.resource == "pods")
                milli = max(_milli(gpu, result) for gpu, result in each)
                found.append(Held(key, claim.metadata.uid, pods, tuple(gpu for gpu, _ in each), milli))
        return found


def _milli(gpu: Announced, result: Allotted) -> int:
    """Thousandths of a GPU that an allocation has, rounded up: of the capacity that it has most of."""
    consumed = {
        _short(name): quantity_of({"": value}, "") for name, value in result.consumed_capacity.items()
    }
    parts = [
        -(-WHOLE * consumed[_short(name)] // whole)
        for name, whole in gpu.capacities
        if _short(name) in consumed
    ]
    return min(WHOLE, max(1, *parts)) if parts else WHOLE


def _short(name: str) -> str:
    """A capacity's name without the driver's domain."""
    return name.rpartition("/")[2]


def _pool(found: ResourceSlice) -> tuple[str, str]:
    return found.spec.driver, found.spec.pool.name


def _announced(found: ResourceSlice, device: SliceDevice) -> Announced:
    number = device.number("index", "minor")
    return Announced(
        driver=found.spec.driver,
        pool=found.spec.pool.name,
        name=device.name,
        uuid=device.text("uuid"),
        number=number if number is not None else -1,
        product=device.text("productName"),
        parent=device.text("parentUUID"),
        usable=not any(taint.effect in REPELLING for taint in device.taints),
        capacities=_capacities(device) if device.allow_multiple_allocations else (),
    )


def _capacities(device: SliceDevice) -> tuple[tuple[str, int], ...]:
    found = {name: quantity_of({"": each.value}, "") for name, each in device.capacity.items()}
    return tuple(sorted((name, amount) for name, amount in found.items() if amount > 0))


def divisible(gpus: Collection[Announced], wanted: Collection[str]) -> dict[str, int]:
    """The least of each `wanted` capacity over a node's whole GPUs; none where one of them is given out whole.

    Names are those of the first device, as its driver writes them: the scheduler takes a claim's names to the letter.
    """
    each = [dict(gpu.capacities) for gpu in gpus if not gpu.parent]
    short = [{_short(name): amount for name, amount in one.items()} for one in each]
    names = [_short(name) for name in wanted]
    if not names or not each or not all(name in one for one in short for name in names):
        return {}
    return {
        name: min(one[_short(name)] for one in short) for name in sorted(each[0]) if _short(name) in names
    }
