"""What may make room for pods that were refused: quotas, limit ranges, a namespace's labels; followed only while some are.

While nothing is, no watch is open and nothing is asked. A right that lacks, or a server without these kinds, costs
nothing but time: refused pods are then tried at their own pace.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from controller.observe.quantities import parse_quantity
from controller.resources.core_bounds import LIMIT_RANGE, RESOURCE_QUOTA, LimitRange, ResourceQuota
from controller.store.cache import Delta, Reflector
from controller.store.interface import Store
from runtime.clock import Clock


class Room:
    """Says in which namespaces something changed that may let refused pods pass."""

    def __init__(self, store: Store, clock: Clock, seed: int) -> None:
        """Nothing is asked before something is refused."""
        self._store, self._clock, self._seed = store, clock, seed
        self._labels: dict[str, dict[str, str]] = {}
        self._followed: tuple[Reflector[ResourceQuota], Reflector[LimitRange]] | None = None

    async def made(self, refused: Collection[str], namespaces: Mapping[str, Any]) -> set[str]:
        """Of the namespaces in which something is `refused`, those in which there may be room now.

        `namespaces` are the objects of that kind, as far as they are followed: their labels hold the pod security.
        """
        if not refused:
            self.close()
            return set()
        return {*self._relabelled(refused, namespaces), *(await self._resized())} & set(refused)

    def _relabelled(self, refused: Collection[str], namespaces: Mapping[str, Any]) -> set[str]:
        before = self._labels
        self._labels = {name: namespaces[name].metadata.labels for name in refused if name in namespaces}
        return {name for name, labels in self._labels.items() if name in before and before[name] != labels}

    async def _resized(self) -> set[str]:
        if self._followed is None:
            self._followed = (
                Reflector(self._store, RESOURCE_QUOTA, ResourceQuota, self._clock, seed=self._seed),
                Reflector(self._store, LIMIT_RANGE, LimitRange, self._clock, seed=self._seed),
            )
        quotas, ranges = self._followed
        known = quotas.has_synced, ranges.has_synced
        grown = [d for d in await quotas.pump() if known[0] and grows(d.old, d.new)]
        changed = [d for d in await ranges.pump() if known[1] and d.old is not None]
        deltas: list[Delta[Any]] = [*grown, *changed]
        return {delta.key.rpartition("/")[0] for delta in deltas}

    def close(self) -> None:
        """Give the watches up."""
        for reflector in self._followed or ():
            reflector.close()
        self._followed = None
        self._labels = {}


def grows(old: ResourceQuota | None, new: ResourceQuota | None) -> bool:
    """Whether a change of a quota leaves more than before: it is gone, allows more, counts less or is used less."""
    if old is None or new is None:
        return old is not None
    return any(name not in new.spec.hard or _left(new, name) > _left(old, name) for name in _hard(old))


def _hard(quota: ResourceQuota) -> dict[str, str | int]:
    """The bounds in force: those of the status, which whoever admits pods reads."""
    return quota.status.hard or quota.spec.hard


def _left(quota: ResourceQuota, name: str) -> float:
    try:
        hard = parse_quantity(_hard(quota).get(name, 0))
        return float(hard - parse_quantity(quota.status.used.get(name, 0)))
    except ValueError:
        return 0.0
