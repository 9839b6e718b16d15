"""Dispatch by what running *and queued* requests take of the KV cache: INFaaS++ and the dispatch half of Llumnix.

Both count the demand of the whole queue as used (research/live-migration.md §1.1, §1.2). INFaaS++ takes the lowest
load, the share of the cache in use or asked for. Llumnix takes the greatest freeness, the room left for each request
that runs, F = (free - demand of the queue) / running; an instance without requests is freest of all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.actions import Dispatch
from cluster.plan import Context, Decision, Plan
from cluster.tables import InstanceTable
from cluster.views import DispatchView
from policies.dispatch.waiting import wait

Array = NDArray[np.float64]
Measures = tuple[Array, Array, Array]

EMPTY: Final = 1e12
"""Tokens a request of room on an instance that has none: freer than any that has one."""

_ZERO: Final = np.array(0.0)  # numpy is quicker with these than with Python's numbers
_ONE: Final = np.array(1.0)


class MemoryLoadConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy.

    `retry_after_seconds`: what a refused client is told when nobody knows how long a start takes.
    """

    retry_after_seconds: float = 5.0


class MemoryLoadState(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing is learned; what was sent is in the view as `pending`."""

    schema: int = 1


class _MemoryLoad(ABC):
    """Dispatches to the row with the highest score; ties go to the row that comes first."""

    code: ClassVar[str]
    _sign: ClassVar[float] = 1.0  # of the score as it is told

    def __init__(self, config: MemoryLoadConfig | None = None) -> None:
        self._config = config or MemoryLoadConfig()

    def initial(self) -> MemoryLoadState:
        """The one state there is."""
        return MemoryLoadState()

    def decide(self, view: DispatchView, state: MemoryLoadState, ctx: Context) -> Decision[MemoryLoadState]:
        """Dispatch to the best row that is ready and large enough, else Hold or Reject."""
        table, request = view.instances, view.request
        if not table.keys:
            return Decision(wait(view, ctx, self._config.retry_after_seconds), state)
        tokens = request.longest_tokens
        score = self._merits(table, tokens, reported(table))
        best = int(score.argmax())
        top = float(score[best])
        if math.isnan(top):  # the maximum of an array is nan where any of it is: a row has not reported
            score = self._merits(table, tokens, believed(table))
            best = int(score.argmax())
            top = float(score[best])
        if top == -math.inf:
            return Decision(wait(view, ctx, self._config.retry_after_seconds), state)
        score[best] = -math.inf
        second = int(score.argmax())
        found = float(score[second]) > -math.inf
        action = Dispatch(
            reason=-1, request=request.id, instance=table.keys[best], code=self.code, score=self._sign * top,
            runner_up=table.keys[second] if found else "", runner_up_score=self._sign * float(score[second]) if found else 0.0,
        )  # fmt: skip
        return Decision(Plan(actions=(action,)), state)

    def _merits(self, table: InstanceTable, tokens: int, measures: Measures) -> Array:
        """How much each row is to be preferred [n]; -inf for those that are shut or too small.

        What is missing compares false: a weight or readiness that nobody knows shuts a row, a capacity does not.
        """
        score = self._score(measures)
        shut = ~(table.ready * table.route_weight > _ZERO)
        shut |= table.kv_capacity_tokens < tokens
        score[shut] = -math.inf
        return score

    @abstractmethod
    def _score(self, measures: Measures) -> Array:
        """How much each row would be preferred if all were open [n], in an array of its own."""


class InfaasPlusPlus(_MemoryLoad):
    """`Policy[DispatchView, MemoryLoadState]`: lowest share of the cache used or asked for."""

    code = "LeastMemory"
    _sign = -1.0

    def _score(self, measures: Measures) -> Array:
        capacity, left, _ = measures
        shares: Array = (left - capacity) / np.maximum(capacity, 1.0)
        return shares


class LlumnixDispatch(_MemoryLoad):
    """`Policy[DispatchView, MemoryLoadState]`: greatest freeness, the whole queue counted."""

    code = "MostFreeness"

    def _score(self, measures: Measures) -> Array:
        _, left, requests = measures
        shares: Array = left / np.maximum(requests, _ONE)
        if not requests[requests.argmin()] > 0.0:  # where it is nan, somebody may still be empty
            shares[requests <= 0.0] += EMPTY
        return shares


def reported(table: InstanceTable) -> Measures:
    """Capacity in tokens [n], what is left of it after the demand of the queue and of what was sent since the last report
    [n], and requests there [n]. What is left is negative where more is asked for than there is; nan is what a row has not said.
    """
    left = table.kv_free_tokens - table.kv_reserved_tokens
    left -= table.pending_tokens
    requests = table.running + table.waiting
    requests += table.pending
    return table.kv_capacity_tokens, left, requests


def believed(table: InstanceTable) -> Measures:
    """`reported`, where a row that has not said something is empty but for what is pending."""
    capacity = np.nan_to_num(table.kv_capacity_tokens)
    free = np.where(np.isnan(table.kv_free_tokens), capacity, table.kv_free_tokens)
    left = free - np.nan_to_num(table.kv_reserved_tokens) - np.nan_to_num(table.pending_tokens)
    requests = np.nan_to_num(table.running) + np.nan_to_num(table.waiting) + np.nan_to_num(table.pending)
    return capacity, left, requests
