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
from simulator.physics.sequence import EngineLoad


class Rows:
    """Columns over the instances named `keys`; `table` borrows them."""

    __slots__ = ("_columns", "_unreported", "ready_count", "table")

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
        self._columns = columns
        self._unreported: list[deque[tuple[float, int]]] = [deque() for _ in keys]
        self.ready_count = count
        self._publish(tuple(keys))

    def _publish(self, keys: tuple[str, ...]) -> None:
        borrowed = {name: column.view() for name, column in self._columns.items()}
        self.table = InstanceTable(keys=keys, **borrowed).freeze()

    def sent(self, row: int, at_seconds: float, tokens: int) -> None:
        """Charge a request of so many prompt tokens until a report accounts for it."""
        self._unreported[row].append((at_seconds, tokens))
        self._columns["pending"][row] += 1.0
        self._columns["pending_tokens"][row] += tokens

    def report(self, row: int, load: EngineLoad, made_seconds: float) -> None:
        """Take in what an engine said of itself at `made_seconds`."""
        columns, unreported = self._columns, self._unreported[row]
        columns["observed_seconds"][row] = made_seconds
        columns["running"][row] = load.running
        columns["waiting"][row] = load.waiting
        columns["kv_free_tokens"][row] = load.kv_free_tokens
        columns["kv_reserved_tokens"][row] = load.queued_tokens
        if unreported and unreported[0][0] <= made_seconds:
            while unreported and unreported[0][0] <= made_seconds:
                unreported.popleft()
            columns["pending"][row] = len(unreported)
            columns["pending_tokens"][row] = sum(tokens for _, tokens in unreported)

    def join(self, key: str, capacity_tokens: int) -> int:
        """A row for one more instance: ready, unloaded, and of the weight that the others have on average. Its number."""
        count = len(self._unreported)
        fresh = Rows([key], [capacity_tokens])
        self._columns = {
            name: np.append(column, fresh._columns[name]) for name, column in self._columns.items()
        }
        if count:
            self._columns["route_weight"][count] = self._columns["route_weight"][:count].mean()
        self._unreported.append(deque())
        self.ready_count += 1
        self._publish((*self.table.keys, key))
        return count

    def leave(self, row: int) -> None:
        """An instance is gone; the rows after it move up."""
        self.ready_count -= int(self._columns["ready"][row])
        self._columns = {name: np.delete(column, row) for name, column in self._columns.items()}
        del self._unreported[row]
        keys = self.table.keys
        self._publish(keys[:row] + keys[row + 1 :])

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
            columns["kv_free_tokens"][row] = columns["kv_capacity_tokens"][row]
            for name in ("pending", "pending_tokens", "running", "waiting", "kv_reserved_tokens"):
                columns[name][row] = 0.0
