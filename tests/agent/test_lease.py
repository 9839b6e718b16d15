"""The power lease as a pure machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent.node.drivers.base import Code
from agent.node.lease import NONE, Bounds, Grant, Lease, due, ended, granted, judge

BOUNDS = Bounds(min_watts=800, max_watts=3_000)


def grant(epoch: int = 2, sequence: int = 5, watts: int = 2_000, ttl_seconds: float = 5.0) -> Grant:
    return Grant(epoch=epoch, sequence=sequence, watts=watts, clock_mhz=0, ttl_seconds=ttl_seconds)


HELD = granted(grant(), 100.0)


@pytest.mark.parametrize(
    ("held", "new", "code"),
    [
        pytest.param(NONE, grant(), None, id="first grant"),
        pytest.param(HELD, grant(sequence=6), None, id="renewal"),
        pytest.param(HELD, grant(epoch=3, sequence=1), None, id="a new leader counts from one again"),
        pytest.param(HELD, grant(), Code.DUPLICATE, id="the same again"),
        pytest.param(
            HELD, grant(sequence=4, watts=2_900), Code.OLD_EPOCH, id="overtaken by a later sequence"
        ),
        pytest.param(HELD, grant(epoch=1, sequence=99), Code.OLD_EPOCH, id="old leader"),
        pytest.param(ended(HELD), grant(), Code.DUPLICATE, id="the same again after its end"),
        pytest.param(NONE, grant(watts=799), Code.OUT_OF_RANGE, id="less than the boards can be capped to"),
        pytest.param(NONE, grant(watts=800), None, id="the least"),
        pytest.param(NONE, grant(watts=3_000), None, id="the most"),
        pytest.param(NONE, grant(watts=3_001), Code.OUT_OF_RANGE, id="more than the boards allow"),
        pytest.param(NONE, grant(ttl_seconds=0.0), Code.OUT_OF_RANGE, id="no time"),
        pytest.param(NONE, grant(ttl_seconds=1e-9), Code.OUT_OF_RANGE, id="shorter than boards obey"),
        pytest.param(NONE, grant(ttl_seconds=-1.0), Code.OUT_OF_RANGE, id="negative time"),
        pytest.param(NONE, grant(ttl_seconds=30.0), None, id="the longest"),
        pytest.param(NONE, grant(ttl_seconds=31.0), Code.OUT_OF_RANGE, id="a setting in disguise"),
        pytest.param(NONE, grant(ttl_seconds=float("nan")), Code.OUT_OF_RANGE, id="no number"),
    ],
)
def test_judgement(held: Lease, new: Grant, code: Code | None) -> None:
    refusal = judge(held, new, BOUNDS)
    assert (refusal.code if refusal else None) == code
    assert refusal is None or refusal.message.endswith(".")


def test_it_ends_at_its_moment_and_is_remembered() -> None:
    assert not due(HELD, 104.999)
    assert due(HELD, 105.0)
    over = ended(HELD)
    assert not over.active
    assert (over.epoch, over.sequence, over.watts) == (2, 5, 0)
    assert not due(over, 1e9)


class Leases(RuleBasedStateMachine):
    """Random grants, times and leaders: never active past its time, never backwards in (epoch, sequence)."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.lease = NONE
        self.highest = (0, 0)

    @rule(
        epoch=st.integers(0, 3),
        sequence=st.integers(0, 9),
        watts=st.integers(0, 4_000),
        ttl=st.floats(-1, 40) | st.just(float("nan")),
    )
    def offer(self, epoch: int, sequence: int, watts: int, ttl: float) -> None:
        new = grant(epoch, sequence, watts, ttl)
        if judge(self.lease, new, BOUNDS) is None:
            assert (epoch, sequence) > self.highest
            self.lease = granted(new, self.now)
            self.highest = (epoch, sequence)

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if due(self.lease, self.now):
            self.lease = ended(self.lease)

    @invariant()
    def never_over_time_nor_out_of_range(self) -> None:
        if self.lease.active:
            assert self.now < self.lease.expires_monotonic_seconds <= self.now + 30.0
            assert BOUNDS.min_watts <= self.lease.watts <= BOUNDS.max_watts


TestLeases = Leases.TestCase


@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))
def test_of_two_grants_exactly_the_later_holds_whatever_their_order(a: int, b: int, c: int, d: int) -> None:
    one, other = grant(a, b), grant(c, d)
    lease = NONE
    for each in (one, other, one, other):
        if judge(lease, each, BOUNDS) is None:
            lease = granted(each, 0.0)
    assert (lease.epoch, lease.sequence) == max((a, b), (c, d))
