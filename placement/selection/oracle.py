"""One model's part of the joint problem: its cheapest mixes under prices of shared resources, again and again.

The exact search of one model, kept: what it learnt under other prices or limits (cuts, and what is unserved at each
count vector) stays true and is only priced anew, so that asking again takes a handful of linear programmes.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from placement.selection.instance import Floats, Instance, Ints, build
from placement.selection.problem import MixProblem, Screened, VariantOption, screen
from placement.selection.search import Outcome, Search

SPARE_UNITS = 1
"""Units beyond what can be useful that a count may have, for runners-up."""


class Resources(msgspec.Struct, frozen=True):
    """What models share.

    ``names`` are "pool/..." (GPUs), "watts/..." and "nodes/..." (GPUs of a pool whose nodes are paid for), with their
    ``limits`` [r] (infinite for nodes). ``unlimited`` are pools without a limit.
    """

    names: tuple[str, ...]
    limits: Floats
    unlimited: frozenset[str] = frozenset()

    def usage(self, option: VariantOption) -> list[float]:
        """Of each resource, what one unit of a variant takes."""
        taken = {
            "pool/" + option.pool: float(option.gpus),
            "nodes/" + option.pool: float(option.gpus),
            "watts/" + option.domain: option.watts,
        }
        return [taken.get(name, 0.0) for name in self.names]

    def by_pool(self) -> dict[str, int | None]:
        """Free GPUs of every pool, None without limit."""
        found: dict[str, int | None] = dict.fromkeys(sorted(self.unlimited))
        for name, limit in zip(self.names, self.limits.tolist(), strict=True):
            kind, _, pool = name.partition("/")
            if kind == "pool":
                found[pool] = int(limit)
        return found


class Oracle:
    """The search of one model with at least one usable variant; ``usage`` [v, r] of shared resources by one unit."""

    def __init__(self, problem: MixProblem, resources: Resources) -> None:
        self.problem = problem
        inventory = resources.by_pool()
        # Screened without limits: what a pool has may change, and then the oracle stays.
        self.screened: Screened = screen(
            msgspec.structs.replace(problem, inventory=dict.fromkeys(inventory), budget_watts={})
        )
        options = self.screened.options
        self.options = options
        self.usable = bool(options)
        self.usage: Floats = np.array([resources.usage(each) for each in options], dtype=np.float64)
        self.usage = self.usage.reshape(len(options), len(resources.names))
        paid_by_node = [resources.names.index(n) for n in resources.names if n.startswith("nodes/")]
        bounding = [r for r in range(len(resources.names)) if r not in paid_by_node]
        self._shared = [r for r in bounding if np.count_nonzero(self.usage[:, r]) > 1]
        bounded = _bounded(options, problem, inventory)
        made = build(bounded, bounded.variants, spare_units=SPARE_UNITS)
        self._capped = [
            wide.max_units != option.max_units and int(high) == wide.max_units
            for wide, option, high in zip(bounded.variants, options, made.high.tolist(), strict=True)
        ]
        self._own_sides = len(made.side_limit)
        by_node = self.usage[:, paid_by_node].any(axis=1)
        self.instance: Instance = msgspec.structs.replace(
            made,
            cost=np.where(by_node, [option.risk_dollars for option in options], made.cost),
            side=np.vstack([made.side, self.usage[:, self._shared].T]),
            side_limit=np.concatenate([made.side_limit, resources.limits[self._shared]]),
        )
        self.search = Search(self.instance, problem.work_units, problem.relative_gap)
        self._high = self.instance.high

    def roomy(self, resources: Resources) -> bool:
        """Whether its tables reach as far as an inventory does."""
        inventory = resources.by_pool()
        for v, option in enumerate(self.options):
            free = inventory[option.pool]
            if self._capped[v] and (free is None or free // option.gpus > int(self.instance.high[v])):
                return False
        return True

    def fits(self, counts: Ints) -> bool:
        """Whether a count vector keeps the limits of now."""
        return bool(self.search.seen.within(counts[None, :], self.instance.low, self._high)[0])

    def ask(
        self, prices: Floats, limits: Floats, rank: int = 1, low: Ints | None = None, work: int | None = None
    ) -> Outcome:
        """The ``rank`` cheapest count vectors within ``limits`` [r] when resources cost ``prices`` [r].

        ``work`` bounds the programmes solved below what the model's own problem allows.
        """
        self.charge(prices, limits)
        return self.search.run(rank, low=low, high=self._high, work_units=work)

    def charge(self, prices: Floats, limits: Floats) -> None:
        """Puts prices and limits in force for what is asked next."""
        side_limit = np.concatenate([self.instance.side_limit[: self._own_sides], limits[self._shared]])
        self.search.charge(
            msgspec.structs.replace(
                self.instance, cost=self.instance.cost + self.usage @ prices, side_limit=side_limit
            )
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            most = np.floor(
                np.where(self.usage > 0.0, (limits + 1e-9) / self.usage, np.inf).min(axis=1, initial=np.inf)
            )
        self._high = np.minimum(
            self.instance.high, np.where(np.isfinite(most), most, self.instance.high)
        ).astype(np.int64)

    def known(self) -> tuple[Ints, Floats, Floats]:
        """Count vectors [k, v] known within the limits of now, their own cost [k] and usage of resources [k, r]."""
        seen = self.search.seen
        rows = np.flatnonzero(seen.allowed(self.instance.low, self._high))
        points = seen.points[rows]
        cost: Floats = self.instance.paid(points) + seen.left[rows]
        return points, cost, points @ self.usage

    def evaluate(self, counts: Ints) -> float:
        """Own cost of one count vector, whatever the prices of now."""
        self.search.evaluate(counts)
        left = self.search.seen.left_of(counts)
        return float(self.instance.paid(counts)) + left

    def least(self, room: Floats) -> Ints | None:
        """A count vector that keeps the floors with few GPUs, within ``room`` [r]; None where none was found."""
        counts = self.instance.low.copy()
        missing = self.problem.min_units - int(counts.sum())
        left = room - counts @ self.usage + 1e-6
        if (left < 0.0).any():
            return None
        gpus = np.array([option.gpus for option in self.screened.options])
        for v in np.lexsort((np.arange(len(gpus)), gpus)).tolist():
            takes = self.usage[v] > 0.0
            fit = np.floor((left[takes] / self.usage[v][takes]).min(initial=float(max(missing, 0))))
            more = max(0, min(missing, int(fit), int(self.instance.high[v] - counts[v])))
            counts[v] += more
            missing -= more
            left -= more * self.usage[v]
        return None if missing > 0 else counts


def _bounded(
    options: tuple[VariantOption, ...], problem: MixProblem, inventory: dict[str, int | None]
) -> MixProblem:
    """The problem with variants bounded by twice what there is or so: room for an inventory that grows."""
    bounded = []
    for option in options:
        free, most = inventory[option.pool], option.max_units
        if free is not None:
            there = max(free // option.gpus, option.min_units)
            room = 2 ** math.ceil(math.log2(there + 1))
            most = room if most is None else min(most, room)
        bounded.append(msgspec.structs.replace(option, max_units=most))
    unlimited: dict[str, int | None] = dict.fromkeys(inventory)
    return msgspec.structs.replace(problem, variants=tuple(bounded), inventory=unlimited, budget_watts={})
