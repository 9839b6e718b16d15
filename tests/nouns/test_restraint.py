"""Disruption budgets: what a move costs, what is no move, and what is refused beyond them."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import actions as act
from cluster.base import Ref
from cluster.checks import check
from cluster.overlay import Overlay
from cluster.restraint import UNLIMITED, Moves, left_of
from cluster.snapshot import Snapshot
from tests.nouns.cases import NOW, replica, service, stamped, with_replicas

CHAT = "shop/chat"


def ready(count: int, moves: Moves | None = None, whole: Moves | None = None) -> Snapshot:
    made = with_replicas(*(replica(f"r{n}") for n in range(count)))
    known = {CHAT: msgspec.structs.replace(service(CHAT), moves=moves)}
    return msgspec.structs.replace(made, services=known, moves=whole)


def drain(name: str, *, voluntary: bool = True) -> act.Drain:
    return act.Drain(subject=Ref("Replica", name), deadline_seconds=NOW + 60.0, voluntary=voluntary, reason=0)


@pytest.mark.parametrize(
    ("own", "whole", "left"),
    [
        pytest.param(None, None, UNLIMITED, id="no budget allows everything"),
        pytest.param(Moves(allowed=5, made=2), None, 3, id="the service's own"),
        pytest.param(None, Moves(allowed=4, made=3), 1, id="the cluster's"),
        pytest.param(Moves(allowed=5, made=2), Moves(allowed=4, made=3), 1, id="the tighter of the two"),
        pytest.param(Moves(allowed=1, made=3), None, 0, id="a budget that was lowered is never negative"),
    ],
)
def test_what_is_left(own: Moves | None, whole: Moves | None, left: int) -> None:
    assert left_of(own, whole) == left
    assert Overlay(ready(1, own, whole)).moves_left(CHAT) == left


def test_a_move_is_charged_to_both_budgets_and_comes_back_after_an_hour() -> None:
    before = ready(3, Moves(allowed=2), Moves(allowed=10, made=4, next_seconds=NOW + 60.0))
    overlay = Overlay(before)
    overlay.apply(drain("r0"))
    after = overlay.snapshot()
    assert after.services[CHAT].moves == Moves(allowed=2, made=1, next_seconds=NOW + 3600.0)
    assert after.moves == Moves(allowed=10, made=5, next_seconds=NOW + 60.0)
    assert before.services[CHAT].moves == Moves(allowed=2), "the snapshot itself is never written to"


def test_a_drain_that_is_no_choice_of_ours_costs_nothing() -> None:
    overlay = Overlay(ready(3, Moves(allowed=0), Moves(allowed=0)))
    assert check(overlay, stamped(drain("r0", voluntary=False), "place"), NOW) is None
    overlay.apply(drain("r0", voluntary=False))
    assert overlay.moves == Moves(allowed=0)
    assert overlay.read("services")[CHAT].moves == Moves(allowed=0)


@pytest.mark.parametrize(
    ("own", "whole"),
    [
        pytest.param(Moves(allowed=1, made=1), None, id="its service's is used up"),
        pytest.param(Moves(allowed=9), Moves(allowed=1, made=1), id="the cluster's is used up"),
    ],
)
def test_a_move_beyond_a_budget_is_dropped_with_its_numbers(own: Moves | None, whole: Moves | None) -> None:
    drop = check(Overlay(ready(3, own, whole)), stamped(drain("r0"), "place"), NOW)
    assert drop is not None
    assert (drop.code, drop.need, drop.have, drop.limit, drop.unit) == ("Unsafe", 2, 1, 1, "moves")


@given(allowed=st.integers(0, 6), whole=st.integers(0, 6), tries=st.integers(0, 8))
def test_never_more_moves_than_both_budgets_allow(allowed: int, whole: int, tries: int) -> None:
    overlay = Overlay(ready(10, Moves(allowed=allowed), Moves(allowed=whole)))
    made = 0
    for number in range(tries):
        if check(overlay, stamped(drain(f"r{number}"), "place"), NOW) is None:
            overlay.apply(drain(f"r{number}"))
            made += 1
    assert made == min(allowed, whole, tries)
