"""Least outstanding requests, weighted: the dispatch baseline every cluster knows.

Each ready row has the merit `route weight / (running + waiting + pending + 1)`; the request goes to the highest,
so that outstanding requests settle in the proportion of the route weights. `pending` (what was sent since the
row's last report) is the dispatch ledger that keeps decisions on one snapshot from herding onto one row. Rows whose
whole KV cache is smaller than the request are passed over. Equal merits go to the row that comes first.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.actions import Dispatch
from cluster.base import Ref
from cluster.plan import Context, Decision, Plan
from cluster.reasons import Alternative, Quantity, Reason, Unit, Verdict
from cluster.tables import InstanceTable
from cluster.views import DispatchView
from policies.dispatch.waiting import share, wait


class LeastOutstandingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy.

    `retry_after_seconds`: what a refused client is told when nobody knows how long a start takes.
    """

    retry_after_seconds: float = 5.0


class LeastOutstandingState(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is learned; what was sent is in the view as `pending`."""

    schema: int = 1


class LeastOutstanding:
    """`Policy[DispatchView, LeastOutstandingState]`. About 10 µs a request at 64 rows."""

    def __init__(self, config: LeastOutstandingConfig | None = None) -> None:
        self._config = config or LeastOutstandingConfig()

    def initial(self) -> LeastOutstandingState:
        """The one state there is."""
        return LeastOutstandingState()

    def decide(
        self, view: DispatchView, state: LeastOutstandingState, ctx: Context
    ) -> Decision[LeastOutstandingState]:
        """Dispatch to the row of highest merit, or Hold while none is ready, or Reject what cannot wait or fit."""
        table, request = view.instances, view.request
        if not table.keys:
            return Decision(wait(view, ctx, self._config.retry_after_seconds), state)
        merit = _merits(table, request.longest_tokens)
        best = int(merit.argmax())
        top = float(merit[best])
        if not top > 0.0:
            return Decision(wait(view, ctx, self._config.retry_after_seconds), state)
        merit[best] = -1.0
        second = int(merit.argmax())
        runner_up = float(merit[second])
        action = Dispatch(
            reason=-1,
            request=request.id,
            instance=table.keys[best],
            code="LeastOutstanding",
            score=1.0 / top,
            runner_up=table.keys[second] if runner_up > 0.0 else "",
            runner_up_score=1.0 / runner_up if runner_up > 0.0 else 0.0,
        )
        return Decision(Plan(actions=(action,)), state)


UNITS: Final[dict[str, Unit]] = {
    "LeastOutstanding": "req",
    "RoundRobin": "replicas",
    "LeastMemory": "ratio",
    "MostFreeness": "tokens",
    "SizePlanned": "ratio",
}
"""What the scores of a dispatch are, by its code. Outstanding requests are per unit of route weight."""


def explain(action: Dispatch, service: str) -> Reason:
    """Render the five scalars of a dispatch as a reason; the code tells what its scores are.

    Called when somebody asks, or for a sample: a dispatch itself builds no text.
    """
    unit = UNITS[action.code]
    against = (
        (Alternative(action.runner_up, Quantity("more", action.runner_up_score - action.score, unit)),)
        if action.runner_up
        else ()
    )
    return Reason(
        code=action.code, subject=Ref("ModelService", service), verdict=Verdict.CHOSEN, choice=action.instance,
        need=Quantity("runner_up_score", action.runner_up_score, unit),
        have=Quantity("score", action.score, unit), against=against,
    )  # fmt: skip


def _merits(table: InstanceTable, tokens: int) -> NDArray[np.float64]:
    """Merit of each row [n], never NaN; 0 for rows that must not get the request."""
    load = table.running + table.waiting
    load += table.pending
    load += 1.0
    merit: NDArray[np.float64] = table.ready * table.route_weight
    merit /= load
    # NaN capacity compares false, so that a row that has not said yet is given the benefit of the doubt.
    merit *= ~(table.kv_capacity_tokens < tokens)
    if math.isnan(merit.sum()):
        return _patient_merits(table, tokens)
    return merit


def _patient_merits(table: InstanceTable, tokens: int) -> NDArray[np.float64]:
    """`_merits` where something is missing: an unreported load counts as none besides what is pending."""
    load = np.nan_to_num(table.running) + np.nan_to_num(table.waiting) + np.nan_to_num(table.pending) + 1.0
    merit: NDArray[np.float64] = share(table) / load
    return merit * ~(table.kv_capacity_tokens < tokens)
