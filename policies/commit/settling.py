"""One service's final mix: keep what stands, or take the cheapest that fits what is left.

A standing mix is kept while it carries the load within the limits and a new one would save less than a share of
its cost, or was only just chosen: replicas that come and go cost more than a few per cent of price. For the same
reason a mix that must change is grown or shrunk rather than replaced, while that costs little more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np

from cluster.restraint import UNLIMITED
from cluster.targets import Capacity, Mix, MixPart
from placement.selection.problem import MixProblem, MixSolution
from policies.commit.parts import Room
from policies.frames import Floats, Frame
from policies.mixes import Cheapest, cheapest, fits, problem_of, sized_mix, solved
from policies.options import MixOptions

TINY = 1e-9
"""Relative unserved load that counts as none."""

FLOOR_SLACK = 1.0 - 1e-9
"""A floor of n units asks a hair less than n units carry, so that rounding never buys one more."""


class Limits(NamedTuple):
    """What a service may use: GPUs per pool (in its frame's `quantum`), and units per column that whole nodes' devices
    allow; and how many of its running replicas may be moved for a better mix.
    """

    free_gpus: dict[str, int]
    most_units: dict[str, int]
    moves: int = UNLIMITED
    quantum: int = 1

    @property
    def gpus(self) -> int:
        """GPUs over all pools, begun ones not counted."""
        return sum(self.free_gpus.values()) // self.quantum


class Rules(NamedTuple):
    """When a standing mix is kept."""

    keep_share: float
    hold_seconds: float
    options: MixOptions


class Settled(NamedTuple):
    """The decision: the mix, its objective, the best other mix's objective, and how it came about.

    `problem` is what was solved; `counts` the chosen count vector and `other` the best different one; `wish` what
    would have been chosen but for a disruption budget. `exposed`: what the loss of one replica would leave unserved of
    the classes that are to survive it, at its price per hour.
    """

    mix: Mix
    objective: float
    other: MixSolution | None
    problem: MixProblem
    counts: dict[str, int]
    kept: bool
    wanted: float
    found: Cheapest
    wish: MixSolution | None = None
    exposed: float = 0.0


def limits_of(
    frame: Frame, free: Mapping[str, Any], moves: int = UNLIMITED, room: Mapping[str, Room] | None = None
) -> Limits:
    """Limits from free devices per node, given per pool as an array; `room` is what there is for shares, by column."""
    quantum, room = frame.quantum, room or {}
    free_gpus = {
        column.pool: quantum * int(np.sum(free[column.pool])) if column.pool in free else 0
        for column in frame.columns
    }
    begun = {column.pool: 0 for column in frame.columns}
    for column in frame.columns:
        if column.name in room:
            begun[column.pool] = max(begun[column.pool], room[column.name].begun_milli)
    free_gpus = {pool: gpus + begun[pool] for pool, gpus in free_gpus.items()}
    most = {
        column.name: int(np.sum(free[column.pool] // column.profile.variant.gpus))
        if column.pool in free
        else 0
        for column in frame.columns
    }
    return Limits(free_gpus, {**most, **{name: each.units for name, each in room.items()}}, moves, quantum)


def lacking_of(frame: Frame, settled: Settled, limits: Limits) -> tuple[str, int, float] | None:
    """The pool that lacks most for the unlimited optimum, the GPUs it lacks, and what having them would save ($/h)."""
    if settled.found.answer is settled.found.roomy:
        return None
    saves = settled.objective - settled.found.roomy.best.objective_per_hour
    if saves <= 1e-9:
        return None
    lacking: dict[str, int] = {}
    wanted: dict[str, int] = {}
    for column in frame.columns:
        units = settled.found.roomy.best.counts.get(column.name, 0)
        gpus = column.takes(limits.quantum)
        wanted[column.pool] = wanted.get(column.pool, 0) + units * gpus
        short = max(0, units - limits.most_units.get(column.name, 0)) * gpus
        lacking[column.pool] = max(lacking.get(column.pool, 0), short)
    for pool, gpus in wanted.items():
        lacking[pool] = max(lacking[pool], gpus - limits.free_gpus.get(pool, 0))
    pool = max(sorted(lacking), key=lambda name: lacking[name], default="")
    short = math.ceil(lacking[pool] / limits.quantum) if pool else 0
    return (pool, short, saves) if short > 0 else None


def wanted_rate(frame: Frame, shares: Floats, capacity: Capacity) -> float:
    """Requests/s to plan for: the load, or what the floor in reference units carries."""
    reference = frame.reference
    if reference is None:
        return capacity.wanted_per_second
    floor = frame.carried_by(reference, max(capacity.wanted_units, 0), shares)
    return max(capacity.wanted_per_second, floor * FLOOR_SLACK)


def settle(
    frame: Frame,
    shares: Floats,
    wanted: float,
    standing: Mix,
    changed_seconds_ago: float,
    limits: Limits,
    rules: Rules,
    scratch: dict[str, Any],
) -> Settled:
    """The final mix for `wanted` requests/s within the limits."""
    found = cheapest(frame, shares, wanted, limits.free_gpus, limits.most_units, rules.options, scratch)
    best = found.answer.best
    kept = (
        best
        if counts_of(standing) == best.counts
        else _kept(frame, shares, wanted, standing, limits, rules, scratch)
    )
    if kept is not None and kept.counts and _keeps(kept, best, changed_seconds_ago, rules):
        same = kept.counts == best.counts
        other = found.answer.second if same else best
        return _settled(frame, shares, wanted, kept, other, found, rules, is_kept=True)
    near = _adjacent(
        frame, shares, wanted, standing, limits, rules, scratch, grow=kept is None or _short(kept, best)
    )
    close = near is not None and near.counts != best.counts and _near_enough(near, best, rules)
    chosen, other = (near, best) if close and near is not None else (best, found.answer.second)
    if moved_units(counts_of(standing), chosen.counts) > limits.moves:
        tame = _within(frame, shares, wanted, standing, limits, rules, scratch, kept)
        if tame is not None:
            same = tame.counts == counts_of(standing)
            made = _settled(frame, shares, wanted, tame, chosen, found, rules, is_kept=same)
            return made._replace(wish=chosen)
    return _settled(frame, shares, wanted, chosen, other, found, rules, is_kept=False)


def moved_units(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """Running replicas that a change of counts moves: what goes while something else comes; 0 for growth or shrinking."""
    changes = [after.get(name, 0) - before.get(name, 0) for name in sorted({*before, *after})]
    return -sum(change for change in changes if change < 0) if max(changes, default=0) > 0 else 0


def _within(
    frame: Frame,
    shares: Floats,
    wanted: float,
    standing: Mix,
    limits: Limits,
    rules: Rules,
    scratch: dict[str, Any],
    kept: MixSolution | None,
) -> MixSolution | None:
    """The best mix that moves no more than the budget has left: what stands, grown, or with as many of one part moved."""
    counts = counts_of(standing)
    if not counts or not set(counts) <= {column.name for column in frame.columns}:
        return None
    floors = [counts]
    if limits.moves:
        floors = [{**counts, name: max(0, units - limits.moves)} for name, units in sorted(counts.items())]
    problem = problem_of(frame, shares, wanted, None, None, rules.options)
    found = [kept] if kept is not None and kept.counts else []
    for floor in floors:
        options = tuple(
            msgspec.structs.replace(
                option, min_units=floor.get(option.name, 0), max_units=limits.most_units.get(option.name, 0)
            )
            for option in problem.variants
        )
        if any(option.max_units is not None and option.min_units > option.max_units for option in options):
            continue
        solution = solved(msgspec.structs.replace(problem, variants=options), scratch).best
        if fits(solution, frame, limits.free_gpus, limits.most_units):
            found.append(solution)
    smaller = _adjacent(frame, shares, wanted, standing, limits, rules, scratch, grow=False)
    if smaller is not None and smaller.counts:
        found.append(smaller)
    tame = [each for each in found if moved_units(counts, each.counts) <= limits.moves]
    return min(tame, key=lambda s: (round(s.unserved_per_second, 9), s.objective_per_hour), default=None)


def _settled(
    frame: Frame,
    shares: Floats,
    wanted: float,
    solution: MixSolution,
    other: MixSolution,
    found: Cheapest,
    rules: Rules,
    *,
    is_kept: bool,
) -> Settled:
    return Settled(
        mix=sized_mix(frame, shares, wanted, solution, rules.options),
        objective=solution.objective_per_hour,
        other=other if other.feasible else None,
        problem=found.answer.problem,
        counts=solution.counts,
        kept=is_kept,
        wanted=wanted,
        found=found,
        exposed=solution.exposed_per_hour,
    )


def _kept(
    frame: Frame,
    shares: Floats,
    wanted: float,
    standing: Mix,
    limits: Limits,
    rules: Rules,
    scratch: dict[str, Any],
) -> MixSolution | None:
    """The standing counts with the best routing for today's load; None when they no longer fit or exist."""
    counts = counts_of(standing)
    columns = {column.name for column in frame.columns}
    if not counts or not set(counts) <= columns:
        return None
    problem = problem_of(frame, shares, wanted, None, None, rules.options)
    fixed = tuple(
        msgspec.structs.replace(option, min_units=counts[option.name], max_units=counts[option.name])
        for option in problem.variants
        if option.name in counts
    )
    solution = solved(msgspec.structs.replace(problem, variants=fixed), scratch).best
    return solution if fits(solution, frame, limits.free_gpus, limits.most_units) else None


def _adjacent(
    frame: Frame,
    shares: Floats,
    wanted: float,
    standing: Mix,
    limits: Limits,
    rules: Rules,
    scratch: dict[str, Any],
    *,
    grow: bool,
) -> MixSolution | None:
    """The cheapest mix that only adds to the standing one (`grow`), or only takes away from it."""
    counts = counts_of(standing)
    columns = {column.name for column in frame.columns}
    if not counts or not set(counts) <= columns:
        return None
    problem = problem_of(frame, shares, wanted, None, None, rules.options)
    options = []
    for option in problem.variants:
        most = limits.most_units.get(option.name, 0)
        if grow:
            options.append(
                msgspec.structs.replace(option, min_units=counts.get(option.name, 0), max_units=most)
            )
        else:
            options.append(msgspec.structs.replace(option, max_units=min(most, counts.get(option.name, 0))))
    if any(option.max_units is not None and option.min_units > option.max_units for option in options):
        return None
    solution = solved(msgspec.structs.replace(problem, variants=tuple(options)), scratch).best
    return solution if fits(solution, frame, limits.free_gpus, limits.most_units) else None


def _short(kept: MixSolution, best: MixSolution) -> bool:
    """Whether what stands carries less than it could."""
    return kept.unserved_per_second > best.unserved_per_second + TINY * max(1.0, kept.demand_per_second)


def _near_enough(near: MixSolution, best: MixSolution, rules: Rules) -> bool:
    """Whether replacing nothing is worth what it costs more: replicas that come and go cost time and money."""
    dearer = near.objective_per_hour - best.objective_per_hour
    return not _short(near, best) and dearer <= rules.keep_share * best.objective_per_hour


def counts_of(mix: Mix) -> dict[str, int]:
    """Units of a mix by column."""
    return {f"{part.variant}|{part.pool}": part.units for part in mix.parts if part.units > 0}


def _keeps(kept: MixSolution, best: MixSolution, changed_seconds_ago: float, rules: Rules) -> bool:
    """Whether keeping is right: it carries no less, and a change saves too little or comes too soon."""
    if _short(kept, best):
        return False
    saving = kept.objective_per_hour - best.objective_per_hour
    return saving <= rules.keep_share * kept.objective_per_hour or changed_seconds_ago < rules.hold_seconds


def users_mix(frame: Frame, shares: Floats, units: int, limits: Limits) -> Mix:
    """Exactly `units` replicas of the reference variant, from the cheapest pools that have them."""
    reference = frame.reference
    if reference is None or units <= 0:
        return Mix()
    parts: list[MixPart] = []
    cost, left = 0.0, units
    own = [c for c in frame.columns if c.profile.variant.key == reference.variant.key]
    for column in sorted(own, key=lambda c: (c.dollars_per_hour, c.name)):
        count = min(left, limits.most_units.get(column.name, 0))
        if count > 0:
            weight = count / units
            parts.append(MixPart(variant=reference.variant.key, pool=column.pool, units=count, weight=weight))
            cost += count * column.dollars_per_hour
            left -= count
    got = units - left
    parts = [msgspec.structs.replace(part, weight=part.units / got) for part in parts]
    carried = frame.carried_by(reference, got, shares)
    asked = frame.carried_by(reference, units, shares)
    routing = {f"{name}|{part.variant}|{part.pool}": part.weight for name in frame.classes for part in parts}
    return Mix(
        parts=tuple(parts),
        dollars_per_hour=cost,
        requests_per_second=carried,
        unserved_per_second=max(0.0, asked - carried),
        routing=routing,
    )
