"""Column generation over the models' mixes, with an incumbent from its first round on.

Each round solves the relaxed master, offers it what the oracles know already, and asks each oracle for its cheapest
mix at the prices of now (smoothed towards those that gave the best bound, which saves rounds). The sum of what the
oracles prove is a lower bound whatever the prices (Lagrangian). A plan of whole mixes is kept all along: rounding at
once, diving (fix the mix with the largest share, generate again) at the end, then the best plan of all known mixes
whose reduced cost is below the remaining gap, and an exact exchange model by model.
"""

from __future__ import annotations

import msgspec
import numpy as np

from placement.selection.fleet import Budget, NodeOffer
from placement.selection.instance import Floats, Ints
from placement.selection.master import Column, Master, Relaxed
from placement.selection.oracle import Oracle, Resources

ROUNDS = 60
"""Most rounds of generation at the root."""

SMOOTHING = 0.5
"""Weight of the best bound's prices in those that are asked at."""

OFFERED = 6
"""Known mixes of one model that a round may add."""

NODES = 2_000
"""Nodes of the search for the best plan of known mixes."""

FIRST_RANK = 8
"""How many of a model's cheapest mixes are listed first; three times as many when that reaches too little."""

LISTED = 1_500
"""Mixes listed in all, about a programme each."""


class Incumbent(msgspec.Struct):
    """The best whole plan so far: one column a model, and its objective."""

    columns: list[Column]
    objective: float = float("inf")


class Generation:
    """One solve. ``incumbent`` and ``bound`` are valid at any time after `start`; tolerances count in ``money_unit``."""

    def __init__(
        self,
        oracles: list[Oracle],
        resources: Resources,
        nodes: dict[str, NodeOffer],
        gap: float,
        budget: Budget,
    ) -> None:
        self._oracles, self._resources, self._nodes = oracles, resources, nodes
        self._gap, self._budget = gap, budget
        self.money_unit = max((oracle.instance.money_unit for oracle in oracles), default=1.0)
        self.master = Master(len(oracles), resources, nodes, self.money_unit)
        self.incumbent = Incumbent([])
        self.bound = -np.inf
        self.prices = np.zeros(len(resources.names))
        self._floors: list[Column] = []
        self._standing: list[Column] = []

    # ------------------------------------------------------------------------------------------------- root

    def start(self, floors: list[Ints], seeds: list[list[tuple[int, ...]]]) -> None:
        """First columns: each model's floor and its seeds.

        The floors must fit together; they are the first incumbent.
        """
        free = np.zeros(len(self._resources.names))
        for m, oracle in enumerate(self._oracles):
            oracle.charge(free, self._resources.limits)
            self._floors.append(self._column(m, floors[m]))
            self.master.add(self._floors[m])
            for seed in seeds[m]:
                if oracle.fits(np.array(seed, dtype=np.int64)):
                    self.master.add(self._column(m, np.array(seed, dtype=np.int64)))
        self._consider(list(self._floors))
        self._standing = self._seeded(seeds)
        self._consider(self._standing)

    def _seeded(self, seeds: list[list[tuple[int, ...]]]) -> list[Column]:
        """Each model's first seed where it is allowed, its floor where not: what runs now, if it fits together."""
        first = [np.array(own[0], dtype=np.int64) if own else None for own in seeds]
        return [
            self._floors[m] if counts is None or not oracle.fits(counts) else self._column(m, counts)
            for m, (counts, oracle) in enumerate(zip(first, self._oracles, strict=True))
        ]

    def keep(self, share: float) -> None:
        """What runs now is the plan after all, where it costs little more, with what it leaves unserved at its price."""
        now, best = self.objective(self._standing), self.incumbent.objective
        if share > 0.0 and now - best <= share * best:
            self.incumbent = Incumbent(self._standing, now)

    def nothing(self) -> None:
        """No model can be served at all: the empty plan, which nothing betters."""
        self.incumbent, self.bound = Incumbent([], 0.0), 0.0

    def _column(self, m: int, counts: Ints) -> Column:
        oracle = self._oracles[m]
        return Column(m, tuple(counts.tolist()), oracle.evaluate(counts), counts @ oracle.usage)

    def root(self, first_prices: Floats | None = None) -> Relaxed | None:
        """Generates until the relaxed master is optimal (within the gap) or the budget is spent.

        ``first_prices`` are asked at first, where somebody remembers good ones: the master's own are wild until it
        knows a few mixes of everybody.
        """
        best_prices = None
        if first_prices is not None:
            self._bound_at(first_prices)
        relaxed = self._settle()
        for _ in range(ROUNDS):
            if relaxed is None:
                return None
            self._round(relaxed)
            if not self._budget.left or self._tight(relaxed):
                return relaxed
            smooth = best_prices is not None
            asked = (
                relaxed.prices
                if best_prices is None
                else SMOOTHING * best_prices + (1 - SMOOTHING) * relaxed.prices
            )
            if self._bound_at(asked):
                best_prices = asked
            before = relaxed.value
            relaxed = self._settle()
            if smooth and relaxed is not None and before - relaxed.value <= 1e-9 * abs(before):
                best_prices = relaxed.prices  # smoothing misled: ask at the master's own prices next
        return relaxed

    def _tight(self, relaxed: Relaxed) -> bool:
        """Whether the relaxed master has reached the bound."""
        return relaxed.value - self.bound <= 0.1 * self._gap * max(self.money_unit, abs(relaxed.value))

    def _bound_at(self, prices: Floats) -> bool:
        """Asks everybody at some prices; whether that gave a better bound."""
        bound = self._ask_all(prices)
        if bound <= self.bound:
            return False
        self.bound, self.prices = bound, prices
        return True

    def _ask_all(self, prices: Floats) -> float:
        """Asks every oracle at some prices; the Lagrangian bound, minus infinity when the budget ran out."""
        total = -float(prices @ self._right_sides()) - self._node_slack(prices)
        for oracle in self._oracles:
            if not self._budget.left:
                return -np.inf
            outcome = oracle.ask(prices, self._resources.limits, work=self._budget.left)
            self._budget.spend(outcome.units_used)
            total += outcome.bound
        return total

    def _right_sides(self) -> Floats:
        limits = self._resources.limits
        return np.where(np.isfinite(limits), limits, 0.0)

    def _node_slack(self, prices: Floats) -> float:
        """What buying nodes gains when their GPUs are priced above the node: minus its most, in the bound."""
        total = 0.0
        for pool, offer in self._nodes.items():
            price = float(prices[self._resources.names.index("nodes/" + pool)])
            gain = price * offer.gpus - offer.dollars_per_hour
            free = self._resources.by_pool().get(pool)
            if gain > 1e-9 * self.money_unit:
                total += gain * (free // offer.gpus) if free is not None else np.inf
        return total

    def _settle(self) -> Relaxed | None:
        """The relaxed master after everything known with a negative reduced cost was offered."""
        relaxed = self.master.relaxed()
        for _ in range(ROUNDS):
            if relaxed is None or not self._offer(relaxed):
                return relaxed
            relaxed = self.master.relaxed()
        return relaxed

    def _offer(self, relaxed: Relaxed, above: float | None = None, most: int = OFFERED) -> int:
        """Adds known mixes whose reduced cost is below ``above`` (None: below zero); how many were new."""
        above = -1e-7 * self.money_unit if above is None else above
        added = 0
        for m, oracle in enumerate(self._oracles):
            points, cost, usage = oracle.known()
            reduced = cost + usage @ relaxed.prices - relaxed.models[m]
            order = np.argsort(reduced, kind="stable")[:most]
            for k in order[reduced[order] < above].tolist():
                column = Column(m, tuple(points[k].tolist()), float(cost[k]), usage[k])
                added += self.master.add(column)
        return added

    # ------------------------------------------------------------------------------------------- incumbents

    def _consider(self, columns: list[Column]) -> None:
        objective = self.objective(columns)
        if objective < self.incumbent.objective - 1e-9 * self.money_unit:
            self.incumbent = Incumbent(columns, objective)

    def objective(self, columns: list[Column]) -> float:
        """Dollars per hour of one column a model, with the nodes they need; infinite when they do not fit."""
        used = sum((column.usage for column in columns), np.zeros(len(self._resources.names)))
        if (used > self._resources.limits + 1e-6).any():
            return float("inf")
        total = sum(column.cost for column in columns)
        for pool, nodes in self.nodes_of(columns).items():
            free = self._resources.by_pool().get(pool)
            if free is not None and nodes * self._nodes[pool].gpus > free:
                return float("inf")
            total += nodes * self._nodes[pool].dollars_per_hour
        return float(total)

    def nodes_of(self, columns: list[Column]) -> dict[str, int]:
        """Nodes that must be bought in pools sold whole."""
        found = {}
        for pool, offer in sorted(self._nodes.items()):
            row = self._resources.names.index("nodes/" + pool)
            gpus = sum(float(column.usage[row]) for column in columns)
            found[pool] = int(np.ceil((gpus - 1e-6) / offer.gpus))
        return found

    def _round(self, relaxed: Relaxed) -> None:
        """A whole plan from shares: models with the clearest choice first, each the best known mix that still fits."""
        clearest = np.zeros(len(self._oracles))
        for number in np.flatnonzero(relaxed.shares > 1e-9).tolist():
            m = self.master.columns[number].model
            clearest[m] = max(clearest[m], relaxed.shares[number])
        left = self._resources.limits - sum(floor.usage for floor in self._floors)
        chosen: dict[int, Column] = {}
        for m in np.argsort(-clearest, kind="stable").tolist():
            room = left + self._floors[m].usage
            points, cost, usage = self._oracles[m].known()
            reduced = np.where((usage <= room + 1e-6).all(axis=1), cost + usage @ relaxed.prices, np.inf)
            k = int(np.argmin(reduced)) if len(reduced) else -1
            column = self._floors[m]
            if k >= 0 and np.isfinite(reduced[k]):
                column = Column(m, tuple(points[k].tolist()), float(cost[k]), usage[k])
            chosen[m] = column
            left = room - column.usage
        self._consider([chosen[m] for m in range(len(self._oracles))])

    def dive(self, relaxed: Relaxed) -> None:
        """Fixes the mix with the largest fractional share, generates again, and so on to a whole plan."""
        fixed: list[int] = []
        now: Relaxed | None = relaxed
        while now is not None and self._budget.left and len(fixed) <= len(self._oracles):
            fractional = (now.shares > 1e-6) & (now.shares < 1.0 - 1e-6)
            if not fractional.any() or now.value >= self.incumbent.objective - self._slack():
                self._take(now)
                break
            number = int(np.argmax(np.where(fractional, now.shares, -1.0)))
            self.master.fix(number)
            fixed.append(number)
            now = self._settle()
            if now is not None:
                self._round(now)
                self._ask_all(now.prices)
                now = self._settle()
        for number in fixed:
            self.master.free(number)

    def _take(self, relaxed: Relaxed) -> None:
        """A relaxed optimum that happens to be whole is a plan."""
        whole = [self.master.columns[k] for k in np.flatnonzero(relaxed.shares > 1.0 - 1e-6).tolist()]
        if len(whole) == len(self._oracles):
            self._consider(sorted(whole, key=lambda column: column.model))

    def _slack(self) -> float:
        return self._gap * max(self.money_unit, abs(self.incumbent.objective))

    @property
    def closed(self) -> bool:
        """Whether the incumbent is proven within the gap."""
        return self.incumbent.objective - self.bound <= self._slack()

    def combine(self, relaxed: Relaxed) -> None:
        """The best plan of the known mixes that could be in a better one, then of all that could, as far as listed.

        Where every mix with a reduced cost up to ``reach`` is listed, a plan that is not among theirs costs at least
        the relaxed master and ``reach``: so a proven choice among them lifts the bound even when it proves no optimum.
        """
        for listing in (False, True):
            gap = self.incumbent.objective - self.bound
            if self.closed or not self._budget.left:
                return
            reach = self._list(relaxed, gap) if listing and self._tight(relaxed) else 0.0
            self._offer(relaxed, above=gap + 1e-7 * self.money_unit, most=400)
            found = self.master.whole(
                self._within(relaxed, gap), NODES, self.incumbent.objective + 1e-6 * self.money_unit
            )
            self._budget.spend(50)
            if found is None:
                continue
            self._consider(sorted((self.master.columns[k] for k in found[0]), key=lambda c: c.model))
            if found[1]:
                self.bound = max(self.bound, min(self.incumbent.objective, self.bound + reach))

    def _within(self, relaxed: Relaxed, gap: float) -> list[int]:
        """Columns whose reduced cost does not exceed the gap; the incumbent's among them."""
        own = {(column.model, column.counts) for column in self.incumbent.columns}
        return [
            number
            for number, column in enumerate(self.master.columns)
            if column.cost + float(column.usage @ relaxed.prices) - relaxed.models[column.model]
            <= gap + 1e-7 * self.money_unit
            or (column.model, column.counts) in own
        ]

    def _list(self, relaxed: Relaxed, gap: float) -> float:
        """Lists each model's cheapest mixes, those of the model that reaches least first; how far all reach."""
        rank = [FIRST_RANK] * len(self._oracles)
        reach = np.zeros(len(self._oracles))
        listed = 0
        while listed < LISTED and self._budget.left:
            m = int(np.argmin(reach))
            if reach[m] > gap:
                break
            outcome = self._oracles[m].ask(
                relaxed.prices, self._resources.limits, rank=rank[m], work=self._budget.left
            )
            self._budget.spend(outcome.units_used)
            listed += rank[m]
            if not outcome.complete:
                break
            full = len(outcome.best) == rank[m]
            reach[m] = outcome.best[-1].objective - float(relaxed.models[m]) if full else np.inf
            rank[m] *= 3
        return float(np.clip(reach.min(), 0.0, gap))

    def exchange(self) -> None:
        """Each model in turn gets its exact optimum on what the others leave, until nobody gains."""
        free = np.zeros(len(self._resources.names))
        for m, oracle in enumerate(self._oracles):
            if self.closed or not self._budget.left or self._nodes:
                return
            columns = list(self.incumbent.columns)
            used = sum((c.usage for k, c in enumerate(columns) if k != m), np.zeros(len(free)))
            outcome = oracle.ask(free, self._resources.limits - used, work=self._budget.left)
            self._budget.spend(outcome.units_used)
            if outcome.best:
                columns[m] = self._column(m, np.array(outcome.best[0].counts))
                self._consider(columns)
