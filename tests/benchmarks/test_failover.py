"""What the benchmark counts as stale and as late: planted ones are found."""

from __future__ import annotations

import pytest

from benchmarks.failover import Term, Trial, first_write, late_writes, p99, stale_commands, terms
from benchmarks.failover_sides import Accepted, Write

TERMS = [Term(10.0, "a", 1), Term(20.0, "b", 2)]


def lease(at: float, user: str, epoch: int) -> Write:
    return Write(at, user, "update", "leases", "plimsoll-system/plimsoll-operator", 200, epoch)


def pod(at: float, user: str, name: str = "shop/chat-0") -> Write:
    return Write(at, user, "create", "pods", name, 201)


def test_leaderships_begin_with_the_first_write_of_an_epoch() -> None:
    assert terms([lease(10.0, "a", 1), lease(12.0, "a", 1), pod(13.0, "a"), lease(20.0, "b", 2)]) == TERMS


@pytest.mark.parametrize(
    ("accepted", "stale"),
    [
        pytest.param([Accepted(11.0, "n", 1), Accepted(21.0, "n", 2)], 0, id="each under its own leadership"),
        pytest.param([Accepted(21.0, "n", 1)], 1, id="a former leader's, by a node that knows no other"),
        pytest.param([Accepted(19.0, "n", 2), Accepted(19.5, "n", 1)], 1, id="an older epoch than it obeyed"),
    ],
)
def test_stale_commands_are_counted(accepted: list[Accepted], stale: int) -> None:
    assert stale_commands(accepted, TERMS) == stale


@pytest.mark.parametrize(
    ("write", "late"),
    [
        pytest.param(pod(15.0, "a"), False, id="the leader's"),
        pytest.param(pod(20.5, "a"), True, id="a former leader's"),
        pytest.param(pod(9.0, "a"), False, id="before anybody led"),
        pytest.param(pod(20.5, "a", "plimsoll-system/operator-a"), False, id="the mark on its own pod"),
        pytest.param(lease(20.5, "a", 1), False, id="the Lease itself"),
    ],
)
def test_late_writes_are_found(write: Write, late: bool) -> None:
    assert bool(late_writes([write], TERMS)) == late


def test_the_first_write_is_the_successors_and_no_lease() -> None:
    trial = Trial(kind="crash", began_seconds=12.0, successor="b", took_seconds=9.0)
    writes = [
        pod(11.0, "b"),
        lease(20.0, "b", 2),
        pod(20.1, "b", "plimsoll-system/operator-b"),
        pod(20.5, "b"),
    ]
    assert first_write(trial, writes) == 8.5


def test_p99_of_ten_is_the_largest() -> None:
    assert p99([float(n) for n in range(10)]) == 9.0
    assert p99([2.0]) == 2.0
