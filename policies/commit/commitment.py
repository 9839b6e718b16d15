"""What was decided for one service, and what is told of it: other mixes, why GPUs are not used, what would help."""

from __future__ import annotations

from typing import Any, NamedTuple

from cluster.reasons import Alternative, Reason, Remedy
from cluster.serving import Service
from cluster.targets import Capacity, Scored
from policies.commit import why
from policies.commit.settling import Limits, Rules, Settled, counts_of, lacking_of, moved_units
from policies.frames import Floats, Frame
from policies.mixes import mix_of, single_mix, singles

SINGLES_TOLD = 3
"""Single-variant plans named among a choice's alternatives."""


class Commitment(NamedTuple):
    """A service's decision with the limits and rules it was made under; for tests, explanations and prices."""

    service: Service
    frame: Frame
    shares: Floats
    limits: Limits
    settled: Settled
    rules: Rules


def against_of(made: Commitment, scratch: dict[str, Any]) -> list[Alternative]:
    """The exact runner-up, the cheapest plans with one variant alone, and why each other GPU is not used."""
    settled, frame = made.settled, made.frame
    found: list[Alternative] = []
    others: dict[str, int] = {}
    if settled.other is not None:
        others = settled.other.counts
        mix = mix_of(frame, made.shares, settled.wanted, settled.other, made.rules.options)
        found.append(why.other(mix, settled.other.objective_per_hour - settled.objective))
    told, plans = 0, singles(settled.found.roomy, scratch)
    named = set(settled.counts)
    for plan in plans:
        same = {plan.variant: plan.units} in (settled.counts, others)
        if not same and plan.units <= made.limits.most_units.get(plan.variant, 0) and told < SINGLES_TOLD:
            alone = single_mix(frame, plan, settled.wanted)
            found.append(why.other(alone, plan.cost_per_hour - settled.objective))
            named.add(plan.variant)
            told += 1
    unused = why.unused(frame, made.shares, made.limits, settled, plans, named)
    return [*found, *unused, *why.ruled_out(frame)]


def remedy_of(made: Commitment, scratch: dict[str, Any]) -> Remedy | None:
    """GPUs of the pool that lacks most for the unlimited optimum, and what having them would save; where none lacks, what
    else would have all of the load served.
    """
    short = lacking_of(made.frame, made.settled, made.limits)
    if short is not None:
        return why.more_capacity(*short)
    return why.unworthy(made.frame, made.settled, singles(made.settled.found.roomy, scratch))


def waits_of(made: Commitment, standing: Capacity) -> Reason:
    """A better mix, the decision's `wish`, would move more than the disruption budgets allow now."""
    wish = made.settled.wish
    assert wish is not None  # noqa: S101 - whoever asks has looked
    mix = mix_of(made.frame, made.shares, made.settled.wanted, wish, made.rules.options)
    saves = made.settled.objective - wish.objective_per_hour
    moves = moved_units(counts_of(standing.mix), wish.counts)
    return why.waits(made.service, mix, moves, made.limits.moves, saves)


def alternatives_of(made: Commitment) -> tuple[Scored, ...]:
    """The runner-up, as it stands beside the mix."""
    other = made.settled.other
    if other is None:
        return ()
    mix = mix_of(made.frame, made.shares, made.settled.wanted, other, made.rules.options)
    return (Scored(mix=mix, dollars_per_hour=other.objective_per_hour),)
