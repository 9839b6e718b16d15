"""One place where decisions become words: ledger rows, events, and the memory `explain` reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cluster.actions import Stamped
from cluster.checks import subject_of
from cluster.plan import Plan
from cluster.reasons import Reason, missing_facts, sentence
from controller.actor.outcome import Outcome
from controller.ledger.ledger import Ledger
from controller.ledger.rows import ActionId, ActuationRow, PlanId, json_text, plan_row, reason_row
from controller.store.interface import Store
from controller.telling.events import Events, event_object
from controller.telling.memory import Sayings

EVENTS_PER_STEP = 200
"""Events written at most per step of the operator; what is left over is dropped, the ledger has it all."""


class Narrator:
    """Tells the ledger everything, and the API server what is news."""

    def __init__(self, store: Store, ledger: Ledger | None) -> None:
        """Bind to where things are told."""
        self.sayings = Sayings()
        self.unexplained = 0
        self.decisions = 0
        self._events = Events(store)
        self._ledger = ledger
        self._news: dict[tuple[str, str, str], Reason] = {}

    def decided(
        self,
        plan_id: PlanId,
        plan: Plan,
        policy: str,
        now_seconds: float,
        *,
        record: str = "",
        quiet: bool = False,
    ) -> None:
        """A plan was made. `quiet` plans (a power tick that renews the same caps) are remembered, not stored."""
        self.decisions += len(plan.actions)
        self.unexplained += sum(1 for a in plan.actions if not self._explained(plan, a.reason))
        news = self.sayings.hear(plan.reasons, plan_id.loop, now_seconds)
        for reason in news:
            self._news[reason.key] = reason
        if self._ledger is None or (quiet and not news):
            return
        row = plan_row(
            plan_id,
            now_seconds,
            plan.evidence,
            policy=policy,
            record=record,
            actions=len(plan.actions),
            reasons=len(plan.reasons),
        )
        self._ledger.plan(row, [reason_row(r, sentence(r)) for r in plan.reasons])

    @staticmethod
    def _explained(plan: Plan, index: int) -> bool:
        return 0 <= index < len(plan.reasons) and not missing_facts(plan.reasons[index])

    def happened(self, outcomes: Iterable[Outcome], now_seconds: float) -> None:
        """Actions were carried out or dropped."""
        rows = []
        for outcome in outcomes:
            if outcome.drop is not None:
                self.sayings.hear([outcome.drop], outcome.stamped.loop, now_seconds)
            if self._ledger is not None:
                rows.append(_actuation(outcome, now_seconds))
        if self._ledger is not None and rows:
            self._ledger.actuations(rows)

    def say(self, reasons: Iterable[Reason], loop: str, now_seconds: float) -> None:
        """Reasons that belong to no plan (a fault in an object, a silent node)."""
        for reason in self.sayings.hear(reasons, loop, now_seconds):
            self._news[reason.key] = reason

    async def publish(self, uids: Mapping[tuple[str, str], str], now_seconds: float, epoch: int) -> None:
        """Write Events for what is news, in order of subject, bounded per call."""
        news, self._news = self._news, {}
        for _, reason in sorted(news.items(), key=lambda item: item[0])[:EVENTS_PER_STEP]:
            if missing_facts(reason):
                continue
            subject = reason.subject
            uid = subject.uid or uids.get((subject.kind, subject.name), "")
            await self._events.write(event_object(reason, uid, now_seconds, epoch))


def _actuation(outcome: Outcome, now_seconds: float) -> ActuationRow:
    stamped: Stamped = outcome.stamped
    subject = subject_of(stamped.action)
    open_ended = outcome.status == "sent"
    fields: dict[str, Any] = {} if open_ended else {"finished_seconds": now_seconds}
    return ActuationRow(
        id=ActionId.parse(stamped.id),
        kind=stamped.action.kind,
        subject_kind=subject.kind,
        subject_name=subject.name,
        issued_seconds=stamped.issued_seconds,
        deadline_seconds=stamped.deadline_seconds,
        reason=stamped.action.reason,
        payload=json_text(stamped.action),
        outcome="issued" if open_ended else outcome.status,
        code=outcome.code if outcome.drop is not None else "",
        message=outcome.message or (sentence(outcome.drop) if outcome.drop is not None else ""),
        **fields,
    )
