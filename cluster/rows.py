"""Growing columns behind the published tables: fold in place, copy at publication."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

import numpy as np

from cluster.tables import Column, Table

TableT = TypeVar("TableT", bound=Table)


class Rows(Generic[TableT]):
    """Mutable rows of one table. Rows are published in sorted key order; a missing value is NaN."""

    def __init__(self, table: type[TableT]) -> None:
        """Start without rows."""
        self._table = table
        self._index: dict[str, int] = {}
        self._free: list[int] = []
        self._columns: dict[str, Column] = {}
        self._block: Column | None = None
        self._lay({name: self._blank(name, 16) for name in table.columns()})
        self._published: TableT | None = None
        self._sorted: tuple[tuple[str, ...], Column | None] | None = None

    def _lay(self, columns: dict[str, Column]) -> None:
        """Take these columns; in one block where they are all of one type, so that they are copied at once."""
        self._columns = columns
        if len({column.dtype for column in columns.values()}) == 1:
            self._block = np.array(list(columns.values()))
            self._columns = dict(zip(columns, self._block, strict=True))

    def _blank(self, name: str, size: int) -> Column:
        dtype = np.dtype(self._table.dtypes().get(name, "float64"))
        return np.full(size, np.nan if dtype.kind == "f" else 0, dtype=dtype)

    def set(self, key: str, observed_seconds: float, values: Mapping[str, float]) -> None:
        """Write values of a row (made if new). Unknown columns are ignored: an older operator may read
        a newer agent.
        """
        row = self._index.get(key)
        if row is None:
            row = self._index[key] = self._free.pop() if self._free else self._grow()
            self._sorted = None
        self._columns["observed_seconds"][row] = observed_seconds
        for name, value in values.items():
            column = self._columns.get(name)
            if column is not None:
                column[row] = value
        self._published = None

    def _grow(self) -> int:
        row = len(self._index)
        if row >= len(self._columns["observed_seconds"]):
            self._lay(
                {
                    name: np.concatenate([column, self._blank(name, len(column))])
                    for name, column in self._columns.items()
                }
            )
        return row

    def get(self, key: str, column: str) -> float:
        """One value, NaN when the row is unknown."""
        row = self._index.get(key)
        return float("nan") if row is None else float(self._columns[column][row])

    def remove(self, key: str) -> None:
        """Forget a row."""
        row = self._index.pop(key, None)
        if row is not None:
            for name, column in self._columns.items():
                column[row] = self._blank(name, 1)[0]
            self._free.append(row)
            self._published = self._sorted = None

    def __contains__(self, key: str) -> bool:
        """Whether the row exists."""
        return key in self._index

    def publish(self) -> TableT:
        """An immutable copy, rows by sorted key; the same object until something changes."""
        if self._published is None:
            keys, rows = self._sorted = self._sorted or self._sort()
            pick = slice(len(keys)) if rows is None else rows
            if self._block is not None:
                block = np.array(self._block[:, pick])
                block.setflags(write=False)  # and so are its views
                self._published = self._table(keys=keys, **dict(zip(self._columns, block, strict=True)))
            else:
                columns = {name: np.array(column[pick]) for name, column in self._columns.items()}
                self._published = self._table(keys=keys, **columns).freeze()
        return self._published

    def _sort(self) -> tuple[tuple[str, ...], Column | None]:
        """Keys in their order and where their rows are; None where the rows stand in that order."""
        keys = tuple(sorted(self._index))
        rows = [self._index[key] for key in keys]
        if rows == list(range(len(keys))):
            return keys, None
        return keys, np.array(rows, dtype=np.intp)
