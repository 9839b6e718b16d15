"""JSON of everything the core is made of: nothing is lost, nothing strange gets in."""

from __future__ import annotations

import base64
import importlib
import json
import pkgutil
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cluster as core
from cluster import actions as act
from cluster import events as ev
from cluster import targets as aim
from cluster import views
from cluster.base import Noun, Ref
from cluster.checks import Checked
from cluster.codec import from_builtins, from_json, to_builtins, to_json
from cluster.hardware import Node, Slot
from cluster.plan import Evidence, Plan
from cluster.power import PowerDomain
from cluster.reasons import Reason
from cluster.snapshot import Snapshot
from cluster.tables import NodeTable, Table
from cluster.targets import Prices
from tests.nouns.builds import build, subclasses
from tests.nouns.cases import cluster, node

for module in pkgutil.iter_modules(core.__path__):
    importlib.import_module(f"cluster.{module.name}")  # a class is found once its module was imported

NOUNS = [kind for kind in subclasses(Noun) if kind.__module__.startswith("cluster.")]
TABLES = subclasses(Table)
VIEWS = [views.DispatchView, views.MigrationView, views.PowerView, views.FaultView]
OTHERS = [Ref, Reason, Evidence, act.Stamped, Checked]


def round_trip(value: Any, kind: Any) -> Any:
    data = to_json(value)
    again = from_json(data, kind)
    assert to_json(again) == data, "equal values have equal bytes"
    assert to_json(from_builtins(json.loads(json.dumps(to_builtins(value))), kind)) == data
    return again


@pytest.mark.parametrize("kind", [*NOUNS, *TABLES, *OTHERS], ids=lambda kind: kind.__name__)
@settings(max_examples=8)
@given(data=st.data())
def test_a_noun_or_table_survives_json(kind: Any, data: st.DataObject) -> None:
    value = data.draw(build(kind))
    assert round_trip(value, kind) == value


@pytest.mark.parametrize("kind", act.KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_an_action_survives_json_and_keeps_its_kind(kind: Any, data: st.DataObject) -> None:
    value = data.draw(build(kind))
    again = round_trip(value, act.AnyAction)
    assert again == value
    assert type(again) is kind
    assert again.kind == kind.__name__


@pytest.mark.parametrize("kind", subclasses(aim.Target), ids=lambda kind: kind.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_a_target_survives_json_and_has_a_key(kind: Any, data: st.DataObject) -> None:
    value = data.draw(build(kind))
    assert round_trip(value, aim.AnyTarget) == value
    assert aim.target_key(value).startswith(f"{kind.__name__}/")


@pytest.mark.parametrize("kind", subclasses(ev.Event), ids=lambda kind: kind.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_an_event_survives_json(kind: Any, data: st.DataObject) -> None:
    if kind is ev.Seen:  # objects of a recording carry their type in the mapping they belong to
        return
    value = data.draw(build(kind))
    assert round_trip(value, kind) == value


@pytest.mark.parametrize("kind", VIEWS, ids=lambda kind: kind.__name__)
@settings(max_examples=10)
@given(data=st.data())
def test_a_fast_view_survives_json(kind: Any, data: st.DataObject) -> None:
    round_trip(data.draw(build(kind)), kind)


@settings(max_examples=10)
@given(build(Plan))
def test_a_plan_survives_json(plan: Plan) -> None:
    assert round_trip(plan, Plan) == plan


@settings(max_examples=10)
@given(build(Snapshot))
def test_a_snapshot_survives_json(snapshot: Snapshot) -> None:
    assert round_trip(snapshot, Snapshot) == snapshot


def test_every_kind_of_thing_is_tried() -> None:
    names = {kind.__name__ for kind in NOUNS}
    assert {
        "Node",
        "Pool",
        "Service",
        "Gang",
        "Lease",
        "Beliefs",
        "Request",
        "EngineLaunch",
        "RankLaunch",
    } <= names
    assert {kind.__name__ for kind in TABLES} == {
        "NodeTable", "InstanceTable", "SequenceTable", "DomainTable", "SignalTable", "CollectiveTable",
    }  # fmt: skip
    assert len(subclasses(aim.Target)) == 10
    assert len(act.KINDS) == 29


# what a column looks like, and what cannot be one


def test_a_column_is_little_endian_and_says_its_type_and_shape() -> None:
    table = NodeTable.build(("a", "b"), {"observed_seconds": [1.0, 2.0]})
    column = to_builtins(table)["observed_seconds"]
    assert (column["dtype"], column["shape"]) == ("<f8", [2])
    assert base64.b64decode(column["base64"]) == np.array([1.0, 2.0], dtype="<f8").tobytes()


def test_a_column_of_the_other_byte_order_is_written_the_same() -> None:
    big, little = np.array([1.5, np.nan], dtype=">f8"), np.array([1.5, np.nan], dtype="<f8")
    assert to_json(big) == to_json(little)
    assert np.array_equal(from_json(to_json(big), np.ndarray), little, equal_nan=True)


@pytest.mark.parametrize("shape", [(4,), (2, 2), (0,), (1, 0)], ids=str)
def test_a_column_comes_back_in_its_shape_native_and_read_only(shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape), dtype="int64").reshape(shape)
    again = from_json(to_json(array), np.ndarray)
    assert again.shape == shape
    assert again.dtype == np.dtype("int64")
    assert again.dtype.isnative
    assert not again.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        again[...] = 0


def test_a_column_with_gaps_is_written_whole() -> None:
    every_other = np.arange(6, dtype="float64")[::2]
    assert from_json(to_json(every_other), np.ndarray).tolist() == [0.0, 2.0, 4.0]


def test_numpy_scalars_are_numbers() -> None:
    assert (
        to_json({"a": np.float64(1.5), "b": np.int64(2), "c": np.bool_(True)}) == b'{"a":1.5,"b":2,"c":true}'
    )


def test_what_has_no_json_form_says_so() -> None:
    with pytest.raises(
        NotImplementedError, match="complex has no JSON form; use a Struct, a number or a column"
    ):
        to_json({"x": 1j})
    with pytest.raises(NotImplementedError, match="has no JSON form"):
        to_builtins(object())


def test_a_type_that_cannot_be_read_says_so() -> None:
    with pytest.raises(NotImplementedError, match="cannot read <class 'complex'>"):
        from_json(b"1", complex)


def test_keys_are_sorted_so_that_equal_values_have_equal_bytes() -> None:
    assert to_json({"b": 1, "a": 2}) == b'{"a":2,"b":1}' == to_json({"a": 2, "b": 1})
    assert list(to_builtins({"b": 1, "a": 2})) == ["a", "b"]


# strange input


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        pytest.param(b'{"node":"a","devices":[0],"milli":5}', Slot, r"unknown field `milli`", id="a field nobody knows"),
        pytest.param(b'{"node":"a"}', Slot, r"missing required field `devices`", id="a field that is missing"),
        pytest.param(b'{"node":"a","devices":["0"]}', Slot, r"Expected `int`, got `str` - at `\$\.devices\[0\]`", id="text for a number"),
        pytest.param(b'{"node":"a","devices":[0.5]}', Slot, r"\$\.devices\[0\]", id="half a device"),
        pytest.param(b'{"ref":{"kind":"P","name":"n"},"rating_watts":null}', PowerDomain, r"got `null` - at `\$\.rating_watts`", id="nothing where a number must be"),
        pytest.param(b'{"actions":[{"action":"Explode","reason":0}]}', Plan, r"Explode.*\$\.actions\[\.\.\.\]\.action|Invalid value 'Explode'", id="an action nobody knows"),
        pytest.param(b'{"actions":[{"action":"Hold","request":"q","reason":0,"why":"x"}]}', Plan, r"unknown field `why`", id="an action with a field nobody knows"),
        pytest.param(b'{"notes":1}', Plan, r"unknown field `notes`", id="a plan with a field nobody knows"),
        pytest.param(b'{"pods":{}}', Snapshot, r"unknown field `pods`", id="a snapshot with a mapping nobody knows"),
        pytest.param(b'{"nodes":{"a":{"pool":"p"}}}', Snapshot, r"\$\.nodes\[\.\.\.\]", id="a broken noun inside a snapshot"),
    ],
)  # fmt: skip
def test_strange_json_is_refused_with_its_path(data: bytes, kind: Any, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        from_json(data, kind)
    with pytest.raises(msgspec.ValidationError, match=message):
        from_builtins(json.loads(data), kind)


def test_an_old_table_without_a_column_and_a_new_one_with_more_are_refused() -> None:
    plain = to_builtins(NodeTable.empty())
    with pytest.raises(msgspec.ValidationError, match="missing required field `watts`"):
        from_builtins({k: v for k, v in plain.items() if k != "watts"}, NodeTable)
    with pytest.raises(msgspec.ValidationError, match="unknown field `furlongs`"):
        from_builtins({**plain, "furlongs": plain["watts"]}, NodeTable)


@pytest.mark.parametrize(
    "column",
    [
        pytest.param({}, id="empty"),
        pytest.param({"dtype": "<f8", "shape": [1]}, id="no bytes"),
        pytest.param(
            {"dtype": "<f8", "shape": [2], "base64": base64.b64encode(bytes(8)).decode()}, id="too few bytes"
        ),
        pytest.param(
            {"dtype": "<f8", "shape": [1], "base64": base64.b64encode(bytes(7)).decode()}, id="half a number"
        ),
        pytest.param({"dtype": "zz", "shape": [1], "base64": ""}, id="no such type"),
        pytest.param(
            {"dtype": "O", "shape": [1], "base64": base64.b64encode(bytes(8)).decode()}, id="objects"
        ),
        pytest.param({"dtype": "<f8", "shape": "one", "base64": ""}, id="a shape in words"),
        pytest.param({"dtype": "<f8", "shape": [0], "base64": "!"}, id="no base64"),
        pytest.param([1.0, 2.0], id="a plain list"),
        pytest.param(None, id="nothing"),
    ],
)
def test_a_broken_column_is_refused_with_its_path(column: Any) -> None:
    plain = to_builtins(NodeTable.empty())
    with pytest.raises(msgspec.ValidationError, match=r"\$\.watts"):
        from_builtins({**plain, "watts": column}, NodeTable)


# missing numbers


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")], ids=str)
def test_a_number_that_is_none_must_be_none_in_an_object(value: float) -> None:
    broken = Prices(owner="commit", decided_seconds=0.0, pool="p", dollars_per_gpu_hour=value)
    with pytest.raises(
        msgspec.ValidationError, match=r"Expected `float`, got `null` - at `\$\.dollars_per_gpu_hour`"
    ):
        from_json(to_json(broken), aim.AnyTarget)
    absent = node("a", offer_until_seconds=None)
    assert from_json(to_json(absent), Node).offer_until_seconds is None


def test_a_missing_number_in_a_table_stays_nan() -> None:
    table = NodeTable.build(("a",), {"watts": [np.nan]})
    again = from_json(to_json(table), NodeTable)
    assert np.isnan(again.watts[0])
    assert again == table


def test_defaults_are_not_written() -> None:
    assert to_json(Slot(node="a", devices=(1,))) == b'{"node":"a","devices":[1]}'
    assert b"in_flight" in to_json(cluster())
