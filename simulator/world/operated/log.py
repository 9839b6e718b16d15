"""The decision log: what was decided, when, why, and what became of it."""

from __future__ import annotations

import msgspec

from cluster.actions import AnyAction, CreateReplica, GrantPower, RestartGang, SetRoutes, StartGang
from cluster.checks import subject_of
from cluster.plan import Plan
from cluster.reasons import Reason, sentence

KEPT = 20_000
"""Rows that are kept; what comes after is counted."""


class Decided(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One action and its outcome (`done`, `dropped`, `failed`), or (`kind` empty) a reason that no action carries."""

    seconds: float
    loop: str
    tick: int
    kind: str
    subject: str
    detail: str
    outcome: str
    code: str
    why: str


class Log:
    """Rows in the order in which they were decided; a reason without an action is told when its code or choice is new."""

    def __init__(self) -> None:
        """Nothing was decided yet."""
        self.rows: list[Decided] = []
        self.omitted = 0
        self._said: dict[tuple[str, str], tuple[str, str]] = {}

    def acted(
        self, seconds: float, loop: str, tick: int, action: AnyAction, outcome: str, reason: Reason | None
    ) -> None:
        """An action was carried out, or was not: then `reason` says why."""
        self._keep(
            Decided(
                seconds=seconds, loop=loop, tick=tick, kind=action.kind, subject=_named(action),
                detail=detail_of(action), outcome=outcome, code=reason.code if reason else "",
                why=sentence(reason) if reason else "",
            )
        )  # fmt: skip

    def told(self, seconds: float, loop: str, tick: int, plan: Plan) -> None:
        """Reasons of a plan that none of its actions carries."""
        used = {action.reason for action in plan.actions}
        for number, reason in enumerate(plan.reasons):
            place, said = (loop, str(reason.subject)), (reason.code, reason.choice)
            if number in used or self._said.get(place) == said:
                continue
            self._said[place] = said
            self._keep(
                Decided(
                    seconds=seconds, loop=loop, tick=tick, kind="", subject=reason.subject.name, detail=reason.choice,
                    outcome=reason.verdict.value, code=reason.code, why=sentence(reason),
                )
            )  # fmt: skip

    def _keep(self, row: Decided) -> None:
        if len(self.rows) < KEPT:
            self.rows.append(row)
        else:
            self.omitted += 1


def _named(action: AnyAction) -> str:
    return action.name if isinstance(action, CreateReplica) else subject_of(action).name


def detail_of(action: AnyAction) -> str:
    """What of an action matters beside its kind and subject: where, or with what weights."""
    if isinstance(action, CreateReplica):
        slots = ", ".join(f"{s.node}:{','.join(map(str, s.devices))}" for s in action.slots)
        return f"{action.variant.key} on {slots}"
    if isinstance(action, SetRoutes):
        weights = ", ".join(f"{key}={weight:.4f}" for key, weight in sorted(action.weights.items()))
        return weights if action.plan is None else f"{weights}; plan by size {action.plan.digest}"
    if isinstance(action, (StartGang, RestartGang)):
        return ", ".join(f"{s.node}:{','.join(map(str, s.devices))}" for s in action.layout.slots)
    if isinstance(action, GrantPower):
        return f"{action.watts} W"
    return ""
