"""Two stores, one verdict: what is drawn from the Python types is taken by the real server and by the embedded store,
and a change of one thing is refused by both, in the same words, or by neither; but for the rules in CEL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings

from console.controlplane import ControlPlane
from controller.resources import rules
from controller.resources.kinds import BY_KIND
from controller.store.embedded import EmbeddedStore, open_store
from controller.store.errors import StoreError
from controller.store.kube import KubeStore
from runtime.clock import VirtualClock
from tests.resources.bad import domain, job, product, service
from tests.resources.bad_rules import NODE
from tests.resources.generating import sound, spoilt, statuses
from tests.store.following import now
from tests.store.kube import Loop, far_kube

FEWER = settings(max_examples=settings.default.max_examples // 2)
KINDS = sorted(BY_KIND)
KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def far(control_plane: ControlPlane) -> Iterator[tuple[Loop, KubeStore]]:
    with far_kube(control_plane.kubeconfig) as made:
        yield made


@pytest.fixture(scope="module")
def near() -> EmbeddedStore:
    return open_store(VirtualClock(1_790_000_000.0))


def answers(far: tuple[Loop, KubeStore], near: EmbeddedStore, obj: Any) -> tuple[Any, Any]:
    """What server and embedded store say to a creation that is only tried."""
    resource = BY_KIND[obj["kind"]].resource
    loop, store = far

    def told(ask: Any) -> Any:
        try:
            return ask()
        except StoreError as error:
            return error

    return (
        told(lambda: loop.now(store.create(resource, obj, field_manager="kubectl", dry_run=True))),
        told(lambda: now(near.create(resource, obj, field_manager="kubectl", dry_run=True))),
    )


def plain(value: Any) -> Any:
    """The value with all numbers as floats: the server writes 2.5e16 with all its digits."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [plain(entry) for entry in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def missing(theirs: StoreError, ours: StoreError, kind: str) -> list[str]:
    """Faults that only one of them names, but for rules in CEL and bounds that the server rounds."""
    ruled = {rule.message for rule in rules.RULES.get(kind, ())}
    told = [{f"{cause.field}: {cause.message}" for cause in error.causes} for error in (theirs, ours)]
    apart = told[0] ^ told[1] if all(told) else set()
    return sorted(
        fault
        for fault in apart
        if not any(fault.endswith(sentence) for sentence in ruled)
        and "Fraction" not in fault
        and "Budget" not in fault
    )


@KIND
def test_what_is_sound_both_take_and_fill_in_alike(far: Any, near: EmbeddedStore, kind: str) -> None:
    @FEWER
    @given(obj=sound(kind))
    def holds(obj: Any) -> None:
        theirs, ours = answers(far, near, obj)
        assert not isinstance(theirs, StoreError), theirs.message
        assert not isinstance(ours, StoreError), ours.message
        assert plain(theirs.get("spec")) == plain(ours.get("spec"))
        assert rules.broken(kind, ours) == []

    holds()


@KIND
def test_one_change_has_one_verdict(far: Any, near: EmbeddedStore, kind: str) -> None:
    @FEWER
    @given(obj=spoilt(kind))
    def holds(obj: Any) -> None:
        theirs, ours = answers(far, near, obj)
        if isinstance(ours, StoreError):
            assert isinstance(theirs, StoreError), f"taken by the server: {ours.message}"
            assert theirs.code == ours.code, (theirs.message, ours.message)
            assert missing(theirs, ours, kind) == []
        else:
            refused_by_rule = bool(rules.broken(kind, ours))
            assert isinstance(theirs, StoreError) == refused_by_rule, theirs

    holds()


@KIND
def test_a_sound_status_is_taken_by_both(
    far: tuple[Loop, KubeStore], near: EmbeddedStore, namespace: str, kind: str
) -> None:
    loop, store = far
    resource = BY_KIND[kind].resource
    (first,) = (obj for obj in (service(), job(), product(), domain(), NODE) if obj["kind"] == kind)
    where, here = (namespace, "default") if resource.namespaced else ("", "")
    name = f"agree-{namespace}"
    sides = ((loop.now, store, where), (now, near, here))
    for ask, to, place in sides:
        meta = {"name": name} | ({"namespace": place} if place else {})
        ask(to.create(resource, {**first, "metadata": meta}, field_manager="kubectl"))

    @FEWER
    @given(status=statuses(kind))
    def holds(status: Any) -> None:
        told = []
        for ask, to, place in sides:
            live = {**ask(to.get(resource, name, place)), "status": status}
            after = ask(to.replace(resource, live, field_manager="operator", subresource="status"))
            told.append(after.get("status"))
        assert plain(told[0]) == plain(told[1])

    try:
        holds()
    finally:
        loop.now(store.delete(resource, name, where))
        now(near.delete(resource, name, here))
