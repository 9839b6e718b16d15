"""Plays Karpenter, or a cluster autoscaler: what is ordered in the store becomes a machine of the fleet after a while, or never.

As those do: a NodeClaim gets a finalizer, later the conditions Launched, Registered, Initialized and Ready and the name of
its node, which carries the claim's labels; a claim that is deleted takes its node along. A ProvisioningRequest is
Accepted, then Provisioned, and its node knows nothing of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import msgspec

from controller.store.errors import NotFound
from controller.store.interface import JsonObject, Resource, Store
from runtime.clock import Clock
from simulator.fleet.cloud import utc
from simulator.fleet.feed import Feed
from simulator.fleet.fleet import Fleet
from simulator.fleet.objects import NODE, Object
from simulator.fleet.specs import NodeSpec

NODE_CLAIM = Resource(
    group="karpenter.sh", version="v1", kind="NodeClaim", plural="nodeclaims", namespaced=False, has_status=True,
    generation=True,
)  # fmt: skip
REQUEST = Resource(
    group="autoscaling.x-k8s.io", version="v1", kind="ProvisioningRequest", plural="provisioningrequests",
    has_status=True, generation=True,
)  # fmt: skip
FINALIZER = "karpenter.sh/termination"
POOL = "plimsoll.dev/pool"
WHO = "karpenter"


class Market(msgspec.Struct, frozen=True, kw_only=True):
    """What is sold: a machine by price pool, how long one takes to come, and of which pools none ever does.

    `requests`: ProvisioningRequests are answered, else NodeClaims. `refuses`: pools whose orders fail at once.
    """

    machines: dict[str, NodeSpec]
    seconds: float = 20.0
    never: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    requests: bool = False


class Karpenter:
    """One provisioner on one store; `step` once a second. `bought` lists machines by the order they came by."""

    def __init__(self, store: Store, clock: Clock, fleet: Fleet, market: Market) -> None:
        self.bought: dict[str, str] = {}
        self.orders: list[str] = []
        """Every order that was ever seen, by name."""
        self._store, self._fleet, self._market = store, fleet, market
        self._resource = REQUEST if market.requests else NODE_CLAIM
        self._feed = Feed(store, clock, self._resource, Object)
        self._due: dict[str, float] = {}

    async def step(self, now: float) -> None:
        """Answer what was ordered, and take back what was given up."""
        await self._feed.pump()
        for key, order in sorted(self._feed.objects.items()):
            meta = order.metadata
            pool = meta.labels.get(POOL, "")
            if meta.deletion_timestamp is not None:
                await self._take_back(order)
            elif key not in self._due:
                self._due[key] = now + self._market.seconds
                self.orders.append(meta.name)
                if not self._market.requests:
                    await self._patch(order, {"metadata": {"finalizers": [FINALIZER]}})
                if pool in self._market.refuses:
                    await self._say(order, now, {"Launched": "False"}, "InsufficientCapacity")
            elif now >= self._due[key] and meta.name not in self.bought and pool in self._sold():
                await self._deliver(order, self._market.machines[pool], now)
        gone = self._due.keys() - self._feed.objects.keys()
        self._due = {key: at for key, at in self._due.items() if key not in gone}

    def _sold(self) -> Mapping[str, NodeSpec]:
        stopped = {*self._market.never, *self._market.refuses}
        return {pool: spec for pool, spec in self._market.machines.items() if pool not in stopped}

    async def _deliver(self, order: Object, machine: NodeSpec, now: float) -> None:
        name = f"{order.metadata.name}-node"
        labels = {} if self._market.requests else dict(order.metadata.labels)
        self._fleet.add(msgspec.structs.replace(machine, name=name, labels=machine.labels | labels))
        self.bought[order.metadata.name] = name
        if self._market.requests:
            await self._say(order, now, {"Accepted": "True", "Provisioned": "True"}, "Provisioned")
        else:
            types = dict.fromkeys(("Launched", "Registered", "Initialized", "Ready"), "True")
            await self._say(order, now, types, "Ready", nodeName=name, providerID=f"simulated://{name}")

    async def _say(
        self, order: Object, now: float, types: Mapping[str, str], why: str, **status: str
    ) -> None:
        conditions = [
            {"type": each, "status": holds, "reason": why, "message": f"{why} of {order.metadata.name}"}
            | {"lastTransitionTime": utc(now)}
            for each, holds in types.items()
        ]
        await self._patch(order, {"status": {"conditions": conditions, **status}}, part="status")

    async def _patch(self, order: Object, patch: JsonObject, part: str = "") -> None:
        meta = order.metadata
        await self._store.patch(
            self._resource,
            meta.name,
            patch,
            meta.namespace,
            field_manager=WHO,
            uid=meta.uid,
            subresource="status" if part else "",
        )

    async def _take_back(self, order: Object) -> None:
        """The machine goes, then its Node, then the claim."""
        name = self.bought.pop(order.metadata.name, "")
        if name:
            await self._fleet.remove(name)
            with contextlib.suppress(NotFound):
                await self._store.delete(NODE, name)
        if FINALIZER in order.metadata.finalizers:
            with contextlib.suppress(NotFound):
                await self._patch(order, {"metadata": {"finalizers": None}})

    def close(self) -> None:
        """Give the stream up."""
        self._feed.close()
