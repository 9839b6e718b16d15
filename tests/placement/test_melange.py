"""Mélange's published rule, against every assignment of slices counted by hand."""

import itertools
import math

import numpy as np
import pytest

from placement.selection.melange import melange
from placement.selection.mix import solve_mix
from tests.placement.mixes import OPTIONS, problem


def cheapest_assignment(task, slices):
    """Cost of the best way to give each slice of each size to one type, each type's sum rounded up."""
    pieces = [
        (rate / slices, cell) for cell, rate in enumerate(task.demand) if rate > 0 for _ in range(slices)
    ]
    best = math.inf
    for chosen in itertools.product(range(len(task.variants)), repeat=len(pieces)):
        busy = [0.0] * len(task.variants)
        for (rate, cell), v in zip(pieces, chosen, strict=True):
            throughput = task.variants[v].throughput[cell]
            busy[v] += rate / throughput if throughput else math.inf
        if all(math.isfinite(each) for each in busy):
            cost = sum(
                o.dollars_per_hour * math.ceil(b - 1e-9) for o, b in zip(task.variants, busy, strict=True)
            )
            best = min(best, cost)
    return best


@pytest.mark.parametrize("slices", [1, 2, 3])
@pytest.mark.parametrize(
    "demand",
    [
        pytest.param((8.0, 4.0, 1.0), id="all sizes"),
        pytest.param((3.0, 0.0, 0.0), id="one size only"),
        pytest.param((1.0, 2.5, 0.7), id="a little of each"),
    ],
)
def test_it_is_the_best_of_all_assignments_of_slices(demand, slices):
    task = problem(demand=demand, headroom=False)
    found = melange(task, slices)
    assert found.feasible
    assert found.cost_per_hour == pytest.approx(cheapest_assignment(task, slices), rel=1e-6)
    assert found.cost_per_hour >= solve_mix(task).cost_per_hour - 1e-9
    assert_whole_slices(task, found, slices)


def assert_whole_slices(task, found, slices):
    for cell, rate in enumerate(task.demand):
        shares = [shares[cell] for shares in found.routing.values()]
        assert sum(shares) == pytest.approx(1.0 if rate > 0 else 0.0)
        assert all(share * slices == pytest.approx(round(share * slices)) for share in shares)
    for option in task.variants:
        if option.name in found.counts:
            shares = found.routing[option.name]
            busy = sum(
                r * s / t for r, s, t in zip(task.demand, shares, option.throughput, strict=True) if s > 0
            )
            assert busy <= found.counts[option.name] + 1e-6


def test_it_keeps_no_headroom_whatever_the_problem_says():
    assert melange(problem(headroom=True)).counts == melange(problem(headroom=False)).counts


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        pytest.param({"variants": OPTIONS[2:]}, "no variant serves cell 2", id="a size nobody serves"),
        pytest.param({"inventory": {"big": 0, "mid": 1, "small": 0}}, "free inventory", id="too few GPUs"),
        pytest.param({"variants": ()}, "no variant can be used", id="nothing to choose from"),
    ],
)
def test_what_it_cannot_serve_is_said(changes, why):
    found = melange(problem(**changes))
    assert not found.feasible
    assert why in found.why


def test_nothing_asked_for_costs_nothing_and_no_slices_is_an_error():
    assert melange(problem(demand=(0.0, 0.0, 0.0))).cost_per_hour == 0.0
    with pytest.raises(ValueError, match="at least 1"):
        melange(problem(), 0)


def test_pools_bound_its_counts():
    found = melange(problem(inventory={"big": 1, "mid": None, "small": None}))
    assert found.feasible
    assert found.counts.get("big", 0) <= 1
    assert np.isclose(sum(shares[0] for shares in found.routing.values()), 1.0)
