"""The user's part of a pod as decisions need it: what cannot be granted, and what it leaves of the cluster."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from cluster.taints import Toleration
from controller.observe.intents import Intent
from controller.observe.quantities import quantity_of
from controller.observe.volumes import KINDS, reach
from controller.resources.podpart import PodPart

DEFAULT_ACCOUNT = "default"


class PodParts:
    """Looks at `spec.pod` of ModelServices and TrainingJobs.

    `objects` are raw ones by kind and key, followed by their owner; `accounts` those that pods may run as, as
    `namespace/name`.
    """

    def __init__(self, objects: Mapping[str, Mapping[str, Any]], accounts: Collection[str] = ()) -> None:
        self._objects = objects
        self._accounts = frozenset(accounts)
        self._claimants: set[tuple[str, str]] = set()
        self._labels: dict[str, dict[str, str] | None] = {}

    def granted(self, kind: str, obj: Any, intent: Intent) -> Intent:
        """The intent of an object, with what its part of the pod adds to it."""
        faults = (*intent.faults, *self.faults(kind, obj))
        if faults:
            return Intent(None, faults)
        return Intent(msgspec.structs.replace(intent.noun, **self._wishes(kind, obj)))

    def forget(self, kind: str, key: str) -> None:
        """The object is gone."""
        self._claimants.discard((kind, key))

    def _wishes(self, kind: str, obj: Any) -> dict[str, Any]:
        """What placing needs to know of it, by the noun's fields."""
        part: PodPart = obj.spec.pod
        claims = [v.persistent_volume_claim.claim_name for v in part.volumes if v.persistent_volume_claim]
        who = (kind, obj.metadata.key)
        (self._claimants.add if claims else self._claimants.discard)(who)
        confined_to, confined_by = reach(self._objects, obj.metadata.namespace, claims)
        asked = {"cpu": part.resources.cpu or 0, "memory": part.resources.memory or 0}
        return {
            "tolerates": tuple(
                Toleration(key=t.key, operator=t.operator, value=t.value, effect=t.effect)
                for t in part.tolerations
            ),
            "confined_to": confined_to,
            "confined_by": confined_by,
            "cpu_millis": quantity_of(asked, "cpu", 1000),
            "memory_bytes": quantity_of(asked, "memory"),
        }

    def touched(self, dirty: Mapping[str, Collection[str]]) -> list[tuple[str, str]]:
        """Objects whose volumes may be reached from other nodes than before, by (kind, key)."""
        if not self._claimants:
            return []
        moved = any(dirty.get(kind) for kind in KINDS)
        for name in dirty.get("Node", ()):
            node = self._objects["Node"].get(name)
            labels = node.metadata.labels if node is not None else None
            if self._labels.get(name) != labels:
                self._labels[name] = labels
                moved = True
        return sorted(self._claimants) if moved else []

    def faults(self, kind: str, obj: Any) -> tuple[str, ...]:
        """A sentence for whatever of it cannot be granted, whoever asks."""
        name, space = obj.spec.pod.service_account_name, obj.metadata.namespace
        if name in ("", DEFAULT_ACCOUNT) or f"{space}/{name}" in self._accounts:
            return ()
        return (_not_lent(f"{kind} {obj.metadata.key}", space, name),)


def _not_lent(who: str, namespace: str, account: str) -> str:
    return (
        f"{who}: spec.pod.serviceAccountName: {account!r} is not lent: the operator creates pods as an account only where "
        f"pods.service_accounts of its configuration names {namespace}/{account}. Leave the field out, or have it "
        "added there."
    )
