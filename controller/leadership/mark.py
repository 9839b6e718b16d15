"""The leader's mark: a label on its own pod, so that the hub's Service selects the leader and nobody else.

Only where the process runs in a cluster and was told its pod (downward API: PLIMSOLL_POD_NAME and
PLIMSOLL_POD_NAMESPACE). Rights needed: `list` and `patch` on `pods` in the operator's own namespace, by a Role.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping

from controller.leadership.gate import Gate
from controller.observe import labels
from controller.resources.core import POD
from controller.store.errors import NotFound, StoreError
from controller.store.interface import Store

log = logging.getLogger("plimsoll.leadership")

LEADER = "plimsoll.dev/leader"
"""Label of the leader's pod; its value is `true`."""
POD_NAME = "PLIMSOLL_POD_NAME"
POD_NAMESPACE = "PLIMSOLL_POD_NAMESPACE"


class LeaderMark:
    """Puts the label on one pod and takes it off every other one. A mark that fails is tried again by its owner."""

    def __init__(self, store: Store, gate: Gate, namespace: str, pod: str) -> None:
        """`gate` is the leadership's: a mark is set only while it is open."""
        self._store = store
        self._gate = gate
        self._namespace = namespace
        self._pod = pod

    @classmethod
    def from_environment(
        cls, store: Store, gate: Gate, environment: Mapping[str, str] = os.environ
    ) -> LeaderMark | None:
        """The mark of this process' own pod; None where it was not told which that is."""
        namespace, pod = environment.get(POD_NAMESPACE, ""), environment.get(POD_NAME, "")
        return cls(store, gate, namespace, pod) if namespace and pod else None

    async def set(self) -> bool:
        """Let the Service find this pod alone; whether that is so now.

        A former leader's mark is taken off first: it may be paused, and cannot do so itself.
        """
        try:
            marked = await self._store.list(POD, self._namespace, label_selector=f"{LEADER}=true")
            for pod in marked.items:
                name = str(pod["metadata"]["name"])
                if name != self._pod:
                    await self._label(name, None)
            await self._label(self._pod, "true")
        except StoreError as error:
            log.warning("the leader's mark is not on pod %s/%s: %s", self._namespace, self._pod, error)
            return False
        return self._gate.open

    async def clear(self) -> bool:
        """Take the mark off this pod. Asked without the gate: nothing is decided by it, and it is our own pod."""
        try:
            await self._patch(self._pod, None)
        except NotFound:
            return True
        except StoreError as error:
            log.warning("the leader's mark is still on pod %s/%s: %s", self._namespace, self._pod, error)
            return False
        return True

    async def _label(self, pod: str, value: str | None) -> None:
        if not self._gate.passes("mark"):
            return
        try:
            await self._patch(pod, value)
        except NotFound:
            if value is not None:
                raise

    async def _patch(self, pod: str, value: str | None) -> None:
        patch = {"metadata": {"labels": {LEADER: value}}}
        await self._store.patch(POD, pod, patch, self._namespace, field_manager=labels.MANAGER)
