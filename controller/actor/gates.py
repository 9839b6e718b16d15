"""The readiness gate of replicas: opened once, when the engine is registered with the hub and warm.

The kubelet calls a pod ready when its containers are and every gate is open; Services and `kubectl wait` follow. A
gate is only ever opened: what makes a ready pod unready again is its containers, which the kubelet sees first. While
no operator runs nobody opens one: a replica that no route leads to is not ready either, and those that are stay so.
"""

from __future__ import annotations

import logging
from typing import Any

from controller.actor.pods import split_key
from controller.observe import labels
from controller.observe.world import World
from controller.resources.core import POD, Pod
from controller.store.errors import Conflict, HeldBack, NotFound, StoreError
from controller.store.interface import JsonObject, Resource, Store
from controller.telling.clock_text import rfc3339

log = logging.getLogger("plimsoll.gates")

RETRY_SECONDS = 5.0
"""How long a gate that could not be opened is left alone."""
WRITES_PER_ROUND = 500


class Gates:
    """Opens gates. `confirmed`: agents must confirm (there is a hub); else the kubelet's word is all there is."""

    def __init__(self, store: Store, *, confirmed: bool) -> None:
        """Bind to a store."""
        self._store = store
        self._confirmed = confirmed
        self._not_before: dict[str, float] = {}

    async def open(self, world: World, now_seconds: float) -> list[tuple[Resource, JsonObject]]:
        """Open every gate whose engine is up; the pods as they were answered."""
        self._not_before = {key: at for key, at in self._not_before.items() if at > now_seconds}
        opened: list[tuple[Resource, JsonObject]] = []
        for key in sorted(world.workloads.ungated)[:WRITES_PER_ROUND]:
            pod: Pod | None = world.objects["Pod"].get(key)
            if pod is None or key in self._not_before:
                continue
            if self._confirmed and not world.workloads.engine_up(pod):
                continue
            answer = await self._open(pod, now_seconds)
            if answer is None:
                self._not_before[key] = now_seconds + RETRY_SECONDS
            else:
                opened.append((POD, answer))
        return opened

    async def _open(self, pod: Pod, now_seconds: float) -> dict[str, Any] | None:
        namespace, name = split_key(pod.metadata.key)
        condition = {
            "type": labels.REGISTERED,
            "status": "True",
            "reason": "EngineRegistered",
            "message": "The engine is warm and takes requests.",
            "lastTransitionTime": rfc3339(now_seconds),
        }
        wanted = {
            "apiVersion": "v1",
            "kind": "Pod",
            # The uid keeps a late write from another pod of the same name.
            "metadata": {"name": name, "namespace": namespace, "uid": pod.metadata.uid},
            "status": {"conditions": [condition]},
        }
        try:
            return await self._store.apply(POD, wanted, field_manager=labels.MANAGER, subresource="status")
        except (NotFound, HeldBack):
            return None
        except Conflict as error:
            log.warning("readiness gate of pod %s: somebody else holds it: %s", pod.metadata.key, error)
        except StoreError as error:
            log.warning("readiness gate of pod %s not opened: %s", pod.metadata.key, error)
        return None
