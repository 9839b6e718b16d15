"""From a frame and a load to a solved mix, remembered by everything the answer depends on.

Limits that cannot bind are left out of the problem, so that a node more or less somewhere does not make every
service's problem a new one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from cluster.targets import Mix, MixPart, SizeShares
from placement.selection.explain import SinglePlan, single_plans
from placement.selection.headroom import RHO_FLOOR, RHO_SLOPE
from placement.selection.mix import solve_ranked
from placement.selection.problem import MixProblem, MixSolution, RequestClass, VariantOption
from policies.frames import Column, Floats, Frame
from policies.options import MixOptions
from policies.sizing import Masks, allowed_cells, concurrency

MEMO_LIMIT = 4_096
"""Solved problems kept in scratch; the oldest go first."""

SHARE_DIGITS = 3
"""Decimals of a size's share."""

SPARE_UNITS = 4
"""Units beyond what carries the whole load alone that a count may still usefully have (runners-up have spares)."""


OVERSIZE_SHARE = 0.01
"""Share of a class a variant may be unable to serve and still take a share of the rest: the gateway passes it over
for requests that do not fit it."""


class Answer(NamedTuple):
    """The cheapest mix of a problem and the cheapest other one, with different counts; `key`: the problem's digest."""

    key: bytes
    problem: MixProblem
    best: MixSolution
    second: MixSolution


class Demand(NamedTuple):
    """What is routed as one: rate in requests/s [k], number of its class [k], and its cells."""

    rates: Floats
    classes: NDArray[np.int64]
    cells: tuple[NDArray[np.int64], ...]
    weights: tuple[Floats, ...]

    def throughput(self, column: Column) -> Floats:
        """Requests/s of one replica for each of them [k]: harmonic over its cells, 0 where it cannot serve them."""
        found = np.zeros(len(self.rates))
        for number, (cells, weights) in enumerate(zip(self.cells, self.weights, strict=True)):
            rate = column.profile.throughput[cells]
            able = rate > 0.0
            served = float(weights[able].sum())
            if served > 0.0 and served >= (1.0 - OVERSIZE_SHARE) * float(weights.sum()):
                found[number] = served / float((weights[able] / rate[able]).sum())
        return found


def demand_of(frame: Frame, shares: Floats, per_second: float, options: MixOptions) -> Demand:
    """The load as it will be routed: by size, or one blend a class.

    A class that no variant can serve as a blend is routed by size all the same: better some than none.
    """
    demand = shares * per_second
    size = max(len(frame.edges[0]) * len(frame.edges[1]), 1)
    cells = np.flatnonzero(demand > 0.0)
    groups = [cells[cells // size == number] for number in range(len(frame.classes))]
    blended = _demand([g for g in groups if g.size], demand, size)
    if not options.by_size and _servable(frame, blended):
        return blended
    return _demand([cells[i : i + 1] for i in range(cells.size)], demand, size)


def _demand(groups: list[NDArray[np.int64]], demand: Floats, size: int) -> Demand:
    weights = tuple(demand[cells] for cells in groups)
    rates = np.array([float(w.sum()) for w in weights])
    classes = np.array([int(cells[0]) // size for cells in groups], dtype=np.int64)
    return Demand(rates, classes, tuple(groups), weights)


def _servable(frame: Frame, demand: Demand) -> bool:
    if not frame.columns:
        return False
    best = np.max([demand.throughput(column) for column in frame.columns], axis=0, initial=0.0)
    return bool(np.all(best > 0.0))


def problem_of(
    frame: Frame,
    shares: Floats,
    per_second: float,
    free_gpus: Mapping[str, int] | None,
    most_units: Mapping[str, int] | None,
    options: MixOptions,
) -> MixProblem:
    """The selection problem of a load on a frame.

    `free_gpus` bounds GPUs per pool (in the frame's quantum) and `most_units` the count of each column (TP groups need whole nodes'
    devices); None: no limit at all. Cells without demand are left out.
    """
    demand = demand_of(frame, shares, per_second, options)
    rates = demand.rates
    columns = []
    wanted: dict[str, int] = {}
    masks = allowed_cells(frame, shares) if options.spills else {}
    for column in frame.columns:
        throughput, running = _carried(frame, demand, column, shares, masks)
        enough = useful_units(rates, throughput, running, options.headroom)
        gpus = column.takes(frame.quantum)
        wanted[column.pool] = wanted.get(column.pool, 0) + enough * gpus
        most = None if most_units is None else most_units.get(column.name, 0)
        columns.append(
            VariantOption(
                name=column.name,
                pool=column.pool,
                dollars_per_hour=column.dollars_per_hour,
                throughput=tuple(throughput.tolist()),
                gpus=gpus,
                spot=column.spot,
                risk_dollars=column.risk_dollars,
                concurrency=running,
                max_units=None if most is None or most >= enough else most,
            )
        )
    inventory: dict[str, int | None] = {}
    for pool in sorted(wanted):
        free = None if free_gpus is None else free_gpus.get(pool, 0)
        inventory[pool] = None if free is None or free >= wanted[pool] else free
    dollars = np.asarray(frame.unserved_dollars)[[int(cells[0]) for cells in demand.cells]]
    return MixProblem(
        demand=tuple(rates.tolist()),
        variants=tuple(columns),
        inventory=inventory,
        cell_unserved_dollars=tuple(dollars.tolist()),
        classes=classes_of(frame, demand),
        headroom=options.headroom,
        work_units=options.work_units,
    )


def _carried(
    frame: Frame, demand: Demand, column: Column, shares: Floats, masks: Masks
) -> tuple[Floats, float]:
    """Requests/s of one replica for each of the demand [k], and the concurrency that its pool's headroom is made from."""
    throughput, mask = demand.throughput(column), masks.get(column.profile.variant.key)
    if mask is None:
        return throughput, column.profile.concurrency
    first = [int(cells[0]) for cells in demand.cells]
    return np.where(mask[first], throughput, 0.0), concurrency(frame, column, shares, mask)


def classes_of(frame: Frame, demand: Demand) -> tuple[RequestClass, ...]:
    """The classes that have load and are promised more than latency, with what is routed of each."""
    return tuple(
        RequestClass(
            name=name,
            cells=tuple(np.flatnonzero(demand.classes == number).tolist()),
            spot_share=promise.spot_share,
            survives_loss=promise.survives_loss,
        )
        for number, (name, promise) in enumerate(zip(frame.classes, frame.promises, strict=True))
        if (promise.spot_share < 1.0 or promise.survives_loss) and (demand.classes == number).any()
    )


def useful_units(rates: Floats, throughput: Floats, running: float, headroom: bool) -> int:
    """Units of a column that carry all the demand it can, alone, and a few to spare."""
    able = throughput > 0.0
    load = float((rates[able] / throughput[able]).sum())
    if not headroom:
        return math.ceil(load) + SPARE_UNITS
    # Cap(n) = max(floor n, n - slope sqrt(n / B)) >= load, solved for n on either branch.
    half = RHO_SLOPE / (2.0 * math.sqrt(running))
    alone = (half + math.sqrt(half * half + load)) ** 2
    return math.ceil(min(load / RHO_FLOOR, alone)) + SPARE_UNITS


def solved(problem: MixProblem, scratch: dict[str, Any]) -> Answer:
    """The two cheapest mixes of a problem, from scratch when it was solved before; both are counted there."""
    memo: dict[bytes, Answer] = scratch.setdefault("mixes", {})
    key = hashlib.blake2b(msgspec.json.encode(problem, order="deterministic"), digest_size=16).digest()
    answer = memo.get(key)
    count = "mix_solves" if answer is None else "mix_hits"
    scratch[count] = scratch.get(count, 0) + 1
    if answer is None:
        best, second = solve_ranked(problem, 2)
        answer = Answer(key, problem, best, second)
        while len(memo) >= MEMO_LIMIT:
            del memo[next(iter(memo))]
        memo[key] = answer
    return answer


def singles(answer: Answer, scratch: dict[str, Any]) -> tuple[SinglePlan, ...]:
    """The same load on each variant alone, cheapest first, from scratch when known."""
    memo: dict[bytes, tuple[SinglePlan, ...]] = scratch.setdefault("singles", {})
    found = memo.get(answer.key)
    if found is None:
        found = single_plans(answer.problem)
        while len(memo) >= MEMO_LIMIT:
            del memo[next(iter(memo))]
        memo[answer.key] = found
    return found


def fits(
    solution: MixSolution, frame: Frame, free_gpus: Mapping[str, int], most_units: Mapping[str, int]
) -> bool:
    """Whether a solution's counts keep the limits it was perhaps solved without."""
    if not solution.feasible:
        return False
    used: dict[str, int] = {}
    columns = {column.name: column for column in frame.columns}
    for name, units in solution.counts.items():
        column = columns[name]
        if units > most_units.get(name, 0):
            return False
        used[column.pool] = used.get(column.pool, 0) + units * column.takes(frame.quantum)
    return all(gpus <= free_gpus.get(pool, 0) for pool, gpus in used.items())


def mix_of(
    frame: Frame, shares: Floats, per_second: float, solution: MixSolution, options: MixOptions
) -> Mix:
    """A solution as a `Mix`, with rates of the real load (folded cells weigh more than they arrive)."""
    demand = demand_of(frame, shares, per_second, options)
    rates, classes = demand.rates, demand.classes
    total = float(rates.sum())
    scale = per_second / total if total > 0.0 else 1.0
    columns = {column.name: column for column in frame.columns}
    by_class = np.bincount(classes, weights=rates, minlength=len(frame.classes))
    parts, routing = [], {}
    for name in sorted(solution.counts):
        column = columns[name]
        routed = rates * np.asarray(solution.routing[name])
        weight = float(routed.sum()) / total if total > 0.0 else 0.0
        parts.append(
            MixPart(
                variant=column.profile.variant.key,
                pool=column.pool,
                units=solution.counts[name],
                weight=weight,
            )
        )
        for number, request_class in enumerate(frame.classes):
            share = float(routed[classes == number].sum())
            if share > 0.0:
                routing[f"{request_class}|{name}"] = share / float(by_class[number])
    return Mix(
        parts=tuple(parts),
        dollars_per_hour=solution.cost_per_hour,
        requests_per_second=solution.carried_per_second * scale,
        unserved_per_second=solution.unserved_per_second * scale,
        routing=routing,
    )


def sized_mix(
    frame: Frame, shares: Floats, per_second: float, solution: MixSolution, options: MixOptions
) -> Mix:
    """`mix_of` with its routing size by size, where it was planned by size: what gateways are to be told."""
    mix = mix_of(frame, shares, per_second, solution, options)
    if not options.by_size:
        return mix
    demand = demand_of(frame, shares, per_second, options)
    size = len(frame.edges[0]) * len(frame.edges[1])
    found: dict[str, tuple[float, ...]] = {}
    for name in sorted(solution.counts):
        flat: Floats = np.zeros(len(frame.classes) * size)
        for cells, share in zip(demand.cells, solution.routing[name], strict=True):
            flat[cells] = share
        flat = np.asarray(np.round(np.clip(flat, 0.0, 1.0), SHARE_DIGITS), dtype=np.float64)
        for number, request_class in enumerate(frame.classes):
            own = flat[number * size : (number + 1) * size]
            if own.any():
                found[f"{request_class}|{name}"] = tuple(own.tolist())
    sizes = SizeShares(input_edges=frame.edges[0], output_edges=frame.edges[1], shares=found)
    return msgspec.structs.replace(mix, sizes=sizes)


def single_mix(frame: Frame, plan: SinglePlan, per_second: float) -> Mix:
    """A single-variant plan as a `Mix`."""
    column = next(column for column in frame.columns if column.name == plan.variant)
    part = MixPart(variant=column.profile.variant.key, pool=column.pool, units=plan.units, weight=1.0)
    return Mix(parts=(part,), dollars_per_hour=plan.cost_per_hour, requests_per_second=per_second)


class Cheapest(NamedTuple):
    """The answer within the limits, and the one without any (the same where the limits do not bind)."""

    answer: Answer
    roomy: Answer

    @property
    def units_used(self) -> int:
        """Solver work behind both, whether done now or before."""
        extra = 0 if self.answer is self.roomy else self.roomy.best.units_used
        return self.answer.best.units_used + extra


def cheapest(
    frame: Frame,
    shares: Floats,
    per_second: float,
    free_gpus: Mapping[str, int],
    most_units: Mapping[str, int],
    options: MixOptions,
    scratch: dict[str, Any],
) -> Cheapest:
    """The cheapest mix and its exact runner-up within the limits; the unlimited ones where they keep them."""
    roomy = solved(problem_of(frame, shares, per_second, None, None, options), scratch)
    second_fits = not roomy.second.feasible or fits(roomy.second, frame, free_gpus, most_units)
    if second_fits and fits(roomy.best, frame, free_gpus, most_units):
        return Cheapest(roomy, roomy)
    tight = problem_of(frame, shares, per_second, free_gpus, most_units, options)
    return Cheapest(solved(tight, scratch), roomy)
