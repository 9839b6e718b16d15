"""Whether a token's node and pod are there, by the operator's own watches.

The API server accepts a token for some ten seconds after its pod is gone (it caches reviews, and its own view of
pods lags); the watches know within a fraction of a second. So the pod must be there by name *and* uid, not be
leaving, and be on the node that the token names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from controller.enrolment.claims import Bound


class Presence(Protocol):
    """Who knows which pods and nodes there are."""

    def missing(self, bound: Bound) -> str:
        """Why the token's pod or node does not count as there, as part of a sentence; empty when both are there."""
        ...


class WatchedPresence:
    """By the objects that the operator's caches hold: kind → key → object."""

    def __init__(self, objects: Mapping[str, Mapping[str, Any]], synced: Callable[[], bool]) -> None:
        """`synced` says whether the caches have been filled: before, nothing counts as there."""
        self._objects = objects
        self._synced = synced

    def missing(self, bound: Bound) -> str:
        """Why the token's pod or node does not count as there; empty when both are there."""
        if not self._synced():
            return "the operator has not read the cluster's pods yet"
        node = self._objects["Node"].get(bound.node)
        if node is None or node.metadata.uid != bound.node_uid:
            return f"the operator sees no node {bound.node!r} of the token's uid"
        pod = self._objects["Pod"].get(f"{bound.namespace}/{bound.pod}")
        if pod is None or pod.metadata.uid != bound.pod_uid:
            return f"the operator sees no pod {bound.namespace}/{bound.pod} of the token's uid"
        if pod.metadata.deletion_timestamp is not None or pod.finished:
            return f"the pod {bound.namespace}/{bound.pod} is leaving"
        if pod.spec.node_name != bound.node:
            return (
                f"the pod {bound.namespace}/{bound.pod} is on {pod.spec.node_name!r}, not on {bound.node!r}"
            )
        return ""
