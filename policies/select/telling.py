"""Reasons of joint plans, with their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.base import Ref
from cluster.reasons import Alternative, Quantity, Reason, Remedy, Verdict
from cluster.targets import Mix
from placement.selection.fleet import FleetPlan, Shortage
from placement.selection.fleet_explain import RunnerUp
from policies.draft import quantity
from policies.select.competing import Competitor


def allotted(each: Competitor, mix: Mix, plan: FleetPlan, other: RunnerUp | None) -> Reason:
    """A service's part of the plan, what it could run instead, and what would cure what it lacks."""
    against = []
    if other is not None:
        text = " + ".join(f"{n} {name.partition('|')[0]}" for name, n in sorted(other.counts.items()))
        against = [Alternative(choice=text or "nothing", cost=Quantity("more", other.regret_per_hour, "$/h"))]
    short = [s for s in plan.shortages if s.model == each.name and s.cure and not s.exposed]
    return Reason(
        code="MixAllotted", subject=each.service.ref, verdict=Verdict.CHOSEN, choice=mix.text,
        need=quantity("services", len(plan.solutions), "services"),
        have=quantity("cost", plan.objective_per_hour, "$/h"), limit=quantity("bound", plan.bound, "$/h"),
        facts=(quantity("shed", mix.unserved_per_second, "req/s"),), against=tuple(against),
        remedy=cure(each, short), refs=tuple(Ref("Pool", pool) for pool in sorted(each.pools)),
    )  # fmt: skip


def cure(each: Competitor, short: Sequence[Shortage]) -> Remedy | None:
    """GPUs with which the rest of a service's load could be served, and what they would save beyond their own price."""
    gpus: dict[str, int] = {}
    for shortage in short:
        for pool, count in shortage.cure.items():
            gpus[pool] = gpus.get(pool, 0) + count
    if not gpus:
        return None
    price = {column.pool: column.dollars_per_hour / column.takes(1) for column in each.frame.columns}
    saves = sum(shortage.dollars_per_hour for shortage in short) - sum(
        count * price[pool] for pool, count in gpus.items()
    )
    first, *others = sorted(gpus, key=lambda pool: (-gpus[pool], pool))
    beside = "".join(f" and {gpus[pool]} of {pool}" for pool in others)
    return Remedy(
        "AddCapacity", first + beside, (quantity("need", gpus[first], "GPU"), quantity("have", saves, "$/h"))
    )


def scarce(group: Sequence[Competitor], saves: Mapping[str, float], free: Mapping[str, int]) -> list[Reason]:
    """What one more GPU of each pool would save a joint plan, where it would."""
    found = []
    for pool, dollars in sorted(saves.items()):
        rivals = [each for each in group if pool in each.pools]
        refs = tuple(each.service.ref for each in rivals[:RIVALS_NAMED])
        found.append(_scarce(pool, dollars, len(rivals), free.get(pool, 0), refs))
    return found


RIVALS_NAMED = 50
"""Services that the reason about a pool refers to."""


def _scarce(pool: str, dollars: float, rivals: int, gpus: int, refs: tuple[Ref, ...]) -> Reason:
    return Reason(
        code="PoolScarce", subject=Ref("Pool", pool), verdict=Verdict.CAPPED, choice=pool,
        need=quantity("services", rivals, "services"), have=quantity("gpus", gpus, "GPU"),
        limit=quantity("saves", dollars, "$/h"), refs=refs,
    )  # fmt: skip
