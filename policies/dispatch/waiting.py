"""What every dispatch policy says when no row can take a request: hold it, or refuse it, with the numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.actions import Hold, Reject
from cluster.base import Ref
from cluster.plan import Context, Plan
from cluster.reasons import Quantity, Reason, Verdict
from cluster.tables import InstanceTable
from cluster.views import DispatchView


def wait(view: DispatchView, ctx: Context, retry_after_seconds: float) -> Plan:
    """No row can take the request: too long for all, too late, too many, or wait.

    `retry_after_seconds` is told to a refused client when nobody knows how long a start takes.
    """
    request, table = view.request, view.instances
    retry_after = retry_after_seconds if view.wake_seconds is None else view.wake_seconds
    need = request.longest_tokens
    ready = int(np.count_nonzero(share(table) > 0.0))
    if ready:
        largest = float(np.nanmax(np.where(share(table) > 0.0, table.kv_capacity_tokens, np.nan)))
        return _reject(
            view, "RejectTooLong", 0.0, need=Quantity("tokens", need, "tokens"),
            have=Quantity("instances", ready, "replicas"), limit=Quantity("kv_capacity", largest, "tokens"),
        )  # fmt: skip
    if ctx.now_seconds >= request.deadline_seconds:
        return _reject(
            view, "RejectDeadline", retry_after,
            need=Quantity("ready", 1, "replicas"),
            have=Quantity("waited", ctx.now_seconds - request.arrived_seconds, "s"),
            limit=Quantity("deadline", request.deadline_seconds - request.arrived_seconds, "s"),
        )  # fmt: skip
    held = Quantity("held", view.held, "req")
    limit = Quantity("hold_limit", view.hold_limit, "req")
    if view.held >= view.hold_limit:
        return _reject(
            view, "RejectCap", retry_after, need=Quantity("retry_after", retry_after, "s"),
            have=held, limit=limit,
        )  # fmt: skip
    reason = Reason(
        code="HoldNoInstance", subject=_subject(view), verdict=Verdict.BLOCKED, choice="hold",
        need=Quantity("ready", 1, "replicas"), have=held, limit=limit,
    )  # fmt: skip
    return Plan(actions=(Hold(reason=0, request=request.id),), reasons=(reason,))


def _reject(
    view: DispatchView,
    code: str,
    retry_after: float,
    need: Quantity,
    have: Quantity,
    limit: Quantity,
) -> Plan:
    reason = Reason(
        code=code, subject=_subject(view), verdict=Verdict.REJECTED, choice="reject",
        need=need, have=have, limit=limit,
    )  # fmt: skip
    action = Reject(reason=0, request=view.request.id, retry_after_seconds=retry_after, code=code)
    return Plan(actions=(action,), reasons=(reason,))


def share(table: InstanceTable) -> NDArray[np.float64]:
    """Route weight of rows that may be chosen, 0 elsewhere, also where a weight or readiness is missing."""
    share: NDArray[np.float64] = np.nan_to_num(table.ready * table.route_weight, copy=False, nan=0.0)
    return share


def _subject(view: DispatchView) -> Ref:
    return Ref("ModelService", view.request.service)
