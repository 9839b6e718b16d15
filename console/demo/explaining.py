"""The explanation of each object at the end of a run, from what the operator said about it."""

from __future__ import annotations

from cluster.reasons import Reason, render_alternative, sentence
from console.demo.run_data import DemoRun, ObjectExplanation
from controller.operator import Operator
from controller.telling.memory import Said
from controller.telling.statuses import CAPACITY_CODES, GANG_CODES, POWER_CODES

SHOWN = 12
HEADLINES = CAPACITY_CODES | GANG_CODES | POWER_CODES
"""Codes that say how an object stands; everything else is detail."""
KINDS = ("ModelService", "TrainingJob", "PowerDomain")


def explain_all(run: DemoRun, operator: Operator) -> list[ObjectExplanation]:
    """One explanation an object, newest saying first."""
    found = []
    for kind in KINDS:
        for key in sorted(operator.world.objects[kind]):
            said = operator.narrator.sayings.about(kind, key)
            if said:
                found.append(_explain(kind, key, said))
    run.explanations = found
    return found


def _explain(kind: str, key: str, said: list[Said]) -> ObjectExplanation:
    newest = list(reversed(said))
    head = next((s.reason for s in newest if s.reason.code in HEADLINES), newest[0].reason)
    return ObjectExplanation(
        kind=kind,
        name=key,
        headline=sentence(head),
        sentences=[sentence(s.reason) for s in newest[:SHOWN] if s.reason is not head],
        alternatives=[render_alternative(a) for a in head.against],
        remedies=[_remedy(s.reason) for s in newest[:SHOWN] if s.reason.remedy is not None],
    )


def _remedy(reason: Reason) -> str:
    remedy = reason.remedy
    if remedy is None:
        return ""
    facts = ", ".join(f"{q.name} {q.text}" for q in remedy.facts)
    return f"{remedy.code} {remedy.choice} ({facts})" if facts else f"{remedy.code} {remedy.choice}"
