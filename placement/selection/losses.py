"""What the loss of one replica would leave unserved, of the classes that must survive it.

With capacities at n less one unit of w, the surviving classes alone are routed as well as they can be; what is left
is priced like unserved load. The exposure of n is the worst case over all w that it uses. Routing after a loss is
free: the gateway spreads over what is left.
"""

from __future__ import annotations

import msgspec
import numpy as np

from placement.selection.instance import Floats, Instance, Ints
from placement.selection.linear import BoxProgramme


class Exposure(msgspec.Struct, frozen=True):
    """Dollars per hour of the load exposed in the worst case, whose replica is lost there, and multipliers [v]."""

    dollars: float
    lost: int
    prices: Floats


class Losses:
    """Exposures of count vectors of one instance, remembered."""

    def __init__(self, instance: Instance) -> None:
        self._programme = BoxProgramme(_asked(instance))
        self._known: dict[tuple[int, ...], tuple[float, Floats]] = {}

    @property
    def solved(self) -> int:
        """Programmes solved."""
        return self._programme.solved

    def worst(self, counts: Ints) -> Exposure:
        """The exposure of a count vector; with no replicas at all, everything is exposed."""
        used = np.flatnonzero(counts > 0).tolist()
        if not used:
            dollars, prices = self._left(counts)
            return Exposure(dollars, -1, prices)
        cases = []
        for w in used:
            fewer = counts.copy()
            fewer[w] -= 1
            dollars, prices = self._left(fewer)
            cases.append((dollars, -w, prices))
        dollars, minus, prices = max(cases, key=lambda each: each[:2])
        return Exposure(dollars, -minus, prices)

    def _left(self, counts: Ints) -> tuple[float, Floats]:
        key = tuple(counts.tolist())
        known = self._known.get(key)
        if known is None:
            answer = self._programme.solve(counts, counts)
            if answer is None:  # there are no side constraints, so there is always a routing
                raise AssertionError(key)
            known = self._known[key] = (max(0.0, answer.value), answer.prices)
        return known


def _asked(instance: Instance) -> Instance:
    """The instance with nothing but the cells that must survive, at no price for units."""
    asked = instance.exposed > 0.0
    variants = len(instance.cost)
    return msgspec.structs.replace(
        instance,
        cells=instance.cells[asked],
        load=instance.load[asked],
        penalty=instance.exposed[asked],
        exposed=instance.exposed[asked],
        cost=np.zeros(variants),
        startup=np.zeros(variants),
        side=np.zeros((0, variants)),
        side_limit=np.zeros(0),
        share_rates=np.zeros((0, int(asked.sum()))),
        share_limit=np.zeros(0),
    )
