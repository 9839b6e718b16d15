"""The cheapest set that makes enough room, in a table and against all sets there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cheapest_set import Offer, cheapest_set


@pytest.mark.parametrize(
    ("offers", "lacking", "chosen"),
    [
        pytest.param([(500, 500, 0), (250, 250, 0)], 250, {1}, id="the smaller one is enough"),
        pytest.param([(250, 250, 0), (500, 500, 0)], 500, {1}, id="one rather than both"),
        pytest.param(
            [(100, 100, 0)] * 3 + [(250, 250, 0)] * 2,
            500,
            {3, 4},
            id="the sum that fits, not the first found",
        ),
        pytest.param(
            [(1, 100, 1), (1, 900, 0)], 1, {1}, id="a lower priority goes before a cheaper higher one"
        ),
        pytest.param([(1, 900, 0), (2, 950, 1)], 2, {1}, id="nobody goes beside one that is enough alone"),
        pytest.param([(1, 1, 0)], 2, None, id="all together are not enough"),
        pytest.param([], 1, None, id="nobody is there"),
    ],
)
def test_the_cheapest_that_suffice(
    offers: list[tuple[int, int, int]], lacking: int, chosen: set[int] | None
) -> None:
    found = cheapest_set([Offer(*offer) for offer in offers], lacking)
    assert (None if found is None else set(found)) == chosen


OFFERS = st.lists(st.builds(Offer, st.integers(1, 6), st.integers(1, 9), st.integers(0, 2)), max_size=7)


@given(OFFERS, st.integers(1, 15))
def test_the_set_is_the_best_of_all_sets(offers: list[Offer], lacking: int) -> None:
    ways = []
    for mask in range(1 << len(offers)):
        chosen = [offer for i, offer in enumerate(offers) if mask >> i & 1]
        if sum(offer.gain for offer in chosen) >= lacking:
            ways.append((max(o.priority for o in chosen), sum(o.cost for o in chosen)))
    found = cheapest_set(offers, lacking)
    if found is None:
        assert not ways
    else:
        assert (max(offers[i].priority for i in found), sum(offers[i].cost for i in found)) == min(ways)
