"""What other planners would buy for the same load: the anchors beside our exact mixes.

Both look at one model and at prices and throughputs alone: no inventory, no headroom, no unserved load.

* AIBrix (gpu_optimizer): Melange's assignment in units of 1/100 GPU, then each type's count rounded up by itself.
* WVA (llm-d workload-variant-autoscaler): one variant, the one with the lowest price per capacity among those able
  to serve every size, rounded up.
"""

from __future__ import annotations

import math

from cluster.base import Noun
from placement.selection.problem import MixProblem, VariantOption

HUNDREDTHS = 100
"""Parts of a GPU that AIBrix assigns (its gpu_fraction)."""


class BaselinePlan(Noun, kw_only=True, frozen=True):
    """Counts by variant and dollars per hour; no counts when the planner has no answer (``why``)."""

    counts: dict[str, int] = {}
    cost_per_hour: float = 0.0
    why: str = ""


def aibrix(problem: MixProblem) -> BaselinePlan:
    """Each size to the variant where it is cheapest, summed in 1/100 GPUs, then rounded up type by type.

    With hundredths of a GPU the assignment falls apart into one choice per size (slices change nothing), so this is
    its exact optimum rather than a solver's incumbent after five seconds. Sizes that no variant serves are dropped,
    as its infeasible cells are.
    """
    busy: dict[str, float] = {}
    for cell, rate in enumerate(problem.demand):
        able = [each for each in problem.variants if rate > 0.0 and each.throughput[cell] > 0.0]
        if able:
            best = min(able, key=lambda each: (each.dollars_per_hour / each.throughput[cell], each.name))
            busy[best.name] = busy.get(best.name, 0.0) + rate / best.throughput[cell]
    counts = {
        name: math.ceil(math.ceil(load * HUNDREDTHS * (1.0 - 1e-12)) / HUNDREDTHS)
        for name, load in sorted(busy.items())
    }
    return _plan(problem, counts)


def wva_greedy(problem: MixProblem) -> BaselinePlan:
    """The variant with the lowest price per capacity that serves every size asked for, rounded up."""
    able = []
    for option in problem.variants:
        load = _load(problem, option)
        if math.isfinite(load):
            able.append((option.dollars_per_hour * load, option.name, load))
    if not able:
        return BaselinePlan(why="no variant serves every size asked for; WVA mixes none")
    _, name, load = min(able)
    return _plan(problem, {name: max(1, math.ceil(load * (1.0 - 1e-12)))})


def _load(problem: MixProblem, option: VariantOption) -> float:
    """Units the whole demand keeps busy; infinite where some of it cannot be served."""
    pairs = [pair for pair in zip(problem.demand, option.throughput, strict=True) if pair[0] > 0.0]
    if any(not throughput > 0.0 for _, throughput in pairs):
        return math.inf
    return math.fsum(rate / throughput for rate, throughput in pairs)


def _plan(problem: MixProblem, counts: dict[str, int]) -> BaselinePlan:
    prices = {option.name: option.dollars_per_hour for option in problem.variants}
    cost = math.fsum(prices[name] * count for name, count in counts.items())
    return BaselinePlan(counts=counts, cost_per_hour=cost)
