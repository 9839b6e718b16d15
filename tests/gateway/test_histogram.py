"""Soft histograms keep what makes load estimates exact, and forget with the window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.histogram import LatencyWindow, SoftHistogram, check_edges

INPUTS = (100.0, 200.0, 400.0)
OUTPUTS = (10.0, 50.0)


def histogram(window: float = 60.0) -> SoftHistogram:
    return SoftHistogram(INPUTS, OUTPUTS, window, 5.0, 0.0)


@pytest.mark.parametrize(
    ("prompt", "output", "expected"),
    [
        (200, 10, [[0, 0], [1, 0], [0, 0]]),
        (150, 10, [[0.5, 0], [0.5, 0], [0, 0]]),
        (250, 40, [[0, 0], [0.1875, 0.5625], [0.0625, 0.1875]]),
        (1, 1, [[1, 0], [0, 0], [0, 0]]),
        (9_000, 9_000, [[0, 0], [0, 0], [0, 1]]),
        (400, 30, [[0, 0], [0, 0], [0.5, 0.5]]),
    ],
    ids=["on an edge", "between two", "between four", "below the edges", "above them", "on the last edge"],
)
def test_a_request_is_shared_between_the_edges_around_it(
    prompt: int, output: int, expected: list[list[float]]
) -> None:
    grid = histogram()
    grid.add(0.5, prompt, output)
    cells, width = grid.rates(60.0)
    assert width == pytest.approx(60.0, abs=1.0)
    np.testing.assert_allclose(cells.reshape(3, 2) * width, expected)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 59.0), st.integers(100, 400), st.integers(10, 50)), min_size=1, max_size=40
    )
)
def test_rate_and_mean_tokens_are_exact_inside_the_edges(requests: list[tuple[float, int, int]]) -> None:
    grid = histogram()
    for at, prompt, output in sorted(requests):
        grid.add(at, prompt, output)
    cells, width = grid.rates(59.0)
    weights = cells.reshape(3, 2) * width
    assert weights.sum() == pytest.approx(len(requests))
    assert (weights.sum(axis=1) * INPUTS).sum() == pytest.approx(sum(r[1] for r in requests))
    assert (weights.sum(axis=0) * OUTPUTS).sum() == pytest.approx(sum(r[2] for r in requests))


def test_a_young_histogram_divides_by_its_age_and_never_by_less_than_a_second() -> None:
    grid = histogram()
    grid.add(0.1, 100, 10)
    assert grid.rates(0.25) == (pytest.approx([1, 0, 0, 0, 0, 0]), 1.0)
    cells, width = grid.rates(10.0)
    assert (cells.sum(), width) == (pytest.approx(0.1), 10.0)


def test_what_is_older_than_the_window_is_forgotten_also_without_new_arrivals() -> None:
    grid = histogram(window=10.0)
    for second in range(20):
        grid.add(second, 100, 10)
    cells, width = grid.rates(20.0)
    assert cells.sum() == pytest.approx(1.0, rel=0.1)
    assert 10.0 <= width <= 15.0
    assert grid.rates(100.0)[0].sum() == 0.0
    assert histogram().rates(100.0)[0].tolist() == [0.0] * 6


@pytest.mark.parametrize(
    "edges", [(), (0.0, 1.0), (2.0, 2.0), (3.0, 1.0)], ids=["none", "zero", "equal", "falling"]
)
def test_edges_that_make_no_grid_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="strictly ascending"):
        check_edges(edges, "input")


def test_latencies_are_those_of_the_window_at_the_percentile() -> None:
    window = LatencyWindow(60.0, capacity=100)
    for k in range(150):
        window.add(float(k), k / 100, k / 1000, k % 2 == 0)
    finished, attained, ttft, tpot = window.summary(149.0, 0.5)
    assert (finished, attained) == (60, 30)
    assert (ttft, tpot) == (pytest.approx(1.2), pytest.approx(0.12))
    assert window.summary(149.0, 1.0)[2:] == (1.49, 0.149)
    assert window.summary(149.0, 0.0)[2:] == (0.9, 0.09)
    assert window.summary(1_000.0, 0.95) == (0, 0, None, None)
    assert LatencyWindow(60.0).summary(0.0, 0.95) == (0, 0, None, None)


def test_memory_does_not_grow_with_requests() -> None:
    grid = histogram(window=10.0)
    for k in range(10_000):
        grid.add(k / 100, 100, 10)
    assert len(grid._buckets) == 3
