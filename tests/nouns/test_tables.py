"""Tables and the growing columns behind them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.rows import Rows
from cluster.tables import DomainTable, InstanceTable, NodeTable, SequenceTable, SignalTable, Table


def three(**columns: Any) -> NodeTable:
    return NodeTable.build(("a", "b", "c"), columns)


def test_columns_that_are_not_given_are_nan_or_zero() -> None:
    table = SequenceTable.build(("s", "t"), {"context_tokens": [7, 8]})
    assert table.context_tokens.tolist() == [7.0, 8.0]
    assert table.context_tokens.dtype == np.float64
    assert np.isnan(table.unique_tokens).all()
    assert table.instance.tolist() == [0, 0]
    assert table.instance.dtype == np.int64


@pytest.mark.parametrize(
    ("kind", "integers"),
    [
        (NodeTable, set()),
        (InstanceTable, set()),
        (SignalTable, set()),
        (SequenceTable, {"instance", "epoch", "moves"}),
        (DomainTable, {"parent", "limit_watts", "rating_watts"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_only_counts_are_integers(kind: type[Table], integers: set[str]) -> None:
    table = kind.build(("x",), {})
    assert {name for name in kind.columns() if getattr(table, name).dtype == np.int64} == integers
    assert all(getattr(table, name).dtype == np.float64 for name in set(kind.columns()) - integers)
    assert kind.columns()[0] == "observed_seconds"
    assert "keys" not in kind.columns()


def test_a_column_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        ValueError, match="DomainTable has no column 'volts'; it has observed_seconds, parent, limit"
    ):
        DomainTable.build(("d",), {"volts": [1]})


@pytest.mark.parametrize(
    "values",
    [[1.0], [1.0, 2.0, 3.0, 4.0], [[1.0], [2.0], [3.0]], 1.0],
    ids=["short", "long", "two-dimensional", "one number"],
)
def test_a_column_of_another_length_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match=r"NodeTable.watts has \(.*\), but there are 3 keys"):
        three(watts=values)


def test_a_published_table_cannot_be_written_to() -> None:
    given_column = np.array([1.0, 2.0, 3.0])
    table = three(watts=given_column)
    with pytest.raises(ValueError, match="read-only"):
        table.watts[0] = 9.0
    given_column[0] = 9.0
    assert table.watts[0] == 1.0, "what was given was copied"
    with pytest.raises(AttributeError):
        table.watts = given_column  # type: ignore[misc]


def test_equality_is_by_content_with_nan_equal_to_nan() -> None:
    table = three(watts=[1.0, np.nan, 3.0])
    assert table == three(watts=[1.0, np.nan, 3.0])
    assert hash(table) == hash(three(watts=[1.0, np.nan, 3.0]))
    assert table != three(watts=[1.0, 2.0, 3.0])
    assert table != three(watts=[1.0, np.nan, 3.0], clock_mhz=[0, 0, 0])
    assert table != NodeTable.build(("a", "b", "d"), {"watts": [1.0, np.nan, 3.0]})
    assert NodeTable.empty() != InstanceTable.empty()
    assert table != "table"
    assert DomainTable.build(("d",), {"parent": [-1]}) != DomainTable.build(("d",), {"parent": [0]})


def test_a_table_is_true_even_without_rows() -> None:
    assert NodeTable.empty()
    assert len(NodeTable.empty()) == 0
    assert len(three()) == 3


def test_rows_are_found_by_key_and_shown_as_numbers() -> None:
    table = DomainTable.build(("row", "hall"), {"parent": [1, -1], "meter_watts": [5.5, np.nan]})
    assert table.index() == {"row": 0, "hall": 1}
    rows = dict(table.rows())
    assert rows["row"]["parent"] == 1
    assert type(rows["row"]["parent"]) is int
    assert rows["row"]["meter_watts"] == 5.5
    assert math.isnan(rows["hall"]["meter_watts"])
    assert list(rows) == ["row", "hall"]


def test_a_digest_changes_with_any_number_and_any_key() -> None:
    table = three(watts=[1.0, 2.0, 3.0])
    assert table.digest() == three(watts=[1.0, 2.0, 3.0]).digest()
    assert len(table.digest()) == 32
    assert table.digest() != three(watts=[1.0, 2.0, 3.5]).digest()
    assert table.digest() != three(clock_mhz=[1.0, 2.0, 3.0]).digest()
    assert table.digest() != NodeTable.build(("a", "b", "cd"), {"watts": [1.0, 2.0, 3.0]}).digest()
    assert NodeTable.build(("ab", "c"), {}).digest() != NodeTable.build(("a", "bc"), {}).digest()


# rows that grow


def test_a_row_keeps_what_is_not_told_again() -> None:
    rows = Rows(NodeTable)
    rows.set("a", 1.0, {"watts": 5.0, "clock_mhz": 900.0})
    rows.set("a", 2.0, {"watts": 6.0})
    assert (rows.get("a", "watts"), rows.get("a", "clock_mhz"), rows.get("a", "observed_seconds")) == (
        6.0,
        900.0,
        2.0,
    )


def test_what_is_unknown_is_nan_and_a_newer_agents_columns_are_skipped() -> None:
    rows = Rows(NodeTable)
    rows.set("a", 1.0, {"watts": 5.0, "furlongs": 3.0})
    assert math.isnan(rows.get("a", "clock_mhz"))
    assert math.isnan(rows.get("nobody", "watts"))
    assert "a" in rows
    assert "nobody" not in rows
    assert "furlongs" not in dict(rows.publish().rows())["a"]


def test_a_forgotten_row_leaves_nothing_to_the_next_one() -> None:
    rows = Rows(SequenceTable)
    rows.set("a", 1.0, {"context_tokens": 5.0, "moves": 2})
    rows.remove("a")
    rows.remove("a")
    assert rows.publish().keys == ()
    rows.set("b", 2.0, {})
    assert math.isnan(rows.get("b", "context_tokens"))
    assert rows.get("b", "moves") == 0.0
    assert "a" not in rows


def test_rows_are_published_by_key_whatever_the_order_they_came_in() -> None:
    rows = Rows(NodeTable)
    for key in ("c", "a", "b"):
        rows.set(key, 1.0, {"watts": ord(key)})
    assert rows.publish().keys == ("a", "b", "c")
    assert rows.publish().watts.tolist() == [97.0, 98.0, 99.0]


def test_the_same_object_is_published_until_something_changes() -> None:
    rows = Rows(NodeTable)
    rows.set("a", 1.0, {"watts": 1.0})
    first = rows.publish()
    assert rows.publish() is first
    rows.set("a", 2.0, {"watts": 2.0})
    second = rows.publish()
    assert second is not first
    assert first.watts.tolist() == [1.0], "an old table never changes"
    rows.remove("a")
    assert rows.publish() is not second
    with pytest.raises(ValueError, match="read-only"):
        second.watts[0] = 0.0


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefghijklmnopqrstuvwxyz"), st.booleans(), st.integers(0, 9)),
        max_size=120,
    )
)
def test_rows_hold_what_a_dictionary_would(steps: list[tuple[str, bool, int]]) -> None:
    rows, model = Rows(NodeTable), dict[str, float]()
    for time, (key, keep, value) in enumerate(steps):
        if keep:
            rows.set(key, float(time), {"watts": value})
            model[key] = float(value)
        else:
            rows.remove(key)
            model.pop(key, None)
    table = rows.publish()
    assert dict(zip(table.keys, table.watts.tolist(), strict=True)) == model
    assert list(table.keys) == sorted(model)


def test_more_rows_than_there_was_room_for() -> None:
    rows = Rows(NodeTable)
    for number in range(40):
        rows.set(f"n{number:02}", float(number), {"watts": number})
    table = rows.publish()
    assert table.watts.tolist() == list(range(40))
    assert table.observed_seconds.tolist() == list(range(40))
    assert np.isnan(table.clock_mhz).all()
