"""What AIBrix and WVA would buy, counted by hand."""

import pytest

from placement.selection.baselines import aibrix, wva_greedy
from tests.placement.mixes import OPTIONS, problem


def test_aibrix_puts_each_size_where_it_is_cheapest_and_rounds_each_type_up():
    # $/h per request/s: size 0: .4 .3 .233 (small) / size 1: .8 1.0 1.4 (big) / size 2: 2.0 5.0 - (big)
    found = aibrix(problem())
    assert found.counts == {"small": 3, "big": 2}  # 8 / 3 = 2.67 small; 4 / 5 + 1 / 2 = 1.3 big
    assert found.cost_per_hour == pytest.approx(3 * 0.7 + 2 * 4.0)


@pytest.mark.parametrize(
    ("demand", "counts"),
    [
        pytest.param((8.0, 4.0, 1.0), {"big": 3}, id="a size one type cannot serve rules that type out"),
        pytest.param((8.0, 0.0, 0.0), {"small": 3}, id="cheapest per capacity"),
        pytest.param((0.0, 10.0, 0.0), {"big": 2}, id="an exact fit is not rounded further"),
    ],
)
def test_wva_buys_one_type(demand, counts):
    found = wva_greedy(problem(demand=demand))
    assert found.counts == counts
    prices = {option.name: option.dollars_per_hour for option in OPTIONS}
    assert found.cost_per_hour == pytest.approx(sum(prices[name] * n for name, n in counts.items()))


def test_wva_says_when_no_single_type_serves_everything():
    found = wva_greedy(problem(variants=OPTIONS[2:], demand=(1.0, 1.0, 1.0)))
    assert (found.counts, found.cost_per_hour) == ({}, 0.0)
    assert "no variant serves every size" in found.why


def test_sizes_that_nothing_serves_are_dropped_by_aibrix():
    assert aibrix(problem(variants=OPTIONS[2:], demand=(3.0, 0.0, 7.0))).counts == {"small": 1}
