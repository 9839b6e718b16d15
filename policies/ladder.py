"""A geometric ladder of request rates: small moves of a load stay on one rung, so plans do not churn."""

from __future__ import annotations

import math


def rung_up(rate: float, ratio: float) -> float:
    """The lowest rung that is at least `rate` (0 stays 0). `ratio` > 1 is the step between rungs."""
    if rate <= 0.0:
        return 0.0
    step = math.log(ratio)
    return _rung(math.ceil(math.log(rate) / step - 1e-9), step)


def rung_down(rate: float, ratio: float) -> float:
    """The highest rung that is at most `rate`."""
    if rate <= 0.0:
        return 0.0
    step = math.log(ratio)
    return _rung(math.floor(math.log(rate) / step + 1e-9), step)


def _rung(number: int, step: float) -> float:
    # Twelve digits: the same rung from above and from below is the same number.
    return float(f"{math.exp(number * step):.12g}")
