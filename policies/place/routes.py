"""How a service's traffic is split over its ready replicas: the mix's routing, as far as it is there yet."""

from __future__ import annotations

import math
from collections.abc import Collection

from cluster.serving import Replica, ReplicaPhase
from policies.frames import Frame
from policies.groups import Groups
from policies.place.cases import Case, Part
from policies.shapes import declared

DIGITS = 6
"""Decimals of a weight: a millionth of the traffic is nobody's."""


def weights_of(case: Case, frame: Frame, going: Collection[str] = ()) -> dict[str, float]:
    """Weight per ready replica; they sum to 1, or there are none.

    A replica of the mix gets its part's share evenly. One that is not (surplus, still serving until the new
    ones are ready) counts by what it can carry compared with the mix's own. What is `going` gets nothing.
    """
    ready = {
        part: [r for r in case.live(part) if r.phase is ReplicaPhase.READY and r.key not in going]
        for part in case.parts()
    }
    raw: dict[str, float] = {}
    per_unit = _unit_weights(case, frame)
    for part, replicas in ready.items():
        for replica in replicas:
            raw[replica.key] = per_unit[part]
    total = sum(raw[key] for key in sorted(raw))
    if total <= 0.0:
        return dict.fromkeys(sorted(raw), 1.0 / len(raw)) if raw else {}
    weights = {key: round(raw[key] / total, DIGITS) for key in sorted(raw)}
    heaviest = max(sorted(weights), key=lambda key: weights[key])
    weights[heaviest] += 1.0 - sum(weights.values())
    return weights


def _unit_weights(case: Case, frame: Frame) -> dict[Part, float]:
    """Traffic share of one replica of each part."""
    shares = frame.shares(case.capacity.shape or declared(case.service))
    rates = {
        part: frame.unit_rate(frame.profiles[part[0]], shares) if part[0] in frame.profiles else 0.0
        for part in case.parts()
    }
    planned: dict[Part, float] = {}
    for bought in case.capacity.mix.parts:
        if bought.units > 0:
            planned[bought.variant, bought.pool] = bought.weight / bought.units
    capacity = sum(case.wanted[part] * rates[part] for part in case.wanted)
    traffic = sum(case.wanted[part] * planned[part] for part in case.wanted)
    scale = traffic / capacity if capacity > 0.0 and traffic > 0.0 else 0.0
    found: dict[Part, float] = {}
    for part in case.parts():
        share = planned.get(part, 0.0) or rates[part] * (scale or 1.0)
        found[part] = share if share > 0.0 else 1e-9
    return found


def changed(groups: Groups, replicas: list[Replica], weights: dict[str, float], tolerance: float) -> bool:
    """Whether the weights in force (the instance rows') are not these."""
    for replica in replicas:
        now = groups.instance(replica.key, "route_weight")
        wanted = weights.get(replica.key)
        if wanted is None:
            if math.isfinite(now) and now > 0.0:
                return True
        elif not math.isfinite(now) or abs(now - wanted) > tolerance or (now <= 0.0 < wanted):
            return True
    return False
