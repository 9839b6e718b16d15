"""A plan in the making: collects actions, targets and reasons, and merges equal reasons."""

from __future__ import annotations

import msgspec

from cluster.actions import AnyAction
from cluster.plan import Evidence, Plan
from cluster.reasons import Quantity, Reason, Unit
from cluster.targets import AnyTarget


def quantity(name: str, value: float, unit: Unit) -> Quantity:
    """A `Quantity` of a Python float, whatever number came in."""
    return Quantity(name, float(value), unit)


class Draft:
    """Builds one `Plan`. Reasons of one key (code, subject, choice) are kept once, with a count."""

    __slots__ = ("_actions", "_degraded", "_facts", "_index", "_reasons", "_targets", "units_used")

    def __init__(self) -> None:
        self._actions: list[AnyAction] = []
        self._targets: list[AnyTarget] = []
        self._reasons: list[Reason] = []
        self._index: dict[tuple[str, str, str], int] = {}
        self._degraded: set[str] = set()
        self._facts: list[Quantity] = []
        self.units_used = 0

    def because(self, reason: Reason) -> int:
        """Take a reason in and return its index; the newest numbers of a key win, counts add up."""
        index = self._index.get(reason.key)
        if index is None:
            index = self._index[reason.key] = len(self._reasons)
            self._reasons.append(reason)
        else:
            count = self._reasons[index].count + reason.count
            self._reasons[index] = msgspec.structs.replace(reason, count=count)
        return index

    def act(self, action: AnyAction) -> None:
        """Add an action whose `reason` is an index that `because` returned."""
        self._actions.append(action)

    def aim(self, target: AnyTarget) -> None:
        """Add a standing target."""
        self._targets.append(target)

    def miss(self, what: str) -> None:
        """Note something the decision had to do without."""
        self._degraded.add(what)

    def note(self, fact: Quantity) -> None:
        """Add a number to the evidence."""
        self._facts.append(fact)

    def plan(self, objective: float | None = None, bound: float | None = None, optimal: bool = True) -> Plan:
        """The finished plan."""
        evidence = Evidence(
            objective=objective,
            bound=bound,
            optimal=optimal,
            units_used=self.units_used,
            degraded=tuple(sorted(self._degraded)),
            facts=tuple(self._facts),
        )
        return Plan(
            actions=tuple(self._actions),
            targets=tuple(self._targets),
            reasons=tuple(self._reasons),
            evidence=evidence,
        )


def merged(plan: Plan) -> Plan:
    """The same plan with equal reasons merged and its actions' indices moved along.

    For plans of policies that were not built with a `Draft`.
    """
    if len({reason.key for reason in plan.reasons}) == len(plan.reasons):
        return plan
    draft = Draft()
    moved = [draft.because(reason) for reason in plan.reasons]
    actions = tuple(
        msgspec.structs.replace(action, reason=moved[action.reason]) if action.reason >= 0 else action
        for action in plan.actions
    )
    return msgspec.structs.replace(plan, actions=actions, reasons=draft.plan().reasons)
