"""Hypothesis builds of any struct of the core from its annotations: finite numbers, tables with NaN."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec
import numpy as np
from hypothesis import strategies as st

from cluster.tables import Table

WORDS = st.text(alphabet='abz/@|#é"\\ 0', max_size=6)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.integers(-(2**63), 2**63 - 1)
LEAVES = st.none() | st.booleans() | COUNTS | NUMBERS | WORDS
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
COLUMN = st.lists(st.floats(width=64), max_size=3).map(lambda values: np.array(values, dtype="float64"))
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    int: COUNTS, float: NUMBERS, str: WORDS, bool: st.booleans(), type(None): st.none(), object: JSON, Any: JSON,
}  # fmt: skip


@cache
def build(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type: a struct, a table, or what their fields are annotated with."""
    if kind in PLAIN:
        return PLAIN[kind]
    if isinstance(kind, typing.TypeVar):
        return build(kind.__bound__)
    if kind is np.ndarray or typing.get_origin(kind) is not None:
        return _generic(typing.get_origin(kind) or kind, typing.get_args(kind))
    if issubclass(kind, enum.Enum):
        return st.sampled_from(kind)
    if issubclass(kind, Table):
        return st.integers(0, 3).flatmap(lambda rows: _table(kind, rows))
    assert issubclass(kind, msgspec.Struct), f"no build for {kind}"
    return st.builds(kind, **{field.name: build(field.type) for field in msgspec.structs.fields(kind)})


def _generic(origin: Any, inner: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    if origin is np.ndarray:
        return COLUMN
    if origin in (typing.Union, types.UnionType):
        return st.one_of([build(each) for each in inner])
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin is tuple:
        return st.lists(build(inner[0]), max_size=2).map(tuple)
    assert origin in (dict, Mapping), f"no build for {origin}"
    return st.dictionaries(build(inner[0]), build(inner[1]), max_size=2)


def _table(kind: type[Table], rows: int) -> st.SearchStrategy[Table]:
    columns = {name: _column(kind.dtypes().get(name, "float64"), rows) for name in kind.columns()}
    keys = st.lists(WORDS, min_size=rows, max_size=rows, unique=True)
    return st.builds(kind.build, keys, st.fixed_dictionaries(columns))


def _column(dtype: str, rows: int) -> st.SearchStrategy[Any]:
    values = COUNTS if dtype == "int64" else st.floats(width=64)
    return st.lists(values, min_size=rows, max_size=rows).map(lambda v: np.array(v, dtype=dtype))


def subclasses(base: type[Any]) -> list[type[Any]]:
    """Every class without children below a base, by name."""
    found: set[type[Any]] = set()
    frontier = list(base.__subclasses__())
    while frontier:
        each = frontier.pop()
        below = each.__subclasses__()
        frontier += below
        if not below:
            found.add(each)
    return sorted(found, key=lambda kind: kind.__name__)
