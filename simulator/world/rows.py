"""What a gateway knows of the instances: the columns that a dispatch policy reads, written where they change.

A row has what its engine last reported, and as *pending* what was sent since: a report accounts for what had been sent
when it was made, not when it arrived.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.tables import InstanceTable


class Rows:
    """Columns over the instances named `keys`; `table` borrows them."""

    __slots__ = ("_columns", "_free", "_observed", "_owed", "_pending", "_queued", "_running", "_sent", "_unreported",
                 "_waiting", "ready_count", "table")  # fmt: skip

    def __init__(self, keys: Sequence[str], capacity_tokens: Sequence[int]) -> None:
        """Rows are ready, unloaded and of equal weight until something else is said."""
        count = len(keys)
        columns: dict[str, NDArray[np.float64]] = {
            name: np.full(count, np.nan) for name in InstanceTable.columns()
        }
        for name in ("pending", "pending_tokens", "running", "waiting", "kv_reserved_tokens"):
            columns[name][:] = 0.0
        columns["ready"][:] = 1.0
        columns["route_weight"][:] = 1.0 / max(count, 1)
        columns["kv_capacity_tokens"][:] = capacity_tokens
        columns["kv_free_tokens"][:] = capacity_tokens
        self._unreported: list[deque[tuple[float, int]]] = [deque() for _ in keys]
        self._owed = [0] * count
        self.ready_count = count
        self._publish(tuple(keys), columns)

    def _publish(self, keys: tuple[str, ...], columns: dict[str, NDArray[np.float64]]) -> None:
        """Take these columns, and those written for each report out of their dictionary."""
        self._columns = columns
        self._observed, self._free = columns["observed_seconds"], columns["kv_free_tokens"]
        self._running, self._waiting = columns["running"], columns["waiting"]
        self._queued = columns["kv_reserved_tokens"]
        self._pending, self._sent = columns["pending"], columns["pending_tokens"]
        borrowed = {name: column.view() for name, column in columns.items()}
        self.table = InstanceTable(keys=keys, **borrowed).freeze()

    def sent(self, row: int, at_seconds: float, tokens: int) -> None:
        """Charge a request of so many prompt tokens until a report accounts for it."""
        unreported = self._unreported[row]
        unreported.append((at_seconds, tokens))
        owed = self._owed[row] = self._owed[row] + tokens
        self._pending[row] = len(unreported)
        self._sent[row] = owed

    def report(self, row: int, standing: tuple[int, int, int, int], made_seconds: float) -> None:
        """Take in what an engine said of itself (`EngineInstance.standing`) at `made_seconds`."""
        self._observed[row] = made_seconds
        self._running[row], self._waiting[row], self._free[row], self._queued[row] = standing
        unreported = self._unreported[row]
        if unreported and unreported[0][0] <= made_seconds:
            owed = self._owed[row]
            while unreported and unreported[0][0] <= made_seconds:
                owed -= unreported.popleft()[1]
            self._pending[row] = len(unreported)
            self._sent[row] = self._owed[row] = owed

    def told(
        self, row: int, standing: tuple[int, int, int, int], told_seconds: float, at_seconds: float
    ) -> None:
        """Take in what an engine is at `at_seconds` but for what was sent after `told_seconds`, which it has not told of.

        What is not told counts as pending below zero.
        """
        self._observed[row] = at_seconds
        self._running[row], self._waiting[row], self._free[row], self._queued[row] = standing
        unreported = self._unreported[row]
        while unreported and unreported[0][0] <= told_seconds:
            self._owed[row] -= unreported.popleft()[1]
        self._pending[row] = -len(unreported)
        self._sent[row] = -self._owed[row]

    def join(self, key: str, capacity_tokens: int) -> int:
        """A row for one more instance: ready, unloaded, and of the weight that the others have on average. Its number."""
        count = len(self._unreported)
        fresh = Rows([key], [capacity_tokens])
        columns = {name: np.append(column, fresh._columns[name]) for name, column in self._columns.items()}
        if count:
            columns["route_weight"][count] = columns["route_weight"][:count].mean()
        self._unreported.append(deque())
        self._owed.append(0)
        self.ready_count += 1
        self._publish((*self.table.keys, key), columns)
        return count

    def leave(self, row: int) -> None:
        """An instance is gone; the rows after it move up."""
        self.ready_count -= int(self._columns["ready"][row])
        del self._unreported[row], self._owed[row]
        keys = self.table.keys
        left = {name: np.delete(column, row) for name, column in self._columns.items()}
        self._publish(keys[:row] + keys[row + 1 :], left)

    def weigh(self, row: int, weight: float) -> None:
        """Put a route weight in force."""
        self._columns["route_weight"][row] = weight

    def open(self, row: int, ready: bool) -> None:
        """Say whether new requests may go to a row; one that opens is new and owns nothing."""
        columns = self._columns
        if bool(columns["ready"][row]) is ready:
            return
        self.ready_count += 1 if ready else -1
        columns["ready"][row] = float(ready)
        if ready:
            self._unreported[row].clear()
            self._owed[row] = 0
            columns["kv_free_tokens"][row] = columns["kv_capacity_tokens"][row]
            for name in ("pending", "pending_tokens", "running", "waiting", "kv_reserved_tokens"):
                columns[name][row] = 0.0
