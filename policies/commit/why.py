"""Reasons of commitment, with their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.base import Ref
from cluster.reasons import Alternative, Quantity, Reason, Remedy, Unit, Verdict
from cluster.serving import Service
from cluster.targets import Mix
from placement.selection.explain import SinglePlan
from policies.commit.settling import Limits, Settled
from policies.draft import quantity
from policies.frames import Column, Floats, Frame


def chosen(
    service: Service,
    mix: Mix,
    wanted: float,
    free: int,
    against: Sequence[Alternative],
    remedy: Remedy | None,
) -> Reason:
    """A new mix."""
    return Reason(
        code="MixChosen", subject=service.ref, verdict=Verdict.CHOSEN, choice=mix.text,
        need=quantity("demand", wanted, "req/s"), have=quantity("capacity", mix.requests_per_second, "req/s"),
        limit=quantity("free", free, "GPU"), facts=(quantity("cost", mix.dollars_per_hour, "$/h"),),
        against=tuple(against), remedy=remedy, refs=_pools(mix),
    )  # fmt: skip


def kept(
    service: Service, mix: Mix, wanted: float, least_saving: float, against: Sequence[Alternative]
) -> Reason:
    """The standing mix still does."""
    return Reason(
        code="MixKept", subject=service.ref, verdict=Verdict.KEPT, choice=mix.text,
        need=quantity("demand", wanted, "req/s"), have=quantity("capacity", mix.requests_per_second, "req/s"),
        limit=quantity("least_saving", least_saving, "$/h"),
        facts=(quantity("cost", mix.dollars_per_hour, "$/h"),), against=tuple(against), refs=_pools(mix),
    )  # fmt: skip


def waits(service: Service, mix: Mix, moves: int, left: int, saves: float) -> Reason:
    """A cheaper mix would move more running replicas than the disruption budgets allow now."""
    return Reason(
        code="MixWaits", subject=service.ref, verdict=Verdict.BLOCKED, choice=mix.text,
        need=quantity("moves", moves, "moves"), have=quantity("saves", saves, "$/h"),
        limit=quantity("left", left, "moves"), refs=_pools(mix),
    )  # fmt: skip


def held(
    service: Service, mix: Mix, wanted: float, hold_seconds: float, against: Sequence[Alternative]
) -> Reason:
    """A cheaper mix is there, but the standing one was chosen only just now."""
    return Reason(
        code="MixHeld", subject=service.ref, verdict=Verdict.KEPT, choice=mix.text,
        need=quantity("demand", wanted, "req/s"), have=quantity("capacity", mix.requests_per_second, "req/s"),
        limit=quantity("hold", hold_seconds, "s"),
        facts=(quantity("cost", mix.dollars_per_hour, "$/h"),), against=tuple(against), refs=_pools(mix),
    )  # fmt: skip


def short(service: Service, mix: Mix, wanted: float, free: int, remedy: Remedy | None) -> Reason:
    """Not all of the demand can be carried."""
    return Reason(
        code="ShortOfCapacity", subject=service.ref, verdict=Verdict.SHED, choice=mix.text,
        need=quantity("demand", wanted, "req/s"),
        have=quantity("carried", max(0.0, wanted - mix.unserved_per_second), "req/s"),
        limit=quantity("free", free, "GPU"), facts=(quantity("shed", mix.unserved_per_second, "req/s"),),
        remedy=remedy, refs=_pools(mix),
    )  # fmt: skip


def exposed(service: Service, settled: Settled) -> Reason:
    """The loss of one replica would leave something unserved that is to survive it."""
    task = settled.problem
    cells = [cell for each in task.classes if each.survives_loss for cell in each.cells]
    prices = task.unserved_prices()
    rate = sum(task.demand[cell] for cell in cells)
    dollars = sum(task.demand[cell] * prices[cell] for cell in cells)
    lost = rate * min(1.0, settled.exposed / max(dollars, 1e-9))
    return Reason(
        code="LossExposed", subject=service.ref, verdict=Verdict.CAPPED, choice=settled.mix.text,
        need=quantity("survives", rate, "req/s"), have=quantity("lost", lost, "req/s"),
        limit=quantity("priced", settled.exposed, "$/h"), refs=_pools(settled.mix),
    )  # fmt: skip


def classes_shed(service: Service, frame: Frame, shares: Floats, settled: Settled) -> list[Reason]:
    """Whose load is left unserved, of a service with several classes."""
    size = len(shares) // max(len(frame.classes), 1)
    prices = {each.request_class: each.unserved_dollars for each in service.objectives}
    found = []
    for number, name in enumerate(frame.classes if len(frame.classes) > 1 else ()):
        rate = settled.wanted * float(shares[number * size : (number + 1) * size].sum())
        served = sum(part for key, part in settled.mix.routing.items() if key.startswith(f"{name}|"))
        lost = rate * max(0.0, 1.0 - served)
        if lost > 1e-6 * settled.wanted:
            found.append(
                Reason(
                    code="ClassShed", subject=service.ref, verdict=Verdict.SHED, choice=name,
                    need=quantity("asked", rate, "req/s"), have=quantity("unserved", lost, "req/s"),
                    limit=quantity("priced", lost * prices[name], "$/h"),
                )
            )  # fmt: skip
    return found


def nothing(service: Service, in_use: int) -> Reason:
    """No capacity is wanted."""
    return Reason(
        code="NothingWanted", subject=service.ref, verdict=Verdict.CHOSEN,
        need=quantity("demand", 0.0, "req/s"), have=quantity("in_use", in_use, "replicas"),
        limit=quantity("floor", service.floor_units, "replicas"),
    )  # fmt: skip


def more_capacity(pool: str, gpus: int, saves: float) -> Remedy:
    """GPUs of a pool that would make the unlimited optimum possible, and what that saves."""
    return Remedy("AddCapacity", pool, (quantity("need", gpus, "GPU"), quantity("have", saves, "$/h")))


def unworthy(frame: Frame, settled: Settled, plans: Sequence[SinglePlan]) -> Remedy | None:
    """What would have the rest served though no GPU lacks: a higher price of unserved load, or more of it on spot."""
    if settled.mix.unserved_per_second <= 1e-9 * settled.wanted:
        return None
    columns = {column.name: column for column in frame.columns}
    costs = [(plan.cost_per_hour + plan.units * columns[plan.variant].risk_dollars, plan) for plan in plans]
    if costs:
        cost, plan = min(costs, key=lambda each: (each[0], each[1].variant))
        column = columns[plan.variant]
        if cost <= settled.objective:
            return None
        choice = f"{plan.units} {column.profile.variant.key} in {column.pool}"
        worth = settled.objective - settled.mix.dollars_per_hour
        return Remedy("RaiseWorth", choice, (quantity("need", cost, "$/h"), quantity("have", worth, "$/h")))
    share = min((promise.spot_share for promise in frame.promises), default=1.0)
    spot = sorted({column.pool for column in frame.columns if column.spot})
    if not spot or share >= 1.0:
        return None
    return Remedy("AllowSpot", " and ".join(spot), (quantity("have", share, "ratio"),))


def other(mix: Mix, extra: float) -> Alternative:
    """Another mix, and what it would cost more per hour (unserved requests priced)."""
    return Alternative(choice=mix.text, cost=Quantity("more", float(extra), "$/h"))


def unused(
    frame: Frame,
    shares: Floats,
    limits: Limits,
    settled: Settled,
    plans: Sequence[SinglePlan],
    named: set[str],
) -> list[Alternative]:
    """Why each column that could serve is not in the mix, of those that are not ``named`` yet.

    It would cost more, it would take more GPUs than are free, or it keeps the promise for some sizes of request only.
    """
    alone = {plan.variant: plan for plan in plans}
    found = []
    for column in frame.columns:
        if column.name in named:
            continue
        plan, gpus = alone.get(column.name), column.profile.variant.gpu_share
        if plan is None:
            able = float(shares[column.profile.throughput > 0.0].sum())
            found.append(_lacking(column, "ServesPartly", 1.0, min(able, 0.999), "ratio"))
        elif plan.units > limits.most_units.get(column.name, 0):
            free = limits.free_gpus.get(column.pool, 0) / limits.quantum
            found.append(_lacking(column, "TooFewGpus", plan.units * gpus, free, "GPU", plan.units))
        else:
            cost = plan.cost_per_hour
            found.append(_lacking(column, "PriceTooHigh", cost, settled.objective, "$/h", plan.units))
    return found


def _lacking(
    column: Column, code: str, need: float, have: float, unit: Unit, units: int | None = None
) -> Alternative:
    count = "" if units is None else f"{units} "
    return Alternative(
        choice=f"{count}{column.profile.variant.key} in {column.pool}",
        code=code,
        facts=(quantity("need", need, unit), quantity("have", have, unit)),
    )


def ruled_out(frame: Frame) -> list[Alternative]:
    """The variants that cannot serve, with what excludes them."""
    return [refusal.alternative() for refusal in frame.excluded]


def _pools(mix: Mix) -> tuple[Ref, ...]:
    return tuple(Ref("Pool", pool) for pool in sorted({part.pool for part in mix.parts}))
