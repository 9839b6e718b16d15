"""Instances of one service: who owns which requests, and the columns that the dispatch policy reads.

The facts of a row live in a `Row`; what the policy reads is mirrored in numpy columns at the moment it changes,
so that a dispatch builds nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cluster.tables import InstanceTable
from gateway.messages import EngineLoad, InstanceRoute, RouteState
from gateway.requests import Ticket


@dataclass(slots=True, eq=False)
class Row:
    """One instance. `open` are the requests it owns, by id.

    `absent`: the node's last frame did not list it, or listed it as not ready. `masked_until_seconds`: it
    refused a request and is left alone until then. `unreported` are (tick, requests, prompt tokens) of frames
    sent since the one that its last report accounts for.
    """

    route: InstanceRoute
    service: str
    index: int = 0
    connected: bool = False
    absent: bool = False
    masked_until_seconds: float = 0.0
    reported: EngineLoad | None = None
    reported_seconds: float = np.nan
    open: dict[int, Ticket] = field(default_factory=dict)
    unreported: deque[tuple[int, int, int]] = field(default_factory=deque)
    pending: int = 0
    pending_tokens: int = 0

    @property
    def name(self) -> str:
        """The replica's name."""
        return self.route.name

    @property
    def node(self) -> str:
        """The node it runs on."""
        return self.route.node

    def may_serve(self, now_seconds: float) -> bool:
        """Whether new requests may go to this row now."""
        return (
            self.route.state is RouteState.READY
            and self.route.weight > 0
            and self.connected
            and not self.absent
            and now_seconds >= self.masked_until_seconds
        )

    def account(self, tick: int) -> None:
        """Drop what a report of `tick` already contains from pending."""
        unreported = self.unreported
        while unreported and unreported[0][0] <= tick:
            _, requests, tokens = unreported.popleft()
            self.pending -= requests
            self.pending_tokens -= tokens


class Rows:
    """The rows of one service and their columns; `table` is what a `DispatchView` borrows, read-only."""

    __slots__ = ("_kv_capacity", "_kv_free", "_masked", "_observed", "_pending", "_pending_tokens", "_ready", "_running",
                 "_service", "_waiting", "_weight", "by_name", "columns", "ordered", "ready_count", "table")  # fmt: skip

    def __init__(self, service: str) -> None:
        self._service = service
        self.by_name: dict[str, Row] = {}
        self.ordered: list[Row] = []
        self._masked: list[Row] = []
        self.ready_count = 0
        self._publish()

    def replace(self, routes: Iterable[InstanceRoute]) -> list[Row]:
        """Take a new set of rows; return those that are gone.

        A row with the same name, uid and node is the same instance and keeps what it owns.
        """
        former, self.by_name, self.ordered = self.by_name, {}, []
        for route in sorted(routes, key=lambda route: route.name):
            row = former.get(route.name)
            if row is None or (row.route.uid, row.route.node) != (route.uid, route.node):
                row = Row(route, self._service)
            else:
                del former[route.name]
                row.route = route
            row.index = len(self.ordered)
            self.by_name[route.name] = row
            self.ordered.append(row)
        self._masked = [row for row in self._masked if self.by_name.get(row.name) is row]
        self._publish()
        return list(former.values())

    def refresh(self, row: Row, now_seconds: float) -> None:
        """Recompute whether a row may serve; call after any change of what `may_serve` reads."""
        ready = row.may_serve(now_seconds)
        if ready != bool(self._ready[row.index]):
            self._ready[row.index] = float(ready)
            self.ready_count += 1 if ready else -1

    def mask(self, row: Row, until_seconds: float, now_seconds: float) -> None:
        """Leave a row alone until then."""
        row.masked_until_seconds = max(row.masked_until_seconds, until_seconds)
        if row not in self._masked:
            self._masked.append(row)
        self.refresh(row, now_seconds)

    def unmask(self, now_seconds: float) -> None:
        """Bring back the rows whose mask has ended."""
        due = [row for row in self._masked if row.masked_until_seconds <= now_seconds]
        self._masked = [row for row in self._masked if row.masked_until_seconds > now_seconds]
        for row in due:
            self.refresh(row, now_seconds)

    def next_unmask_seconds(self) -> float:
        """When the next mask ends; infinite when there is none."""
        return min((row.masked_until_seconds for row in self._masked), default=math.inf)

    def submitted(self, row: Row, tick: int, prompt_tokens: int) -> None:
        """Charge one submission of frame `tick` to the row until a report accounts for it."""
        unreported = row.unreported
        if unreported and unreported[-1][0] == tick:
            _, requests, tokens = unreported[-1]
            unreported[-1] = (tick, requests + 1, tokens + prompt_tokens)
        else:
            unreported.append((tick, 1, prompt_tokens))
        row.pending += 1
        row.pending_tokens += prompt_tokens
        self._pending[row.index] = row.pending
        self._pending_tokens[row.index] = row.pending_tokens

    def report(self, row: Row, load: EngineLoad, tick: int, observed_seconds: float) -> None:
        """Take in what the engine says of itself."""
        row.reported = load
        row.reported_seconds = observed_seconds
        row.absent = not load.ready
        row.account(tick)
        self._mirror(row)

    def missing(self, row: Row, tick: int) -> None:
        """Take in that its node does not list it: what was sent up to `tick` never arrived."""
        row.absent = True
        row.account(tick)
        self._mirror(row)

    def clear(self, row: Row) -> None:
        """Forget the load of an instance that was lost: it owns nothing and nothing is on its way to it."""
        row.reported = None
        row.reported_seconds = np.nan
        row.unreported.clear()
        row.pending = row.pending_tokens = 0
        self._mirror(row)

    def _mirror(self, row: Row) -> None:
        index, load = row.index, row.reported
        self._observed[index] = row.reported_seconds
        self._running[index] = load.running if load else np.nan
        self._waiting[index] = load.waiting if load else np.nan
        self._kv_free[index] = load.kv_free_tokens if load else np.nan
        capacity = load.kv_capacity_tokens if load else row.route.kv_capacity_tokens
        self._kv_capacity[index] = capacity or np.nan
        self._pending[index] = row.pending
        self._pending_tokens[index] = row.pending_tokens
        self._weight[index] = row.route.weight

    def _publish(self) -> None:
        size = len(self.ordered)
        self.columns = tuple(row.route.column for row in self.ordered)
        self._observed, self._running, self._waiting = _column(size), _column(size), _column(size)
        self._kv_free, self._kv_capacity = _column(size), _column(size)
        self._pending, self._pending_tokens = np.zeros(size), np.zeros(size)
        self._weight, self._ready = np.zeros(size), np.zeros(size)
        self.ready_count = 0
        unknown = _column(size)
        self.table = InstanceTable(
            keys=tuple(row.name for row in self.ordered),
            observed_seconds=_borrowed(self._observed),
            kv_free_tokens=_borrowed(self._kv_free),
            kv_capacity_tokens=_borrowed(self._kv_capacity),
            kv_reserved_tokens=_borrowed(unknown),
            running=_borrowed(self._running),
            waiting=_borrowed(self._waiting),
            head_wait_seconds=_borrowed(unknown),
            pending=_borrowed(self._pending),
            pending_tokens=_borrowed(self._pending_tokens),
            step_base_seconds=_borrowed(unknown),
            step_per_request_seconds=_borrowed(unknown),
            step_per_token_seconds=_borrowed(unknown),
            route_weight=_borrowed(self._weight),
            speed=_borrowed(unknown),
            prefill_tokens_per_second=_borrowed(unknown),
            ready=_borrowed(self._ready),
        )
        for row in self.ordered:
            self._mirror(row)


def _column(size: int) -> NDArray[np.float64]:
    return np.full(size, np.nan)


def _borrowed(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """A read-only view on a column that only `Rows` writes."""
    view = column.view()
    view.flags.writeable = False
    return view
