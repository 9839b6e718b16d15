"""Dispatch by size, as a selection planned it: each request to the variant its size was planned for, else where there is room.

The plan (`placement/selection`) says which share of each size of request goes to which variant. A request between four grid
points takes the bilinear blend of their shares; a variant with more than `LEAST_SHARE` of it is meant for it. Of the rows of
all variants meant for it, the request goes to the one that is least full; when that one is behind (fill 1 or more), to the
least full row of any variant that can serve it in time. How full a row would be with the request is the largest of

* tokens it would hold over the room of its KV cache,
* its step time, base + per request x requests + per token x tokens held, over the promised time per output token,
* time until the request's first token, (queued + own prompt) through the chunks of the steps, over the promised time to it.

Requests sent since a row's last report count as queued there, so one snapshot does not make all of them go one way.
Without a plan for any row it is `least_outstanding`. Rows whose cache is smaller than the request are passed over.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.actions import Dispatch
from cluster.plan import Context, Decision, Plan
from cluster.tables import InstanceTable
from cluster.views import DispatchView
from policies.dispatch.least_outstanding import LeastOutstanding, LeastOutstandingConfig
from policies.dispatch.waiting import wait
from policies.shapes import hat

Floats = NDArray[np.float64]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]
Natural = Annotated[float, msgspec.Meta(ge=0.0)]

LEAST_SHARE = 0.02
"""Share of a size from which a variant counts as meant for it: less is the blend's own dust."""

BEHIND = 1.0
"""Fill from which a row keeps no promise to a newcomer, so that others are looked at."""


class SizedPool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rows of one variant, its shares of each size, and how long its steps take.

    `rows` are instance names. `shares` and `able` are row-major [inputs x outputs]: the planned share, and whether the
    variant keeps the objective there at all. A step takes `base_seconds` + `request_seconds` a running request +
    `context_seconds` a token held; a prompt of n tokens `prompt_seconds` n + `pair_seconds` n² besides, in chunks of
    `chunk_tokens`.
    """

    name: str
    rows: tuple[str, ...]
    shares: tuple[float, ...]
    able: tuple[bool, ...]
    base_seconds: Natural
    request_seconds: Natural
    context_seconds: Natural
    prompt_seconds: Natural
    pair_seconds: Natural = 0.0
    chunk_tokens: Annotated[int, msgspec.Meta(ge=1)] = 2_048


class SizeAwareConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the policy: the plan's grid and pools, and the objective that fills are measured against.

    `input_edges`: prompt tokens of the grid's points, rising. `output_edges`: the same of answers. `pools`: the plan, a pool for each
    variant; without any it is `least_outstanding`. `ttft_seconds`: promised time to the first token. `tpot_seconds`: and per
    further one. `retry_after_seconds`: what a refused client is told when nobody knows how long a start takes. `blend`:
    whether shares are blended between grid points; if not, they are of buckets, each named by its upper edges.

    Raises ValueError for a grid that does not rise, or a pool whose shares do not cover it.
    """

    input_edges: tuple[float, ...] = ()
    output_edges: tuple[float, ...] = ()
    pools: tuple[SizedPool, ...] = ()
    ttft_seconds: Positive = 2.0
    tpot_seconds: Positive = 0.1
    retry_after_seconds: Natural = 5.0
    blend: bool = True

    def __post_init__(self) -> None:
        cells = len(self.input_edges) * len(self.output_edges)
        for name, edges in (("input_edges", self.input_edges), ("output_edges", self.output_edges)):
            if any(b <= a for a, b in itertools.pairwise(edges)):
                raise ValueError(f"{name} are {edges}; list token counts that rise strictly")
        for pool in self.pools:
            if not cells or len(pool.shares) != cells or len(pool.able) != cells:
                raise ValueError(
                    f"pool {pool.name!r} has {len(pool.shares)} shares and {len(pool.able)} marks for {cells} sizes; "
                    "give one of each for every size of the grid"
                )


class SizeAwareState(msgspec.Struct, frozen=True, kw_only=True):
    """Row numbers of each pool [pools] in a table of these keys, so that they are looked up once; nothing is learned."""

    schema: int = 1
    keys: tuple[str, ...] = ()
    members: tuple[tuple[int, ...], ...] = ()


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
        if state.keys != view.instances.keys:
            state = self._looked_up(view.instances)
        if not any(state.members):
            return Decision(self._plain.decide(view, self._plain.initial(), ctx).plan, state)
        meant, able, fitting = self._search(view, state.members)
        best = meant if meant.row >= 0 and meant.fill < BEHIND else able if able.row >= 0 else meant
        best = best if best.row >= 0 else fitting
        if best.row < 0:
            return Decision(wait(view, ctx, self._config.retry_after_seconds), state)
        keys = view.instances.keys
        action = Dispatch(
            reason=-1, request=view.request.id, instance=keys[best.row], code="SizePlanned", score=best.fill,
            runner_up=keys[best.second] if best.second >= 0 else "",
            runner_up_score=best.second_fill if best.second >= 0 else 0.0,
        )  # fmt: skip
        return Decision(Plan(actions=(action,)), state)

    def _looked_up(self, table: InstanceTable) -> SizeAwareState:
        index = table.index()
        members = tuple(
            tuple(index[name] for name in pool.rows if name in index) for pool in self._config.pools
        )
        return SizeAwareState(keys=table.keys, members=members)

    def _search(self, view: DispatchView, members: tuple[tuple[int, ...], ...]) -> tuple[_Best, _Best, _Best]:
        """The least full row of the variants meant for the request, of those able to serve it, and of all it fits into."""
        config, request, table = self._config, view.request, view.instances
        size = (float(request.prompt_tokens), float(request.expected_output_tokens))
        corners, upper = _corners(config, *size)
        needed = request.prompt_tokens + request.expected_output_tokens
        meant, able, fitting = _Best(), _Best(), _Best()
        for pool, listed in zip(config.pools, members, strict=True):
            if not listed:
                continue
            rows = np.array(listed, dtype=np.int64)
            fills = fills_of(config, pool, table, rows, *size)
            shut = ~(table.ready[rows] > 0.0) | (table.kv_capacity_tokens[rows] < needed)
            fills[shut] = math.inf
            at = int(fills.argmin())
            fill = float(fills[at])
            if fill == math.inf:
                continue
            fits = pool.able[upper] and _first_seconds(config, pool, size[0]) <= config.ttft_seconds
            share = sum(weight * pool.shares[cell] for cell, weight in corners)
            for wanted, best in ((fits and share > LEAST_SHARE, meant), (fits, able), (True, fitting)):
                if wanted:
                    best.offer(int(rows[at]), fill)
        return meant, able, fitting


def fills_of(
    config: SizeAwareConfig,
    pool: SizedPool,
    table: InstanceTable,
    rows: NDArray[np.int64],
    prompt: float,
    output: float,
) -> Floats:
    """How full each of `rows` would be with a request of `prompt` and `output` tokens [rows]; 1 is all it may be.

    A row that has not reported is empty but for what is pending.
    """
    capacity = table.kv_capacity_tokens[rows]
    queued = _known(table.kv_reserved_tokens[rows]) + _known(table.pending_tokens[rows]) + prompt
    held = _known(capacity - table.kv_free_tokens[rows]) + queued + 0.5 * output
    requests = _known(table.running[rows]) + _known(table.waiting[rows]) + _known(table.pending[rows]) + 1.0
    step = pool.base_seconds + pool.request_seconds * requests + pool.context_seconds * held
    first = queued * pool.prompt_seconds + pool.pair_seconds * prompt * prompt
    first += (queued / pool.chunk_tokens + 1.0) * step
    room = held / np.where(capacity > 0.0, capacity, math.inf)
    fills: Floats = np.maximum(np.maximum(room, step / config.tpot_seconds), first / config.ttft_seconds)
    return fills


def _known(values: Floats) -> Floats:
    found: Floats = np.nan_to_num(values)
    return found


def _first_seconds(config: SizeAwareConfig, pool: SizedPool, prompt: float) -> float:
    """Time to the first token of a prompt alone on a row at half its promised step time."""
    chunks = math.ceil(prompt / pool.chunk_tokens)
    own = prompt * pool.prompt_seconds + pool.pair_seconds * prompt * prompt
    return own + 0.5 * config.tpot_seconds * chunks


def _corners(
    config: SizeAwareConfig, prompt: float, output: float
) -> tuple[tuple[tuple[int, float], ...], int]:
    """Cells whose plan a size blends, with their weights, and the cell of its upper corner."""
    width = len(config.output_edges)
    row, down = hat(config.input_edges, prompt)
    column, right = hat(config.output_edges, output)
    cells = (
        ((row + i) * width + column + j, (down if i else 1.0 - down) * (right if j else 1.0 - right))
        for i in (0, 1)
        for j in (0, 1)
    )
    upper = (row + (down > 0.0)) * width + column + (right > 0.0)
    if not config.blend:
        return ((upper, 1.0),), upper
    return tuple((cell, weight) for cell, weight in cells if weight > 0.0), upper
