"""Reasons of commitment, with their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from cluster.base import Ref
from cluster.reasons import Alternative, Quantity, Reason, Remedy, Verdict
from cluster.serving import Service
from cluster.targets import Mix
from policies.commit.settling import Settled
from policies.draft import quantity
from policies.frames import Frame


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


def other(mix: Mix, extra: float) -> Alternative:
    """Another mix, and what it would cost more per hour (unserved requests priced)."""
    return Alternative(choice=mix.text, cost=Quantity("more", float(extra), "$/h"))


def ruled_out(frame: Frame) -> list[Alternative]:
    """The variants that cannot serve, with what excludes them."""
    return [refusal.alternative() for refusal in frame.excluded]


def _pools(mix: Mix) -> tuple[Ref, ...]:
    return tuple(Ref("Pool", pool) for pool in sorted({part.pool for part in mix.parts}))
