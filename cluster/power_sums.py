"""Sums of leases over power domains, in exact integers.

A node counts for the larger of what it was granted and what it may still believe it has: an
unacknowledged lowering counts at its old value, a node without a lease at its safe watts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

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
    if "domain_of" not in overlay.memo:
        overlay.memo["domain_of"] = {m: name for name in sorted(domains) for m in domains[name].members}
    chain: list[str] = []
    name = overlay.memo["domain_of"].get(node, "")
    while name and name in domains and name not in chain:
        chain.append(name)
        name = domains[name].parent
    return chain


def charged_watts(overlay: Overlay, node: str, now_seconds: float) -> int:
    """What a node counts for now: its lease while in force, else its safe watts; unknown at its maximum."""
    lease = overlay.read("leases").get(node)
    safe = overlay.memo.get("safe_watts")
    if safe is None:
        table = overlay.base.node_table
        safe = overlay.memo["safe_watts"] = {
            key: _watts(table.safe_watts[row], table.max_watts[row]) for row, key in enumerate(table.keys)
        }
    floor = int(safe.get(node, 0))
    if lease is not None and lease.expires_seconds > now_seconds:
        return max(floor, int(lease.charged_watts))
    return floor


def _watts(safe: float, most: float) -> int:
    value = most if math.isnan(safe) else safe
    return 0 if math.isnan(value) else math.ceil(value)


def power_excess(overlay: Overlay, node: str, watts: int, now_seconds: float) -> Excess | None:
    """The first ancestor whose limit the grant would break, or None.

    Sums are kept in the overlay's memo and updated by the caller through `charge`, so that checking
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
        for domain in overlay.read("domains").values():
            for node in domain.members:
                own = charged_watts(overlay, node, now_seconds)
                for name in ancestors(overlay, node):
                    sums[name] += own
        overlay.memo["domain_sums"] = sums
    return sums
