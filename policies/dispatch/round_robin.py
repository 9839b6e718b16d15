"""Round robin: requests go to the ready rows in turn, whatever their load. The baseline below every baseline."""

from __future__ import annotations

from bisect import bisect_right

import msgspec
import numpy as np

from cluster.actions import Dispatch
from cluster.plan import Context, Decision, Plan
from cluster.views import DispatchView
from policies.dispatch.waiting import share, wait


class RoundRobinConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy.

    `retry_after_seconds`: what a refused client is told when nobody knows how long a start takes.
    """

    retry_after_seconds: float = 5.0


class RoundRobinState(msgspec.Struct, frozen=True, kw_only=True):
    """`last` is the row whose turn it was: rows that come and go do not upset the order of the others."""

    schema: int = 1
    last: str = ""


class RoundRobin:
    """`Policy[DispatchView, RoundRobinState]`."""

    def __init__(self, config: RoundRobinConfig | None = None) -> None:
        self._config = config or RoundRobinConfig()

    def initial(self) -> RoundRobinState:
        """Nobody's turn yet."""
        return RoundRobinState()

    def decide(self, view: DispatchView, state: RoundRobinState, ctx: Context) -> Decision[RoundRobinState]:
        """Dispatch to the next ready row by name that is large enough, else Hold or Reject."""
        table, request = view.instances, view.request
        fits = ~(table.kv_capacity_tokens < request.longest_tokens)
        rows = np.flatnonzero((share(table) > 0.0) & fits).tolist()
        if not rows:
            return Decision(wait(view, ctx, self._config.retry_after_seconds), state)
        names = sorted(table.keys[row] for row in rows)
        turn = bisect_right(names, state.last) % len(names)
        chosen = names[turn]
        action = Dispatch(
            reason=-1, request=request.id, instance=chosen, code="RoundRobin", score=float(len(names)),
            runner_up=names[(turn + 1) % len(names)] if len(names) > 1 else "",
        )  # fmt: skip
        return Decision(Plan(actions=(action,)), RoundRobinState(last=chosen))
