"""Sums of leases over power domains, in exact integers.

A node counts for the largest of what it was granted, what it says it may still draw, and its safe watts: an
unacknowledged lowering counts at its old value, and so does a lease that an earlier leader granted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from cluster.power import Lease

if TYPE_CHECKING:
    from cluster.overlay import Overlay


class Excess(NamedTuple):
    """A domain that a grant would take past its limit: sum with the grant, without it, and the limit."""

    domain: str
    sum_watts: int
    now_watts: int
    limit_watts: int


def ancestors(overlay: Overlay, node: str) -> list[str]:
    """Domains above a node, nearest first. A cycle ends the walk (the domain is invalid anyway)."""
    domains = overlay.read("domains")
    chain: list[str] = []
    name = _domain_of(overlay).get(node, "")
    while name and name in domains and name not in chain:
        chain.append(name)
        name = domains[name].parent
    return chain


def _domain_of(overlay: Overlay) -> dict[str, str]:
    """The one domain each node draws through (a node that two claim counts in the last, once)."""
    found: dict[str, str] | None = overlay.memo.get("domain_of")
    if found is None:
        domains = overlay.read("domains")
        found = {m: name for name in sorted(domains) for m in domains[name].members}
        overlay.memo["domain_of"] = found
    return found


def held_watts(
    safe_watts: float, reported_watts: float, reported_until: float, lease: Lease | None, now_seconds: float
) -> int:
    """What a node may draw now, in whole watts: the largest of its safe watts, the lease charged to it and the
    lease its agent reported (NaN where unknown), each while it runs.
    """
    held = 0 if math.isnan(safe_watts) else math.ceil(safe_watts)
    if reported_until > now_seconds and not math.isnan(reported_watts):
        held = max(held, math.ceil(reported_watts))
    if lease is not None and lease.expires_seconds > now_seconds:
        held = max(held, lease.charged_watts)
    return held


def charged_watts(overlay: Overlay, node: str, now_seconds: float) -> int:
    """What a node counts for now. Unknown safe watts count as its maximum, as the agent or its product has it."""
    _, reported, until = _row(overlay, node)
    lease = overlay.read("leases").get(node)
    return held_watts(safe_watts(overlay, node), reported, until, lease, now_seconds)


def safe_watts(overlay: Overlay, node: str) -> float:
    """What a node draws at most on its own: its safe watts, else its maximum; NaN when neither is known."""
    safe, _, _ = _row(overlay, node)
    return _worst(overlay, node) if math.isnan(safe) else safe


def _row(overlay: Overlay, node: str) -> tuple[float, float, float]:
    rows: dict[str, tuple[float, float, float]] | None = overlay.memo.get("power_rows")
    if rows is None:
        rows = overlay.memo["power_rows"] = _power_rows(overlay)
    return rows.get(node, (math.nan, math.nan, math.nan))


def _power_rows(overlay: Overlay) -> dict[str, tuple[float, float, float]]:
    """Safe watts (else the maximum), reported lease (at most the maximum) and its end, by node."""
    table = overlay.base.node_table
    columns = (table.safe_watts, table.max_watts, table.lease_watts, table.lease_expires_seconds)
    rows = zip(table.keys, *(column.tolist() for column in columns), strict=True)
    return {
        node: (most if math.isnan(safe) else safe, min(reported, most), until)
        for node, safe, most, reported, until in rows
    }


def _worst(overlay: Overlay, node: str) -> float:
    """The most a node's GPUs can draw; NaN when there is no such node or its product is unknown."""
    known = overlay.read("nodes").get(node)
    if known is None:
        return math.nan
    product = overlay.read("accelerators").get(known.accelerator)
    return math.nan if product is None else float(product.max_watts * len(known.devices))


def power_excess(overlay: Overlay, node: str, watts: int, now_seconds: float) -> Excess | None:
    """The first ancestor whose limit the grant would break, or None.

    Sums are kept in the overlay's memo, and every grant it applies is added to them, so that checking
    5,000 grants of one tick costs one pass over the members.
    """
    sums = domain_sums(overlay, now_seconds)
    old = charged_watts(overlay, node, now_seconds)
    for name in ancestors(overlay, node):
        limit = overlay.read("domains")[name].limit_watts
        total = sums[name] - old + max(old, watts)
        if total > limit and watts > old:
            return Excess(name, total, sums[name], limit)
    return None


def domain_sums(overlay: Overlay, now_seconds: float) -> dict[str, int]:
    """Charged watts per domain, children counted in their parents."""
    sums: dict[str, int] | None = overlay.memo.get("domain_sums")
    if sums is None:
        sums = dict.fromkeys(overlay.read("domains"), 0)
        for node in _domain_of(overlay):
            own = charged_watts(overlay, node, now_seconds)
            for name in ancestors(overlay, node):
                sums[name] += own
        overlay.memo["domain_sums"] = sums
    return sums
