"""Watts that replicas may be planned to draw, where a power domain says so (`PowerDomain.serving_watts`).

Breakers are the power loop's, which caps what draws too much; this bounds what is planned, at the GPUs' TDP, so that
caps need not bite. A pool counts to the nearest domain with a budget that all of its nodes are below; what is held in it
by others than the services that are planned is taken off.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from cluster.base import Ref
from cluster.hardware import Offer
from cluster.reasons import Reason, Verdict
from cluster.snapshot import Snapshot
from placement.selection.fleet import FleetPlan, ModelNeed
from policies.draft import quantity
from policies.select.competing import Gpus


class Watts(NamedTuple):
    """Watts left by domain, and of each pool under a budget its domain and the watts of one GPU."""

    left: dict[str, float]
    of_pool: dict[str, tuple[str, int]]

    def wanted(self, given: Iterable[Mapping[str, int]]) -> dict[str, float]:
        """Watts by domain of GPUs by pool."""
        found: dict[str, float] = {}
        for each in given:
            for pool, gpus in each.items():
                if pool in self.of_pool:
                    domain, watts = self.of_pool[pool]
                    found[domain] = found.get(domain, 0.0) + gpus * watts
        return found

    def short(self, given: Iterable[Mapping[str, int]]) -> bool:
        """Whether GPUs by pool, all together, draw more than is left."""
        return any(watts > self.left[domain] for domain, watts in self.wanted(given).items())

    def bound(self, need: ModelNeed) -> ModelNeed:
        """A need whose variants draw what they draw."""
        variants = tuple(
            msgspec.structs.replace(
                option, domain=self.of_pool[option.pool][0], watts=option.gpus * self.of_pool[option.pool][1]
            )
            if option.pool in self.of_pool
            else option
            for option in need.problem.variants
        )
        return msgspec.structs.replace(need, problem=msgspec.structs.replace(need.problem, variants=variants))


def budgets(view: Snapshot, free: Gpus) -> Watts:
    """What is left where ``free`` GPUs by pool may be had."""
    declared = {name for name, each in view.domains.items() if each.serving_watts is not None}
    if not declared:
        return Watts({}, {})
    above: dict[str, set[str]] = {}
    devices: Gpus = {}
    for node in view.nodes.values():
        if node.offer is not Offer.LOST:
            above.setdefault(node.pool, set()).add(_nearest(view, node.power_domain, declared))
            devices[node.pool] = devices.get(node.pool, 0) + sum(1 for d in node.devices if d.healthy)
    of_pool = {
        pool: (next(iter(found)), view.accelerators[view.pools[pool].accelerator].tdp_watts)
        for pool, found in sorted(above.items())
        if len(found) == 1 and "" not in found and pool in view.pools
    }
    left = {name: float(view.domains[name].serving_watts or 0) for name in sorted(declared)}
    for pool, (domain, watts) in of_pool.items():
        left[domain] -= watts * max(0, devices[pool] - free.get(pool, 0))
    return Watts({name: max(0.0, watts) for name, watts in left.items()}, of_pool)


def _nearest(view: Snapshot, domain: str, declared: set[str]) -> str:
    """The nearest domain with a budget, at or above one; empty where there is none."""
    seen: set[str] = set()
    while domain and domain not in seen and domain not in declared:
        seen.add(domain)
        known = view.domains.get(domain)
        domain = known.parent if known is not None else ""
    return domain if domain in declared else ""


def scarce_watts(view: Snapshot, watts: Watts, wanted: Mapping[str, float], plan: FleetPlan) -> list[Reason]:
    """What one more kilowatt of each domain would save a joint plan, where it would."""
    return [
        Reason(
            code="WattsScarce", subject=view.domains[domain].ref if domain in view.domains else Ref("PowerDomain", domain),
            verdict=Verdict.CAPPED, choice=domain, need=quantity("wanted", wanted.get(domain, 0.0), "W"),
            have=quantity("left", watts.left[domain], "W"), limit=quantity("saves", 1_000.0 * price, "$/h"),
        )
        for domain, price in sorted(plan.watt_prices.items())
        if price > 1e-6
    ]  # fmt: skip
