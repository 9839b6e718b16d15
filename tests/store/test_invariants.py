"""Properties of the store: field sets add up, and no input whatever makes it stumble."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.resources.core import NODE, POD
from controller.resources.kinds import MODEL_SERVICE, TRAINING_JOB
from controller.store.embedded import fields, open_store
from controller.store.embedded.ownership import Manager, apply
from controller.store.embedded.shapes import Shape, keyed
from controller.store.embedded.wording import go_number
from controller.store.errors import StoreError
from runtime.clock import VirtualClock
from tests.store.following import now
from tests.store.objects import node, pod, service

SHAPE = Shape(fields={"list": keyed("k"), "set": Shape("set")})

LEAVES = st.one_of(st.integers(0, 3), st.sampled_from(["a", "b"]), st.lists(st.integers(0, 2), max_size=2))
MAPS = st.dictionaries(st.sampled_from("xyz"), LEAVES, max_size=3)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "list": st.lists(st.fixed_dictionaries({"k": st.sampled_from("abc")}, optional={"v": LEAVES}),
                         max_size=3, unique_by=lambda item: item["k"]),
        "set": st.lists(st.sampled_from("pqr"), max_size=3, unique=True),
        "map": MAPS,
        "deep": st.dictionaries(st.sampled_from("mn"), MAPS, max_size=2),
        "leaf": LEAVES,
    },
)  # fmt: skip


@given(old=OBJECTS, new=OBJECTS)
def test_two_objects_differ_in_no_field_exactly_when_they_are_equal(old: Any, new: Any) -> None:
    changed, removed = fields.differences(old, new, SHAPE)
    same = fields.merge(new, {}, SHAPE) == fields.merge(old, {}, SHAPE)
    if same:
        assert (changed, removed) == (set(), set())
    elif sorted_items(old) != sorted_items(new):
        assert changed or removed
    assert not changed & removed


def sorted_items(obj: Any) -> Any:
    """The object without the order of its keyed lists and sets, which is nobody's field."""
    out = dict(obj)
    if "list" in out:
        out["list"] = sorted(out["list"], key=lambda item: item["k"])
    if "set" in out:
        out["set"] = sorted(out["set"])
    return out


@given(live=OBJECTS, wanted=OBJECTS)
def test_what_is_applied_is_there_and_what_was_there_stays(live: Any, wanted: Any) -> None:
    before = copy.deepcopy((live, wanted))
    merged = fields.merge(live, wanted, SHAPE)
    assert (live, wanted) == before
    assert fields.merge(merged, wanted, SHAPE) == merged
    changed, _ = fields.differences(merged, fields.merge(merged, wanted, SHAPE), SHAPE)
    assert changed == set()
    for name in live.keys() - wanted.keys():
        assert merged[name] == live[name]


A, B = Manager("a", "Apply"), Manager("b", "Apply")


@given(mine=OBJECTS, theirs=OBJECTS)
def test_one_who_applies_nothing_any_more_leaves_exactly_the_others_fields(mine: Any, theirs: Any) -> None:
    live, owners, _ = apply({}, A, {}, mine, SHAPE)
    live, owners, _ = apply(owners, B, live, theirs, SHAPE)
    live, owners, conflicts = apply(owners, A, live, {}, SHAPE)
    assert conflicts == {}
    assert set(owners) <= {B}
    left = fields.leaves(live, SHAPE) if live else set()
    assert owners.get(B, frozenset()) <= left


@given(first=OBJECTS, second=OBJECTS)
def test_conflicts_are_exactly_the_owned_fields_that_would_change(first: Any, second: Any) -> None:
    live, owners, _ = apply({}, A, {}, first, SHAPE)
    merged, after, conflicts = apply(owners, B, live, second, SHAPE)
    changed, _ = fields.differences(live, merged, SHAPE)
    owned = owners.get(A, frozenset())
    assert conflicts.get(A, set()) == owned & changed
    assert after.get(A, frozenset()).isdisjoint(changed)


@given(first=OBJECTS)
def test_applying_twice_is_applying_once(first: Any) -> None:
    live, owners, _ = apply({}, A, {}, first, SHAPE)
    again = apply(owners, A, live, first, SHAPE)
    assert again == (live, owners, {})


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)

PLACES = (
    (MODEL_SERVICE, service, ("metadata", "metadata.name", "metadata.labels", "metadata.annotations",
     "metadata.ownerReferences", "metadata.finalizers", "metadata.namespace", "metadata.uid",
     "metadata.resourceVersion", "metadata.generation", "spec", "spec.model",
     "spec.objectives", "spec.hold", "spec.policies", "spec.policies.scale", "spec.accelerators", "status",
     "status.conditions", "kind", "apiVersion", "extra")),
    (POD, pod, ("metadata", "metadata.labels", "spec", "spec.containers", "spec.tolerations", "spec.schedulingGates",
     "spec.affinity", "spec.terminationGracePeriodSeconds", "status", "spec.nodeName")),
    (NODE, node, ("metadata.annotations", "spec", "status", "status.conditions")),
)  # fmt: skip

CASES = [(resource, make, place) for resource, make, places in PLACES for place in places]


def put(obj: Any, path: str, value: Any) -> Any:
    """The object with one value replaced, wherever the path leads."""
    *parents, last = path.split(".")
    target = obj
    for name in parents:
        target = target.setdefault(name, {})
    target[last] = value
    return obj


def answer(attempt: Callable[[], Any]) -> str:
    """What the store says to one request: "" for yes, else its sentence; anything else is not caught."""
    try:
        now(attempt())
    except StoreError as refused:
        return refused.message or "no words"
    return ""


@settings(max_examples=60)
@given(case=st.sampled_from(CASES), value=JSON, again=JSON)
def test_no_input_makes_the_store_stumble(case: Any, value: Any, again: Any) -> None:
    stumble(case, value, again)


@pytest.mark.slow
@settings(max_examples=1_000)
@given(case=st.sampled_from(CASES), value=JSON, again=JSON)
def test_a_thousand_inputs_do_not_make_the_store_stumble(case: Any, value: Any, again: Any) -> None:
    stumble(case, value, again)


def stumble(case: Any, value: Any, again: Any) -> None:
    """Every verb either does its work or answers with a StoreError; then the store still works."""
    resource, make, place = case
    store = open_store(VirtualClock(1_790_000_000.0))
    name = make()["metadata"]["name"]
    namespace = make()["metadata"].get("namespace", "")
    attempts = [
        lambda: store.create(resource, put(make(), place, value), field_manager="a"),
        lambda: store.create(resource, make(), field_manager="a"),
        lambda: store.replace(resource, put(make(), place, value), field_manager="a"),
        lambda: store.patch(resource, name, put({}, place, value), namespace, field_manager="b"),
        lambda: store.patch(
            resource, name, put({}, place, again), namespace, field_manager="b", subresource="status"
        ),
        lambda: store.apply(resource, put(make(), place, value), field_manager="c", force=True),
        lambda: store.apply(resource, put(make(), place, again), field_manager="c"),
        lambda: store.apply(resource, put(make(), place, again), field_manager="d", subresource="status"),
        lambda: store.delete(resource, name, namespace),
    ]
    assert all(len(answer(attempt)) < 20_000 for attempt in attempts)
    now(store.collect_garbage())
    now(store.create(TRAINING_JOB, JOB, field_manager="a"))


JOB = {
    "apiVersion": "plimsoll.dev/v1alpha1",
    "kind": "TrainingJob",
    "metadata": {"name": "tune", "namespace": "default"},
    "spec": {"model": {"name": "x"}, "gpusPerNode": 1, "steps": 1, "globalBatch": 1},
}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"), (-1, "-1"), (0.0, "0"), (0.5, "0.5"), (86400.0, "86400"), (999999.0, "999999"), (1e6, "1e+06"),
        (1.5e6, "1.5e+06"), (123456789.0, "1.23456789e+08"), (0.0001, "0.0001"), (1e-5, "1e-05"), (-2e21, "-2e+21"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_go_writes_them(value: float, text: str) -> None:
    assert go_number(value) == text
