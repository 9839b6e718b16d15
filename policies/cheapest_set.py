"""Who gives way: of some that would each make so much room at such a price, the set that makes enough for the least."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Offer(NamedTuple):
    """What ending one thing gives (`gain`) and costs, in whole units, and the highest priority among those it ends."""

    gain: int
    cost: int
    priority: int


def cheapest_set(offers: Sequence[Offer], lacking: int) -> tuple[int, ...] | None:
    """Indices of the offers that give at least `lacking` (> 0): the lowest priorities that suffice, of those the least
    cost, then the least cost of high priorities, then the fewest, then the first of the list. None where all together do not suffice.

    No offer of the set can be left out: that would cost less. A knapsack over gains; work grows with the number of offers
    times the gains that differ, at most `lacking` of them.
    """
    for limit in sorted({offer.priority for offer in offers}):
        found = _cheapest(offers, limit, lacking)
        if found is not None:
            return found
    return None


_Way = tuple[int, int, int, tuple[int, ...]]
"""Cost, cost weighted with priorities, number, and indices of a set."""


def _cheapest(offers: Sequence[Offer], limit: int, lacking: int) -> tuple[int, ...] | None:
    """The cheapest set of offers of at most this priority."""
    ways: dict[int, _Way] = {0: (0, 0, 0, ())}
    for index, offer in enumerate(offers):
        if offer.priority > limit or offer.gain <= 0:
            continue
        for gain, (cost, height, count, chosen) in sorted(ways.items(), reverse=True):
            if gain >= lacking:
                continue  # enough already: more would be ended in vain
            height_then = height + offer.cost * offer.priority
            way = (cost + offer.cost, height_then, count + 1, (*chosen, index))
            reached = min(lacking, gain + offer.gain)
            if reached not in ways or way < ways[reached]:
                ways[reached] = way
    return ways[lacking][3] if lacking in ways else None
