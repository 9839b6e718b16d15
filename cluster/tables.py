"""Fast facts: typed numpy columns with row keys, and how old each row is.

A missing number is NaN here (never in an object), and every policy must cope with it. Columns are
borrowed read-only: `freeze` clears the write flag at publication.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import msgspec
import numpy as np

Column = np.ndarray[Any, np.dtype[Any]]


class Table(msgspec.Struct, frozen=True, gc=False, kw_only=True, eq=False, forbid_unknown_fields=True):
    """Base of all tables: `keys` [n] and `observed_seconds` float64 [n], plus the columns of the subclass.

    Two tables are equal when keys and all columns are, with NaN equal to NaN.
    """

    keys: tuple[str, ...]
    observed_seconds: Column

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names of the numpy columns, in declaration order."""
        return _columns_of(cls)

    @classmethod
    def dtypes(cls) -> dict[str, str]:
        """Column name to numpy dtype; float64 unless the subclass says otherwise."""
        return {}

    @classmethod
    def build(cls, keys: Sequence[str], columns: Mapping[str, Sequence[Any] | Column]) -> Self:
        """Make a table; columns not given are NaN (floats) or 0 (integers, booleans).

        Raises ValueError when a column's length is not the number of keys or a name is unknown.
        """
        unknown = sorted(set(columns) - set(cls.columns()))
        if unknown:
            raise ValueError(
                f"{cls.__name__} has no column {unknown[0]!r}; it has {', '.join(cls.columns())}"
            )
        arrays: dict[str, Column] = {}
        for name in cls.columns():
            dtype = np.dtype(cls.dtypes().get(name, "float64"))
            if name in columns:
                array = np.array(columns[name], dtype=dtype)
            else:
                array = np.full(len(keys), np.nan if dtype.kind == "f" else 0, dtype=dtype)
            if array.shape != (len(keys),):
                raise ValueError(f"{cls.__name__}.{name} has {array.shape}, but there are {len(keys)} keys")
            arrays[name] = array
        return cls(keys=tuple(keys), **arrays).freeze()

    @classmethod
    def empty(cls) -> Self:
        """A table without rows."""
        return cls.build((), {})

    def freeze(self) -> Self:
        """Make every column read-only in place and return the table."""
        for name in self.columns():
            getattr(self, name).setflags(write=False)
        return self

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.keys)

    def __bool__(self) -> bool:
        """True: a table is a fact even without rows."""
        return True

    def __eq__(self, other: object) -> bool:
        """Compare keys and columns, NaN equal to NaN."""
        if type(other) is not type(self):
            return NotImplemented
        return self.keys == other.keys and all(
            np.array_equal(
                getattr(self, name), getattr(other, name), equal_nan=_is_float(getattr(self, name))
            )
            for name in self.columns()
        )

    def __hash__(self) -> int:
        """Hash of the row keys (columns are compared by equality only)."""
        return hash(self.keys)

    def index(self) -> dict[str, int]:
        """Row key to row number."""
        return {key: row for row, key in enumerate(self.keys)}

    def rows(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each key with its row as a dict of Python scalars; for people and tests, not for hot paths."""
        for row, key in enumerate(self.keys):
            yield key, {name: getattr(self, name)[row].item() for name in self.columns()}

    def digest(self) -> str:
        """Content hash, to prove that a borrowed view was not written to."""
        hasher = hashlib.blake2b("\0".join(self.keys).encode(), digest_size=16)
        for name in self.columns():
            hasher.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        return hasher.hexdigest()


@functools.cache
def _columns_of(table: type[Table]) -> tuple[str, ...]:
    return tuple(name for name in table.__struct_fields__ if name != "keys")


def _is_float(array: Column) -> bool:
    return array.dtype.kind == "f"


class NodeTable(Table, frozen=True, gc=False, kw_only=True, eq=False):
    """Per node: power now, what capping saves, phase, clock, lease and safe watts, settable range, load.

    `demand_watts` is the uncapped-equivalent draw (watts + saved), what the node would take if free.
    """

    watts: Column
    saved_watts: Column
    prefill_share: Column
    clock_mhz: Column
    lease_watts: Column
    lease_expires_seconds: Column
    safe_watts: Column
    min_watts: Column
    max_watts: Column
    demand_watts: Column
    utilisation: Column
    memory_used_bytes: Column


class InstanceTable(Table, frozen=True, gc=False, kw_only=True, eq=False):
    """Per awake replica: KV, queue, pending since the last report, step-time fit, weight and speed.

    `kv_reserved_tokens` are asked for but not taken: what waits, and room set aside for moves.
    `pending` counts requests dispatched since the report; `pending_tokens` their prompt tokens.
    Step time = step_base + step_per_request * running + step_per_token * context tokens, seconds.
    `ready` is 1 for rows dispatch may choose.
    """

    kv_free_tokens: Column
    kv_capacity_tokens: Column
    kv_reserved_tokens: Column
    running: Column
    waiting: Column
    head_wait_seconds: Column
    pending: Column
    pending_tokens: Column
    step_base_seconds: Column
    step_per_request_seconds: Column
    step_per_token_seconds: Column
    route_weight: Column
    speed: Column
    prefill_tokens_per_second: Column
    ready: Column


class SequenceTable(Table, frozen=True, gc=False, kw_only=True, eq=False):
    """Per running request: where it lives, ownership epoch, context, unique tokens, class, moves, residence.

    `instance` is the row number in the view's `InstanceTable`.
    """

    instance: Column
    epoch: Column
    context_tokens: Column
    unique_tokens: Column
    priority: Column
    moves: Column
    resident_seconds: Column

    @classmethod
    def dtypes(cls) -> dict[str, str]:
        """Row numbers and counts are integers."""
        return {"instance": "int64", "epoch": "int64", "moves": "int64"}


class DomainTable(Table, frozen=True, gc=False, kw_only=True, eq=False):
    """Per power domain, parents before children: limit after feeds and margin, meter, breaker state.

    `parent` is the parent's row number, -1 for a root; `degraded` is 1 when meter and nodes disagree.
    """

    parent: Column
    limit_watts: Column
    rating_watts: Column
    meter_watts: Column
    accumulator: Column
    degraded: Column

    @classmethod
    def dtypes(cls) -> dict[str, str]:
        """Watts limits are integers, so that sums are exact."""
        return {"parent": "int64", "limit_watts": "int64", "rating_watts": "int64"}


class SignalTable(Table, frozen=True, gc=False, kw_only=True, eq=False):
    """Per service: rates, concurrency, latency and idleness as measured by the gateways.

    `last_arrival_seconds` is UTC (NaN = never seen a request). `size_plans` is 1 where every gateway that reports dispatches
    by plans of size, 0 where one does not.
    """

    requests_per_second: Column
    held: Column
    rejected_per_second: Column
    concurrency: Column
    ttft_p99_seconds: Column
    tpot_p99_seconds: Column
    last_arrival_seconds: Column
    size_plans: Column


class CollectiveTable(Table, frozen=True, gc=False, kw_only=True, eq=False):
    """Per rank of a gang: collective sequence number, time entered and left, bytes."""

    sequence: Column
    entered_seconds: Column
    left_seconds: Column
    bytes: Column
