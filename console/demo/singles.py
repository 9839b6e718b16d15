"""What the same promises would cost on one GPU type alone, planned by the operator's own selection."""

from __future__ import annotations

from typing import Any

from cluster.snapshot import Snapshot
from cluster.targets import Capacity
from console.demo.run_data import SingleType
from placement.selection.explain import single_plans
from policies.frames import frame_of
from policies.groups import Groups
from policies.mixes import problem_of
from policies.options import MixOptions, options_of


class SingleTypes:
    """Time-weighted cost of each product alone, over the same planned demand as the mix was chosen for."""

    def __init__(self) -> None:
        """Start at zero."""
        self._scratch: dict[str, Any] = {}
        self._memo: dict[tuple[str, float], dict[str, float]] = {}
        self._dollars: dict[str, float] = {}
        self._unable: dict[str, set[str]] = {}
        self._seconds = 0.0

    def observe(self, snapshot: Snapshot, seconds: float) -> None:
        """Add `seconds` of the demand planned for now, every service on each product."""
        self._seconds += seconds
        for name in sorted(snapshot.services):
            capacity = snapshot.capacity(name)
            if capacity is None or not capacity.final or capacity.wanted_per_second <= 0.0:
                continue
            costs = self._costs(snapshot, name, capacity)
            for product in sorted(snapshot.accelerators):
                if product in costs:
                    self._dollars[product] = self._dollars.get(product, 0.0) + costs[product] * seconds
                else:
                    self._unable.setdefault(product, set()).add(name)

    def _costs(self, snapshot: Snapshot, name: str, capacity: Capacity) -> dict[str, float]:
        key = (name, round(capacity.wanted_per_second, 6))
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = self._solve(snapshot, name, capacity)
        return found

    def _solve(self, snapshot: Snapshot, name: str, capacity: Capacity) -> dict[str, float]:
        service = snapshot.services[name]
        groups, usual = Groups(snapshot), MixOptions()
        frame = frame_of(groups, service, self._scratch)
        if capacity.shape is None:
            return {}
        shares = frame.shares(capacity.shape)
        options = options_of(groups, service, usual.headroom, usual.work_units)
        problem = problem_of(frame, shares, capacity.wanted_per_second, None, None, options)
        products = {column.name: column.profile.variant.accelerator for column in frame.columns}
        costs: dict[str, float] = {}
        for plan in single_plans(problem):
            product = products[plan.variant]
            costs[product] = min(plan.cost_per_hour, costs.get(product, plan.cost_per_hour))
        return costs

    def results(self, products: list[str]) -> list[SingleType]:
        """Dollars per hour by product, cheapest first; a product that cannot serve every service has none."""
        found = []
        for product in products:
            unable = self._unable.get(product)
            if unable:
                why = f"cannot keep the objective of {', '.join(sorted(unable))}"
                found.append(SingleType(accelerator=product, dollars_per_hour=None, why_not=why))
            elif self._seconds > 0.0:
                cost = self._dollars.get(product, 0.0) / self._seconds
                found.append(SingleType(accelerator=product, dollars_per_hour=round(cost, 4)))
        return sorted(
            found, key=lambda s: (s.dollars_per_hour is None, s.dollars_per_hour or 0.0, s.accelerator)
        )
