"""What a service's load is now: measured where there is a fresh measurement, declared until then."""

from __future__ import annotations

import math
from typing import NamedTuple

from cluster.serving import Service
from policies.groups import Groups


class Load(NamedTuple):
    """Requests per second asked for, requests held at the gateway, and how far to trust them.

    `seen` is False until a request was ever measured; `fresh` False when the last measurement is too old
    (or missing) to scale down on. `idle_seconds` is None while the last arrival is unknown.
    """

    per_second: float
    held: float
    seen: bool
    fresh: bool
    idle_seconds: float | None


def load_of(groups: Groups, service: Service, now_seconds: float, stale_seconds: float) -> Load:
    """The service's load; NaN columns count as unknown, never as zero demand."""
    histograms = groups.loads.get(service.name, [])
    recent = [h for h in histograms if now_seconds - h.observed_seconds <= stale_seconds]
    rate = sum(h.requests_per_second for h in recent)
    signal_rate = groups.signal(service.name, "requests_per_second")
    last = groups.signal(service.name, "last_arrival_seconds")
    observed = groups.signal(service.name, "observed_seconds")
    signal_fresh = math.isfinite(observed) and now_seconds - observed <= stale_seconds
    if not recent and signal_fresh and math.isfinite(signal_rate):
        rate = signal_rate
    held = groups.signal(service.name, "held")
    if not math.isfinite(held) or not signal_fresh:
        held = sum(h.held_per_second * h.window_seconds for h in recent)
    seen = math.isfinite(last) or rate > 0.0 or held > 0.0
    idle = max(0.0, now_seconds - last) if math.isfinite(last) else None
    if rate > 0.0 or held > 0.0:
        idle = 0.0
    fresh = bool(recent) or (signal_fresh and math.isfinite(signal_rate))
    return Load(max(0.0, rate), max(0.0, held), seen, fresh, idle)
