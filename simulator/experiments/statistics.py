"""Figures over seeds: mean, spread and a confidence interval, never a single number without them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev

import msgspec
from scipy.stats import t

from simulator.experiments.outcomes import Outcome

CONFIDENCE = 0.95


class Estimate(msgspec.Struct, frozen=True):
    """A figure over `seeds` runs: mean, standard deviation, half width of the interval; None where one run has none."""

    mean: float
    deviation: float | None
    half_width: float | None
    seeds: int

    def __str__(self) -> str:
        """`mean ± half width`."""
        return f"{self.mean:.4g}" if self.half_width is None else f"{self.mean:.4g} ± {self.half_width:.2g}"


def estimate(values: Sequence[float]) -> Estimate:
    """Student's interval of the mean at CONFIDENCE. Raises ValueError without values or with one that is not finite."""
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"no estimate of {list(values)!r}: finite values of at least one run are needed")
    if len(values) == 1:
        return Estimate(values[0], None, None, 1)
    deviation = stdev(values)
    factor = float(t.ppf(0.5 + CONFIDENCE / 2.0, len(values) - 1))
    return Estimate(fmean(values), deviation, factor * deviation / math.sqrt(len(values)), len(values))


def by_point(outcomes: Iterable[Outcome]) -> dict[str, dict[str, Estimate]]:
    """Estimates of each figure by point, both in the order they came; runs that failed are left out."""
    found: dict[str, dict[str, list[float]]] = {}
    for outcome in outcomes:
        if outcome.error:
            continue
        figures = found.setdefault(outcome.run.point, {})
        for name, value in outcome.figures.items():
            figures.setdefault(name, []).append(value)
    return {point: {name: estimate(v) for name, v in figures.items()} for point, figures in found.items()}
