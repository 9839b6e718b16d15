"""Failures: scheduled ones to the second, random ones by their hazard, streams that do not disturb each other."""

import pytest

from simulator.physics.failures import Failure, FailureKind, FailureSource

HOUR = 3600.0
RATES = {FailureKind.NODE_CRASH: 0.01, FailureKind.GPU_XID: 0.05, FailureKind.HANG: 0.0}


def drawn(seed, gpus, hours=500.0, cuts=1):
    source = FailureSource(seed, gpus=gpus, rates_per_gpu_hour=RATES)
    failures = []
    for cut in range(1, cuts + 1):
        failures += source.advance_to(hours * HOUR * cut / cuts)
    return failures


def test_scheduled_failures_come_when_they_are_due_and_once():
    schedule = [
        Failure(20.0, "n2", FailureKind.GPU_XID, 3),
        Failure(10.0, "n1", FailureKind.NODE_CRASH),
    ]
    source = FailureSource(0, schedule)
    assert source.next_event_seconds() == 10.0
    assert source.advance_to(9.9) == []
    assert source.advance_to(10.0) == [schedule[1]]
    assert source.advance_to(100.0) == [schedule[0]]
    assert source.next_event_seconds() == float("inf")


def test_random_failures_come_at_their_rate_on_gpus_that_exist():
    failures = drawn(1, {"n0": 8, "n1": 4})
    crashes = [failure for failure in failures if failure.kind is FailureKind.NODE_CRASH]
    errors = [failure for failure in failures if failure.kind is FailureKind.GPU_XID]
    assert len(crashes) + len(errors) == len(failures)  # a rate of zero never comes
    assert len(crashes) == pytest.approx(12 * 0.01 * 500, rel=0.35)
    assert len(errors) == pytest.approx(12 * 0.05 * 500, rel=0.2)
    assert {failure.gpu for failure in errors if failure.node == "n1"} == {0, 1, 2, 3}
    assert [failure.at_seconds for failure in failures] == sorted(failure.at_seconds for failure in failures)


def test_the_same_seed_gives_the_same_failures_however_time_is_cut():
    assert drawn(7, {"n0": 8}, cuts=37) == drawn(7, {"n0": 8})
    assert drawn(8, {"n0": 8}) != drawn(7, {"n0": 8})


def test_another_node_does_not_change_the_failures_of_the_first():
    alone = drawn(3, {"n0": 8})
    together = [failure for failure in drawn(3, {"n0": 8, "n1": 8}) if failure.node == "n0"]
    assert together == alone


def test_a_negative_rate_is_refused():
    with pytest.raises(ValueError, match="rate of hang"):
        FailureSource(0, gpus={"n": 1}, rates_per_gpu_hour={FailureKind.HANG: -1.0})
