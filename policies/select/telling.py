"""Reasons of joint plans, with their numbers."""

from __future__ import annotations

from cluster.reasons import Alternative, Quantity, Reason, Remedy, Verdict
from cluster.targets import Mix
from placement.selection.fleet import FleetPlan
from placement.selection.fleet_explain import RunnerUp
from policies.draft import quantity
from policies.select.competing import Competitor


def allotted(each: Competitor, mix: Mix, plan: FleetPlan, other: RunnerUp | None) -> Reason:
    """A service's part of the plan, what it could run instead, and what would cure what it lacks."""
    against = []
    if other is not None:
        text = " + ".join(f"{n} {name.partition('|')[0]}" for name, n in sorted(other.counts.items()))
        against = [Alternative(choice=text or "nothing", cost=Quantity("more", other.regret_per_hour, "$/h"))]
    short = next((s for s in plan.shortages if s.model == each.name and s.cure), None)
    remedy = None
    if short is not None:
        pool = max(sorted(short.cure), key=lambda name: plan.prices.get(name, 0.0))
        saves = plan.prices.get(pool, 0.0)
        remedy = Remedy(
            "AddCapacity", pool, (quantity("need", short.cure[pool], "GPU"), quantity("have", saves, "$/h"))
        )
    return Reason(
        code="MixAllotted", subject=each.service.ref, verdict=Verdict.CHOSEN, choice=mix.text,
        need=quantity("services", len(plan.solutions), "services"),
        have=quantity("cost", plan.objective_per_hour, "$/h"), limit=quantity("bound", plan.bound, "$/h"),
        facts=(quantity("shed", mix.unserved_per_second, "req/s"),), against=tuple(against), remedy=remedy,
    )  # fmt: skip
