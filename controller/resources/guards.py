"""What others say may not be disturbed: PodDisruptionBudgets."""

from __future__ import annotations

from controller.resources.base import ObjectMeta
from controller.resources.core import CoreStruct


class LabelRequirement(CoreStruct, frozen=True, kw_only=True):
    """One requirement of a label selector: In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: list[str] = []

    def holds(self, labels: dict[str, str]) -> bool:
        """Whether labels meet it; an operator nobody knows is met by nothing."""
        has = labels.get(self.key)
        return {
            "In": has in self.values,
            "NotIn": has not in self.values,
            "Exists": has is not None,
            "DoesNotExist": has is None,
        }.get(self.operator, False)


class LabelSelector(CoreStruct, frozen=True, kw_only=True):
    """Which objects are meant, by their labels; an empty one means all of the namespace."""

    match_labels: dict[str, str] = {}
    match_expressions: list[LabelRequirement] = []

    def selects(self, labels: dict[str, str]) -> bool:
        """Whether an object of these labels is meant."""
        equal = all(labels.get(key) == value for key, value in self.match_labels.items())
        return equal and all(each.holds(labels) for each in self.match_expressions)


class BudgetSpec(CoreStruct, frozen=True, kw_only=True):
    """How many pods must stay (a number or a percentage); no selector selects none."""

    selector: LabelSelector | None = None
    min_available: int | str | None = None
    max_unavailable: int | str | None = None


class BudgetStatus(CoreStruct, frozen=True, kw_only=True):
    """What the disruption controller counted last."""

    observed_generation: int = 0
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0


class PodDisruptionBudget(CoreStruct, frozen=True, kw_only=True):
    """How many pods of a namespace may be away at once by somebody's choice."""

    metadata: ObjectMeta
    spec: BudgetSpec = BudgetSpec()
    status: BudgetStatus = BudgetStatus()

    def guards(self, labels: dict[str, str]) -> bool:
        """Whether a pod of these labels is under it."""
        return self.spec.selector is not None and self.spec.selector.selects(labels)
