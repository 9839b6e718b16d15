"""Pool-size headroom: how full a pool of n equal replicas may be planned.

Small pools must be planned emptier, because one busy replica cannot be smoothed by the others. Simulated pools of
four GPU types keep 99 % of their requests inside the objective up to about rho(n) = 1 - 2 / sqrt(n B), with B the
running requests of one replica at its limit (usable utilisation 0.41 for one L4, 0.97 for sixteen H100).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

RHO_FLOOR = 0.35
"""A pool is never planned emptier than this, however small."""

RHO_SLOPE = 2.0
"""Standard deviations of the concurrency that are kept free."""


def rho(units: NDArray[np.float64], concurrency: float) -> NDArray[np.float64]:
    """Usable share of a pool's throughput for each pool size in ``units`` (0 where there is none)."""
    safe = np.maximum(units, 1.0)
    share = np.clip(1.0 - RHO_SLOPE / np.sqrt(safe * concurrency), RHO_FLOOR, 1.0)
    return np.where(units > 0, share, 0.0)


def capacity_table(highest: int, concurrency: float, headroom: bool) -> NDArray[np.float64]:
    """Cap(n) = n rho(n) for n = 0..highest, in units of one replica's throughput; n itself without headroom.

    Convex in n with Cap(0) = 0, since n rho(n) = max(floor n, n - 2 sqrt(n / B)): the solver's bounds rest on it.
    """
    units = np.arange(highest + 1, dtype=np.float64)
    return units * rho(units, concurrency) if headroom else units


def least_units(busy: float, concurrency: float, headroom: bool) -> int:
    """Fewest units n with Cap(n) >= ``busy``, a rounding error less being enough; their number costs no time."""
    half = RHO_SLOPE / (2.0 * math.sqrt(concurrency))
    real = min(busy / RHO_FLOOR, (half + math.sqrt(half * half + busy)) ** 2) if headroom else busy
    units = max(0, math.floor(real) - 1)
    while units * (rho(np.array([float(units)]), concurrency)[0] if headroom else 1.0) < busy * (1.0 - 1e-12):
        units += 1
    return units
