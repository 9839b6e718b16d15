"""What keeps a replica's pod where it is: annotations that users put there, and PodDisruptionBudgets over it."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import msgspec

from cluster.base import Ref
from cluster.restraint import PodBudget
from cluster.serving import Replica
from controller.observe import labels
from controller.resources.core import Pod
from controller.resources.guards import PodDisruptionBudget


class Keeping(NamedTuple):
    """The annotation that keeps a pod from being moved (empty: none), and the budgets over it, by key."""

    kept_by: str = ""
    budgets: tuple[str, ...] = ()

    def of(self, replica: Replica) -> Replica:
        """The replica with what keeps it."""
        return msgspec.structs.replace(replica, kept_by=self.kept_by, budgets=self.budgets)


class KeepingBook:
    """Budgets by namespace, and which pods they are over."""

    def __init__(self) -> None:
        """Start with none."""
        self._budgets: dict[str, dict[str, PodDisruptionBudget]] = defaultdict(dict)

    def saw(self, key: str, budget: PodDisruptionBudget | None) -> bool:
        """Take a budget in (None: it is gone). True when other pods may be under it than before."""
        namespace = key.rpartition("/")[0]
        before = self._budgets[namespace].get(key)
        if budget is None:
            self._budgets[namespace].pop(key, None)
        else:
            self._budgets[namespace][key] = budget
        return (before and before.spec) != (budget and budget.spec)

    def keeping(self, pod: Pod) -> Keeping:
        """What keeps one pod."""
        meta = pod.metadata
        over = self._budgets.get(meta.namespace, {})
        guarding = tuple(key for key in sorted(over) if over[key].guards(meta.labels))
        return Keeping(kept_by(pod), guarding)


def kept_by(pod: Pod) -> str:
    """The annotation by which a user keeps a pod where it is; ours while it drains are no user's."""
    notes = pod.metadata.annotations
    if labels.KEPT in notes:
        return ""
    if notes.get(labels.DO_NOT_DISRUPT) == "true":
        return labels.DO_NOT_DISRUPT
    return labels.SAFE_TO_EVICT if notes.get(labels.SAFE_TO_EVICT) == "false" else ""


def budget_of(budget: PodDisruptionBudget) -> PodBudget:
    """A budget as deciding sees it. One that its controller has not counted for its newest spec allows nothing."""
    meta, status = budget.metadata, budget.status
    counted = status.observed_generation >= meta.generation
    return PodBudget(
        ref=Ref("PodDisruptionBudget", meta.key, meta.uid, meta.generation),
        allowed=status.disruptions_allowed if counted else 0,
        healthy=status.current_healthy,
        desired=status.desired_healthy,
    )
