"""How long the next start takes, given the ones before it."""

import math
from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forecasting.starts import LEAST, LEAST_DEVIATION, MOST, StartTimes, next_quantile


def test_nothing_is_believed_of_a_few_starts() -> None:
    times = StartTimes()
    told = [times.learn("m", "L4", 80.0, float(at)) for at in range(LEAST)]
    assert told[:-1] == [None] * (LEAST - 1)
    belief = told[-1]
    assert belief is not None
    assert belief.p50_seconds == pytest.approx(80.0)
    # Five equal starts: Student's 0.99 quantile at four degrees of freedom is 3.747.
    assert belief.p99_seconds == pytest.approx(
        80.0 * math.exp(3.747 * LEAST_DEVIATION * math.sqrt(1.2)), rel=1e-3
    )
    assert (belief.tier, belief.source) == ("cold", f"{LEAST} starts")


def test_each_variant_has_its_own_times() -> None:
    times = StartTimes()
    for at in range(LEAST):
        slow = times.learn("m", "L4", 600.0, float(at))
        fast = times.learn("m", "H100", 60.0, float(at))
    assert slow is not None
    assert fast is not None
    assert (slow.p50_seconds, fast.p50_seconds) == pytest.approx((600.0, 60.0))


def test_what_is_long_ago_is_forgotten() -> None:
    times = StartTimes()
    for at in range(MOST):
        times.learn("m", "L4", 600.0, float(at))
    for at in range(MOST):
        belief = times.learn("m", "L4", 60.0, float(at))
    assert belief is not None
    assert belief.p50_seconds == pytest.approx(60.0)


def test_the_quantile_holds_for_starts_that_were_not_seen() -> None:
    rng = np.random.default_rng(7)
    late = 0
    for _ in range(4_000):
        drawn = rng.normal(4.0, 0.5, 9)
        late += bool(math.exp(drawn[-1]) > next_quantile(deque(drawn[:-1]), 0.99))
    assert 0.005 <= late / 4_000 <= 0.015


@given(st.lists(st.floats(0.1, 5_000.0), min_size=LEAST, max_size=40))
def test_the_quantiles_are_in_order_and_scale_with_the_times(seconds: list[float]) -> None:
    one, other = StartTimes(), StartTimes()
    for took in seconds:
        belief, doubled = one.learn("m", "v", took, 0.0), other.learn("m", "v", 2.0 * took, 0.0)
    assert belief is not None
    assert doubled is not None
    assert belief.p50_seconds < belief.p90_seconds < belief.p99_seconds
    assert doubled.p99_seconds == pytest.approx(2.0 * belief.p99_seconds)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_cannot_be_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="a start of m on v took"):
        StartTimes().learn("m", "v", seconds, 0.0)
