"""Evictions, and what the disruption controller counts for them, as the API server of 1.36.3 has both.

Reduced to what the operator and its users run into: budgets by `minAvailable` or `maxUnavailable`, their counts, one
budget a pod. Pods that never ran or have ended are evicted whatever a budget says.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from controller.resources.core import POD, POD_DISRUPTION_BUDGET
from controller.resources.guards import BudgetStatus, PodDisruptionBudget
from controller.store.embedded.objects import Objects
from controller.store.embedded.ownership import Manager
from controller.store.embedded.tables import Record
from controller.store.errors import Cause, StoreError, TooManyRequests
from controller.store.interface import JsonObject

WHO = Manager("kube-controller-manager", "Update", "status")
CAUSE = "DisruptionBudget"
"""The API's word for why a pod is not evicted now."""
VIOLATES = "Cannot evict pod as it would violate the pod's disruption budget."
SEVERAL = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
_ENDED = frozenset({"Succeeded", "Failed"})


class Evictions:
    """Evicts pods of one store, and keeps the counts of its budgets. `count` is one pass of the controller."""

    def __init__(self, objects: Objects) -> None:
        """Bind to the objects."""
        self._objects = objects

    def refusal(self, pod: Record) -> StoreError | None:
        """Why a pod may not be evicted now; None when it may, and then its budget has one disruption less."""
        if (
            pod.obj["status"].get("phase") in {"Pending", *_ENDED}
            or "deletionTimestamp" in pod.obj["metadata"]
        ):
            return None
        labels = pod.obj["metadata"].get("labels", {})
        known = POD_DISRUPTION_BUDGET in self._objects.resources
        budgets = self._budgets(pod.key[0]) if known else []
        over = [(record, budget) for record, budget in budgets if budget.guards(labels)]
        if not over:
            return None
        if len(over) > 1:
            return StoreError(f"evict pods {pod.key[1]!r}: {SEVERAL}")
        record, budget = over[0]
        status = self._counted(budget)
        if not _ready(pod.obj) and status.current_healthy >= status.desired_healthy > 0:
            return None  # what is unhealthy anyway, while enough others are
        if status.disruptions_allowed < 1:
            told = (
                f"The disruption budget {budget.metadata.name} needs {status.desired_healthy} healthy pods "
                f"and has {status.current_healthy} currently"
            )
            return TooManyRequests(
                f"evict pods {pod.key[1]!r}: {VIOLATES} {told}", causes=(Cause("", CAUSE, told),)
            )
        left = msgspec.structs.replace(status, disruptions_allowed=status.disruptions_allowed - 1)
        self._write(record, left)
        return None

    def count(self) -> int:
        """Bring every budget's status up to date; how many changed."""
        if POD_DISRUPTION_BUDGET not in self._objects.resources:
            return 0
        changed = 0
        for namespace in sorted({key[0] for key in self._objects.table(POD_DISRUPTION_BUDGET).records}):
            for record, budget in self._budgets(namespace):
                status = self._counted(budget)
                if status != budget.status:
                    self._write(record, status)
                    changed += 1
        return changed

    def _budgets(self, namespace: str) -> list[tuple[Record, PodDisruptionBudget]]:
        table = self._objects.table(POD_DISRUPTION_BUDGET)
        found = [table.records[key] for key in table.ordered() if key[0] == namespace]
        return [(record, msgspec.json.decode(record.raw, type=PodDisruptionBudget)) for record in found]

    def _counted(self, budget: PodDisruptionBudget) -> BudgetStatus:
        pods = [
            record.obj
            for key, record in self._objects.table(POD).records.items()
            if key[0] == budget.metadata.namespace
            and budget.guards(record.obj["metadata"].get("labels", {}))
            and record.obj["status"].get("phase") not in _ENDED
        ]
        healthy = sum(1 for pod in pods if _ready(pod) and "deletionTimestamp" not in pod["metadata"])
        expected, desired = self._desired(budget, pods)
        allowed = max(0, healthy - desired) if expected else 0
        return BudgetStatus(
            observed_generation=budget.metadata.generation,
            disruptions_allowed=allowed,
            current_healthy=healthy,
            desired_healthy=desired,
            expected_pods=expected,
        )

    def _desired(self, budget: PodDisruptionBudget, pods: list[JsonObject]) -> tuple[int, int]:
        """Pods there should be, and how many of them healthy. All but a plain `minAvailable` asks the owners' scale."""
        spec = budget.spec
        if isinstance(spec.min_available, int):
            return len(pods), spec.min_available
        expected = self._scale_of_owners(pods)
        if spec.max_unavailable is not None:
            return expected, max(0, expected - _share(spec.max_unavailable, expected))
        return expected, _share(spec.min_available or 0, expected)

    def _scale_of_owners(self, pods: list[JsonObject]) -> int:
        owners = {
            o["uid"]: o
            for pod in pods
            for o in pod["metadata"].get("ownerReferences", [])
            if o.get("controller")
        }
        total = 0
        for resource in self._objects.resources:
            if resource.scale is None:
                continue
            for record in self._objects.table(resource).records.values():
                if record.uid in owners:
                    value: Any = record.obj
                    for part in resource.scale.spec_replicas.split("."):
                        value = value.get(part, 0) if isinstance(value, dict) else 0
                    total += int(value)
        return total

    def _write(self, record: Record, status: BudgetStatus) -> None:
        new = {**record.obj, "status": {**record.obj.get("status", {}), **msgspec.to_builtins(status)}}
        self._objects.force(POD_DISRUPTION_BUDGET, record, new, WHO)


def _ready(pod: JsonObject) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _share(given: int | str, of: int) -> int:
    """A count, or a percentage rounded up."""
    if isinstance(given, int):
        return given
    return math.ceil(of * int(given.rstrip("%")) / 100.0)
