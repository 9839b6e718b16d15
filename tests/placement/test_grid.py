"""Soft histograms: weights, ends of the grid, and never across an infeasible corner."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from placement.profiles.grid import (
    DEFAULT_GRID,
    Grid,
    GridError,
    check_profile,
    hat_weights,
    implied_concurrency,
    load,
    mean_concurrency,
    routable,
    soft_histogram,
    upper_edge_histogram,
)
from placement.profiles.roofline import Limits, throughput_grid
from placement.profiles.steptime import GpuFigures, ModelFigures, StepTime

SMALL = Grid((100, 200, 400), (10, 20))


@pytest.mark.parametrize(
    ("inputs", "outputs", "expected"),
    [
        pytest.param(100, 10, {(0, 0): 1.0}, id="on a grid point"),
        pytest.param(150, 10, {(0, 0): 0.5, (1, 0): 0.5}, id="half way along one edge"),
        pytest.param(
            250, 15, {(1, 0): 0.375, (2, 0): 0.125, (1, 1): 0.375, (2, 1): 0.125}, id="inside a rectangle"
        ),
        pytest.param(1, 1, {(0, 0): 1.0}, id="below the first edge counts at it"),
        pytest.param(9999, 9999, {(2, 1): 1.0}, id="above the last edge counts at it"),
    ],
)
def test_one_request_spreads_over_its_corners(inputs, outputs, expected):
    found = soft_histogram(SMALL, np.array([inputs], float), np.array([outputs], float), 1.0)
    assert {k: found.cells[k] for k in expected} == pytest.approx(expected)
    assert found.cells.sum() == pytest.approx(1.0)


def test_requests_beyond_the_grid_are_counted():
    found = soft_histogram(
        SMALL, np.array([100.0, 401.0, 400.0, 50.0]), np.array([10.0, 10.0, 21.0, 5.0]), 4.0
    )
    assert found.clamped == 0.5


def test_a_grid_of_one_point_takes_everything():
    found = soft_histogram(Grid((100,), (10,)), np.array([5.0, 500.0]), np.array([1.0, 90.0]), 3.0)
    assert found.cells.tolist() == [[3.0]]


@given(
    sizes=st.lists(st.tuples(st.floats(0, 20_000), st.floats(0, 3_000)), min_size=1, max_size=50),
    rate=st.floats(0, 1e4),
)
def test_weights_sum_to_the_rate_and_keep_means(sizes, rate):
    inputs, outputs = (np.array(column, float) for column in zip(*sizes, strict=True))
    found = soft_histogram(DEFAULT_GRID, inputs, outputs, rate)
    assert (found.cells >= 0).all()
    assert found.cells.sum() == pytest.approx(rate)
    mean = (found.cells.sum(axis=1) * np.array(DEFAULT_GRID.input_edges)).sum()
    assert mean == pytest.approx(rate * np.clip(inputs, 25, 16_000).mean())


def test_weights_of_one_axis():
    lower, upper_weight = hat_weights((100, 200, 400), np.array([100.0, 125.0, 399.0, 400.0]))
    assert lower.tolist() == [0, 0, 1, 1]
    assert upper_weight.tolist() == pytest.approx([0.0, 0.25, 0.995, 1.0])


def test_interpolated_load_is_close_where_rounding_up_is_not():
    """Gpu-selection research: bilinear within 1.3 %, upper edge 56 to 103 % too much."""
    gpu = GpuFigures("A100-80", 80 * 2**30, 2039e9, 312e12)
    step = StepTime(gpu, ModelFigures("llama-2-7b", 6.738e9, 524_288, 4096, 32))
    limits = Limits(0.12)
    profile = throughput_grid(step, DEFAULT_GRID, limits).requests_per_second
    rng = np.random.default_rng(7)
    inputs = np.clip(np.exp(rng.normal(np.log(700), 0.9, 1500)), 30, 12_000).round()
    outputs = np.clip(np.exp(rng.normal(np.log(170), 0.7, 1500)), 26, 1_900).round()
    exact = sum(
        1.0 / throughput_grid(step, Grid((int(i),), (int(o),)), limits).requests_per_second[0, 0]
        for i, o in zip(inputs, outputs, strict=True)
    )
    soft = load(soft_histogram(DEFAULT_GRID, inputs, outputs, 1500.0).cells, profile)
    hard = load(upper_edge_histogram(DEFAULT_GRID, inputs, outputs, 1500.0), profile)
    assert soft == pytest.approx(exact, rel=0.02)
    assert hard > 1.4 * exact


@pytest.mark.parametrize(
    ("cells", "throughput", "expected"),
    [
        pytest.param(
            [[1, 0], [0, 0]], [[2, 0], [0, 0]], [[1, 0], [0, 0]], id="nobody beyond the infeasible corner"
        ),
        pytest.param(
            [[1, 0], [0, 1]], [[2, 2], [2, 0]], [[0, 0], [0, 0]], id="an upper corner blocks its rectangle"
        ),
        pytest.param([[1, 0], [1, 0]], [[2, 2], [0, 0]], [[0, 1], [0, 0]], id="input neighbour blocks"),
        pytest.param([[1, 1], [0, 0]], [[2, 0], [2, 2]], [[0, 0], [1, 1]], id="output neighbour blocks"),
        pytest.param([[1, 1], [1, 1]], [[2, 2], [2, 2]], [[1, 1], [1, 1]], id="all feasible"),
    ],
)
def test_nothing_is_routed_across_an_infeasible_corner(cells, throughput, expected):
    found = routable(np.array(cells, float), np.array(throughput, float))
    assert found.astype(int).tolist() == expected


def test_load_of_an_unroutable_demand_is_infinite():
    assert load(np.array([[1.0, 1.0]]), np.array([[2.0, 0.0]])) == math.inf
    assert load(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]])) == 0.5


@pytest.mark.parametrize(
    ("inputs", "outputs", "rate", "text"),
    [
        pytest.param([1.0], [1.0, 2.0], 1.0, "1 input and 2 output", id="unequal lengths"),
        pytest.param([math.nan], [1.0], 1.0, "input tokens of request 0 are nan", id="NaN"),
        pytest.param([1.0, 2.0], [1.0, -3.0], 1.0, "output tokens of request 1 are -3", id="negative"),
        pytest.param([1.0], [1.0], math.inf, "rate is inf", id="infinite rate"),
        pytest.param([1.0], [1.0], -1.0, "rate is -1", id="negative rate"),
    ],
)
def test_bad_samples_are_refused_with_their_place(inputs, outputs, rate, text):
    with pytest.raises(GridError, match=text):
        soft_histogram(SMALL, np.array(inputs), np.array(outputs), rate)


@pytest.mark.parametrize("edges", [(), (0, 1), (5, 5), (5, 4)])
def test_edges_must_rise(edges):
    with pytest.raises(GridError, match="rise strictly"):
        Grid(edges, (1, 2)).checked()


def test_an_empty_sample_is_an_empty_histogram():
    found = soft_histogram(SMALL, np.array([]), np.array([]), 0.0)
    assert not found.cells.any()


@pytest.mark.parametrize(
    ("throughput", "text"),
    [
        pytest.param(np.ones((2, 3)), "looks transposed", id="transposed axes"),
        pytest.param(np.ones((4, 4)), r"shape \(4, 4\)", id="wrong shape"),
        pytest.param(
            np.array([[1, 1], [1, math.nan], [1, 1]]), "at 200 input and 20 output", id="NaN names its size"
        ),
        pytest.param(
            np.array([[1, 1], [1, 1], [-2, 1]]), "at 400 input and 10 output", id="negative names its size"
        ),
    ],
)
def test_profiles_that_cannot_be_used_are_refused(throughput, text):
    with pytest.raises(GridError, match=text):
        check_profile("mine", SMALL, throughput)


def test_a_hole_is_named_and_stays_infeasible():
    profile = np.array([[3.0, 2.0], [0.0, 1.0], [0.0, 0.0]])
    notes = check_profile("mine", SMALL, profile)
    assert len(notes) == 1
    assert "0 at 200 input and 10 output tokens though a larger size works" in notes[0]
    assert not check_profile("fine", SMALL, np.array([[3.0, 2.0], [1.0, 0.0], [0.0, 0.0]]))


def test_concurrency_weighs_cells_by_the_time_they_take():
    cells, throughput = np.array([[1.0, 1.0]]), np.array([[1.0, 0.25]])
    concurrency = np.array([[10.0, 30.0]])
    assert mean_concurrency(cells, throughput, concurrency) == pytest.approx((1 * 10 + 4 * 30) / 5)
    assert mean_concurrency(np.zeros((1, 2)), throughput, concurrency) == 20.0
    assert mean_concurrency(cells, np.zeros((1, 2)), concurrency) == 1.0


def test_concurrency_follows_from_throughput_at_the_limit():
    found = implied_concurrency(Grid((1000,), (250, 500)), np.array([[0.5, 100.0]]), 0.12)
    assert found.tolist() == [[15.0, 256.0]]
