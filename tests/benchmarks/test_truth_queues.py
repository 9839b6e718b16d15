"""The engine as a queue: first come, first served beside Lindley's recursion, processor sharing beside its fluid, limits at a small size."""

import numpy as np
import pytest

from benchmarks.truth_queues import (
    FINE,
    LOAD,
    NEVER,
    TOKENS,
    first_come_first_served,
    limits,
    processor_sharing,
    responses,
)


def lindley(arrivals, services):
    """Seconds in a queue with one server, first come first served."""
    ends, found = 0.0, []
    for at, service in zip(arrivals, services, strict=True):
        ends = max(ends, at) + service
        found.append(ends - at)
    return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_one_sequence_at_a_time_is_a_server_with_a_queue(seed):
    rng = np.random.Generator(np.random.PCG64(seed))
    arrivals = np.cumsum(rng.exponential(1.0 / 0.9, 400))
    prompts = np.maximum(np.rint(rng.exponential(FINE, 400)), 1).astype(np.int64)
    seen = responses(first_come_first_served(), arrivals, prompts, np.ones(400, dtype=np.int64))
    assert seen == pytest.approx(lindley(arrivals, prompts / FINE + NEVER), rel=1e-6)


@pytest.mark.parametrize(
    ("arrivals", "sizes", "seconds"),
    [
        pytest.param([0.0], [1.0], [1.0], id="alone: all of the server"),
        pytest.param([0.0, 0.5], [1.0, 1.0], [1.5, 1.5], id="two alike: each waits for half of the other"),
        pytest.param([0.0, 0.5], [2.0, 0.5], [2.5, 1.0], id="a short one overtakes a long one"),
        pytest.param([0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [3.0, 5.0, 6.0], id="three at once leave by size"),
        pytest.param([0.0, 5.0], [1.0, 1.0], [1.0, 1.0], id="they never meet"),
    ],
)
def test_a_step_as_long_as_its_batch_shares_the_processor(arrivals, sizes, seconds):
    outputs = np.array([round(size * TOKENS) + 1 for size in sizes])
    seen = responses(processor_sharing(), np.array(arrivals), np.ones(len(sizes), dtype=np.int64), outputs)
    assert seen == pytest.approx(seconds, abs=2 * len(sizes) / TOKENS)


def test_the_limits_hold_at_a_small_size_as_far_as_their_noise_goes():
    found = {limit.name: limit for limit in limits(10_000, 1)}
    assert len(found) == 5
    assert found["M/D/1 mean response"].known == pytest.approx(1.5)
    assert found["M/M/1 mean response"].known == pytest.approx(1.0 / (1.0 - LOAD))
    for limit in found.values():
        assert limit.error < 0.1


def test_the_error_is_relative_and_knows_no_sign():
    (first, *_) = limits(50, 1)
    assert first._replace(known=2.0, seen=2.1).error == pytest.approx(0.05)
    assert first._replace(known=2.0, seen=1.9).error == pytest.approx(0.05)
