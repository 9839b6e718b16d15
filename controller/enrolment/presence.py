"""Whether a token's node and pod are there, by the operator's own watches.

The API server accepts a token for some ten seconds after its pod is gone (it caches reviews, and its own view of
pods lags); the watches know within a fraction of a second. So the pod must be there by name *and* uid, not be
leaving, and be on the node that the token names.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from controller.enrolment.claims import Bound
from controller.resources.base import ObjectMeta
from controller.resources.core import NODE, POD, CoreStruct, Pod
from controller.store.cache import Reflector
from controller.store.interface import Store
from runtime.clock import Clock

PERIOD_SECONDS = 0.1
OLD_SECONDS = 180.0
"""A watch brings a bookmark each minute; one that has heard nothing for so long knows nothing any more."""


class Presence(Protocol):
    """Who knows which pods and nodes there are."""

    def missing(self, bound: Bound) -> str:
        """Why the token's pod or node does not count as there, as part of a sentence; empty when both are there."""
        ...


class Named(CoreStruct, frozen=True, kw_only=True):
    """A node, of which only its identity is looked at."""

    metadata: ObjectMeta


class WatchedPresence:
    """By watches of its own: all nodes' identities, and the pods of the agents' namespace alone."""

    def __init__(self, store: Store, namespace: str, clock: Clock, seed: int = 0) -> None:
        """Nothing is asked before `pump`."""
        self.nodes = Reflector(store, NODE, Named, clock, seed=seed)
        self.pods = Reflector(store, POD, Pod, clock, seed=seed, namespace=namespace)

    async def pump(self) -> None:
        """Catch up with the API server, as far as it answers."""
        await self.nodes.pump()
        await self.pods.pump()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep catching up until `stop` is set."""
        while not stop.is_set():
            await self.pump()
            try:
                async with asyncio.timeout(PERIOD_SECONDS):
                    await stop.wait()
            except TimeoutError:
                continue
        self.close()

    def close(self) -> None:
        """Give the streams up."""
        self.nodes.close()
        self.pods.close()

    def missing(self, bound: Bound) -> str:
        """Why the token's pod or node does not count as there; empty when both are there."""
        for watched in (self.nodes, self.pods):
            if not watched.has_synced:
                return "the operator has not read the cluster's nodes and pods yet"
            if (age := watched.last_event_age_seconds) > OLD_SECONDS:
                return f"the operator has heard nothing of {watched.resource.plural} for {age:.0f} s"
        node = self.nodes.objects.get(bound.node)
        if node is None or node.metadata.uid != bound.node_uid:
            return f"the operator sees no node {bound.node!r} of the token's uid"
        name = f"{bound.namespace}/{bound.pod}"
        pod = self.pods.objects.get(name)
        if pod is None or pod.metadata.uid != bound.pod_uid:
            return f"the operator sees no pod {name} of the token's uid"
        if pod.metadata.deletion_timestamp is not None or pod.finished:
            return f"the pod {name} is leaving"
        if pod.spec.node_name != bound.node:
            return f"the pod {name} is on {pod.spec.node_name!r}, not on {bound.node!r}"
        return ""
