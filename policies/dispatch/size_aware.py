"""Dispatch by size, as a selection planned it: each request to the variant its size was planned for, else where there is room.

The plan in the view (`cluster.size_plan`) says which share of each size of request goes to which variant of which pool. A
request between four grid points takes the bilinear blend of their shares; a column with more than `LEAST_SHARE` of it is
meant for it. Of the rows of all columns meant for it, the request goes to the one that is least full; when that one is behind
(fill 1 or more), to the least full row of any column that can serve it in time. How full a row would be with the request is
the largest of

* tokens it would hold over the room of its KV cache,
* its step time, base + per request x requests + per token x tokens held, over the strictest promise of time per output token
  that holds there; per request counts with it the prompts of those that will take its place,
* time until the request's first token, (queued + own prompt) through the chunks of the steps, over the promised time to it.

Requests sent since a row's last report count as queued there, so one snapshot does not make all of them go one way.
Rows that are not ready, have no route weight, or a cache smaller than the request are passed over: an unhealthy row's
requests go to the others meant for them, and the shares stay as they were planned. Rows of columns that the plan does not
know (another variant on its way out, a plan older than the rows) are only as full as their cache, and take requests when all
planned rows are behind and they are not. A request of an unknown class goes by the plan's first one. Without a plan, or with one
for none of the rows, it is `least_outstanding`.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.actions import Dispatch
from cluster.plan import Context, Decision, Plan
from cluster.size_plan import ClassPlan, PlannedColumn, SizePlan
from cluster.sizes import hat
from cluster.tables import InstanceTable
from cluster.views import DispatchView
from policies.dispatch.least_outstanding import LeastOutstanding, LeastOutstandingConfig
from policies.dispatch.waiting import wait

Floats = NDArray[np.float64]
Natural = Annotated[float, msgspec.Meta(ge=0.0)]

LEAST_SHARE = 0.02
"""Share of a size from which a column counts as meant for it: less is the blend's own dust."""

BEHIND = 1.0
"""Fill from which a row keeps no promise to a newcomer, so that others are looked at."""


class SizeAwareConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy. `retry_after_seconds`: what a refused client is told when nobody knows how long a start takes.

    What it dispatches by is no setting: the plan comes with the routes.
    """

    retry_after_seconds: Natural = 5.0


class SizeAwareState(msgspec.Struct, frozen=True, kw_only=True):
    """Row numbers of each of the plan's columns, and of the rows that are of none of them, so that they are looked up once.

    They hold for a table of these `keys` whose rows are of `columns`, and a plan with these `names`. Nothing is learned.
    """

    schema: int = 2
    keys: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    members: tuple[tuple[int, ...], ...] = ()
    others: tuple[int, ...] = ()


class _Best:
    """The least full row found so far and the next one."""

    __slots__ = ("fill", "row", "second", "second_fill")

    def __init__(self) -> None:
        self.row = self.second = -1
        self.fill = self.second_fill = math.inf

    def offer(self, row: int, fill: float) -> None:
        """Take a row into account; the first of equals stays."""
        if fill < self.fill:
            self.second, self.second_fill = self.row, self.fill
            self.row, self.fill = row, fill
        elif fill < self.second_fill:
            self.second, self.second_fill = row, fill


class SizeAware:
    """`Policy[DispatchView, SizeAwareState]`."""

    def __init__(self, config: SizeAwareConfig | None = None) -> None:
        self._config = config or SizeAwareConfig()
        plain = LeastOutstandingConfig(retry_after_seconds=self._config.retry_after_seconds)
        self._plain = LeastOutstanding(plain)

    def initial(self) -> SizeAwareState:
        """The one state there is."""
        return SizeAwareState()

    def decide(self, view: DispatchView, state: SizeAwareState, ctx: Context) -> Decision[SizeAwareState]:
        """Dispatch to the least full row meant for the size, or able to serve it; else Hold or Reject."""
        plan = view.plan
        if plan is None:
            return Decision(self._plain.decide(view, self._plain.initial(), ctx).plan, state)
        state = _looked_up(view, plan, state)
        if not any(state.members):
            return Decision(self._plain.decide(view, self._plain.initial(), ctx).plan, state)
        best = _chosen(view, plan, state)
        if best.row < 0:
            return Decision(wait(view, ctx, self._config.retry_after_seconds), state)
        keys = view.instances.keys
        action = Dispatch(
            reason=-1, request=view.request.id, instance=keys[best.row], code="SizePlanned", score=best.fill,
            runner_up=keys[best.second] if best.second >= 0 else "",
            runner_up_score=best.second_fill if best.second >= 0 else 0.0,
        )  # fmt: skip
        return Decision(Plan(actions=(action,)), state)


def _looked_up(view: DispatchView, plan: SizePlan, state: SizeAwareState) -> SizeAwareState:
    """The state for this table and plan: the one given while it holds for them."""
    keys, columns = view.instances.keys, view.columns
    names = tuple(column.name for column in plan.columns)
    if state.keys == keys and state.columns == columns and state.names == names:
        return state
    rows: dict[str, list[int]] = {name: [] for name in names}
    others: list[int] = []
    known = columns if len(columns) == len(keys) else ("",) * len(keys)
    for row, name in enumerate(known):
        rows.get(name, others).append(row)
    return SizeAwareState(
        keys=keys, columns=columns, names=names, members=tuple(tuple(rows[name]) for name in names),
        others=tuple(others),
    )  # fmt: skip


def _chosen(view: DispatchView, plan: SizePlan, state: SizeAwareState) -> _Best:
    """The row meant for the request, or able, or at least large enough; a row of no plan where that is less full."""
    request = view.request
    loads = _loads_of(
        view.instances, request.prompt_tokens, request.expected_output_tokens, request.longest_tokens
    )
    meant, able, fitting = _search(view, plan, state.members, loads)
    best = meant if meant.row >= 0 and meant.fill < BEHIND else able if able.row >= 0 else meant
    best = best if best.row >= 0 else fitting
    if state.others and not best.fill < BEHIND:
        other = _Best()
        _offer_unplanned(other, state.others, loads)
        if other.fill < (BEHIND if best.row >= 0 else math.inf):
            best = other
    return best


def _search(
    view: DispatchView, plan: SizePlan, members: tuple[tuple[int, ...], ...], loads: _Loads
) -> tuple[_Best, _Best, _Best]:
    """The least full row of the columns meant for the request, of those able to serve it, and of all it fits into."""
    request = view.request
    own = plan.of(request.request_class)
    prompt, output = float(request.prompt_tokens), float(request.expected_output_tokens)
    corners, upper = _corners(plan, prompt, output)
    meant, able, fitting = _Best(), _Best(), _Best()
    for number, listed in enumerate(members):
        if not listed:
            continue
        column = plan.columns[number]
        rows = np.array(listed, dtype=np.int64)
        fills = _fills(own, column, loads, rows, prompt)
        at = int(fills.argmin())
        fill = float(fills[at])
        if fill == math.inf:
            continue
        fits = own.able[number][upper] and _first_seconds(column, prompt) <= own.ttft_seconds
        shares = own.shares[number]
        share = sum(weight * shares[cell] for cell, weight in corners)
        for wanted, best in ((fits and share > LEAST_SHARE, meant), (fits, able), (True, fitting)):
            if wanted:
                best.offer(int(rows[at]), fill)
    return meant, able, fitting


def _offer_unplanned(best: _Best, listed: tuple[int, ...], loads: _Loads) -> None:
    """Offer the rows that the plan knows nothing of, by the room of their caches alone."""
    fills = loads.room[np.array(listed, dtype=np.int64)]
    for row, fill in zip(listed, fills.tolist(), strict=True):
        if fill < math.inf:
            best.offer(row, fill)


class _Loads(NamedTuple):
    """What each row of a table would have with a request [rows]: tokens of prompts that are not computed yet, tokens held or owed
    (half of the answer with them), requests, and the share of its cache's room that is then taken, infinite where it is shut.
    """

    queued: Floats
    held: Floats
    requests: Floats
    room: Floats


def _loads_of(table: InstanceTable, prompt: float, output: float, longest: float) -> _Loads:
    """The loads of all rows with a request that may come to `longest` tokens. A row that has not reported is empty but for
    what is pending; one that is not ready, has no weight, or a cache smaller than the request is shut.
    """
    capacity = table.kv_capacity_tokens
    queued = _known(table.kv_reserved_tokens) + _known(table.pending_tokens)
    queued += prompt
    held = _known(capacity - table.kv_free_tokens)
    held += queued
    held += 0.5 * output
    requests = _known(table.running) + _known(table.waiting)
    requests += _known(table.pending)
    requests += 1.0
    open_rows = (table.ready > 0.0) & (table.route_weight > 0.0) & ~(capacity < longest)
    room = np.where(open_rows, held / np.where(capacity > 0.0, capacity, math.inf), math.inf)
    return _Loads(queued, held, requests, room)


def fills_of(
    own: ClassPlan,
    column: PlannedColumn,
    table: InstanceTable,
    rows: NDArray[np.int64],
    prompt: float,
    output: float,
) -> Floats:
    """How full each of `rows` would be with a request of `prompt` and `output` tokens [rows]; 1 is all it may be."""
    return _fills(own, column, _loads_of(table, prompt, output, prompt + output), rows, prompt)


def _fills(
    own: ClassPlan, column: PlannedColumn, loads: _Loads, rows: NDArray[np.int64], prompt: float
) -> Floats:
    steps, queued = column.steps, loads.queued[rows]
    step = (steps.request_seconds + column.refill_seconds) * loads.requests[rows]
    step += steps.context_seconds * loads.held[rows]
    step += steps.base_seconds
    first = (queued / steps.chunk_tokens + 1.0) * step
    first += queued * steps.prompt_seconds
    first += steps.pair_seconds * prompt * prompt
    step /= min(own.tpot_seconds, column.tpot_seconds)
    first /= own.ttft_seconds
    fills: Floats = np.maximum(np.maximum(loads.room[rows], step), first)
    return fills


def _known(values: Floats) -> Floats:
    """The values with nothing where one is missing (a tenth of the time of `numpy.nan_to_num`)."""
    found: Floats = np.where(np.isnan(values), 0.0, values)
    return found


def _first_seconds(column: PlannedColumn, prompt: float) -> float:
    """Time to the first token of a prompt alone on a row at half its promised step time."""
    steps = column.steps
    chunks = math.ceil(prompt / steps.chunk_tokens)
    own = prompt * steps.prompt_seconds + steps.pair_seconds * prompt * prompt
    return own + 0.5 * column.tpot_seconds * chunks


def _corners(plan: SizePlan, prompt: float, output: float) -> tuple[tuple[tuple[int, float], ...], int]:
    """Cells whose plan a size blends, with their weights, and the cell of its upper corner."""
    width = len(plan.output_edges)
    row, down = hat(plan.input_edges, prompt)
    column, right = hat(plan.output_edges, output)
    cells = (
        ((row + i) * width + column + j, (down if i else 1.0 - down) * (right if j else 1.0 - right))
        for i in (0, 1)
        for j in (0, 1)
    )
    upper = (row + (down > 0.0)) * width + column + (right > 0.0)
    if not plan.blend:
        return ((upper, 1.0),), upper
    return tuple((cell, weight) for cell, weight in cells if weight > 0.0), upper
