"""Checks of actions on nodes, power and links."""

from __future__ import annotations

import math

from cluster import actions as act
from cluster.base import Ref
from cluster.drops import Drop, gone
from cluster.hardware import Offer, parts_of
from cluster.overlay import Overlay
from cluster.power_sums import charged_watts, power_excess, safe_watts
from cluster.training import GangPhase


def isolate(overlay: Overlay, action: act.Isolate, now: float) -> Drop | None:
    """Check `isolate`."""
    nodes = overlay.read("nodes")
    if action.subject.kind == "Node" and action.subject.name not in nodes:
        return gone("isolation", action.subject)
    isolated = sum(
        1
        for n in nodes.values()
        if n.offer is Offer.ISOLATED and (n.offer_until_seconds is None or n.offer_until_seconds > now)
    )
    limit = max(1, int(0.02 * len(nodes)))
    if isolated + 1 > limit:
        return Drop("Unsafe", f"isolation of {action.subject.name}", isolated + 1, isolated, limit, "nodes")
    return None


def grant_power(overlay: Overlay, action: act.GrantPower, now: float) -> Drop | None:
    """Check `grant_power`."""
    table = overlay.base.node_table
    row = _row(overlay, action.node)
    if row is None or action.node not in overlay.read("nodes"):
        return gone("grant", Ref("Node", action.node))
    safe, most = float(table.safe_watts[row]), float(table.max_watts[row])
    if math.isnan(safe) or math.isnan(most):
        return Drop("Unsafe", f"grant to {action.node}, whose range is unknown", action.watts, 0, 0, "W")
    if not safe <= action.watts <= most:
        bound, now_watts = (safe if action.watts < safe else most), charged_watts(overlay, action.node, now)
        what = f"grant to {action.node}, outside its range"
        return Drop("Unsafe", what, action.watts, now_watts, bound, "W")
    excess = power_excess(overlay, action.node, action.watts, now)
    if excess is not None:
        return Drop(
            "Unsafe",
            f"grant to {action.node} in {excess.domain}",
            excess.sum_watts,
            excess.now_watts,
            excess.limit_watts,
            "W",
        )
    return _unlike(overlay, action)


def _unlike(overlay: Overlay, action: act.GrantPower) -> Drop | None:
    """Nodes of one gang get equal caps in one round, since the slowest sets the pace; below its safe cap none can go."""
    granted: dict[str, int] = overlay.memo.get("granted", {})
    for peer in _peers(overlay).get(action.node, ()):
        watts = granted.get(peer, action.watts)
        larger = action.node if action.watts > watts else peer
        if watts != action.watts and max(watts, action.watts) > safe_watts(overlay, larger):
            what = f"grant to {action.node}, unlike {peer} of the same gang"
            return Drop("Unsafe", what, action.watts, watts, watts, "W")
    return None


def _peers(overlay: Overlay) -> dict[str, tuple[str, ...]]:
    """Nodes that share a live gang with each node."""
    found: dict[str, tuple[str, ...]] | None = overlay.memo.get("peers")
    if found is None:
        together: dict[str, set[str]] = {}
        for gang in overlay.read("gangs").values():
            if gang.phase not in (GangPhase.STOPPED, GangPhase.FAILED, GangPhase.DONE):
                nodes = {slot.node for slot in gang.layout.slots}
                for node in nodes:
                    together.setdefault(node, set()).update(nodes - {node})
        found = overlay.memo["peers"] = {node: tuple(sorted(peers)) for node, peers in together.items()}
    return found


def _row(overlay: Overlay, node: str) -> int | None:
    index = overlay.memo.get("node_rows")
    if index is None:
        index = overlay.memo["node_rows"] = overlay.base.node_table.index()
    found: int | None = index.get(node)
    return found


def shape_prefill(overlay: Overlay, action: act.ShapePrefill, _: float) -> Drop | None:
    """Check `shape_prefill`."""
    if action.domain not in overlay.read("domains"):
        return gone("prefill shaping", Ref("PowerDomain", action.domain))
    if action.tokens_per_second <= 0.0:
        return Drop(
            "Unsafe", f"prefill share of {action.request_class}", action.tokens_per_second, 0, 1, "tokens/s"
        )
    return None


def provision(overlay: Overlay, action: act.Provision, _: float) -> Drop | None:
    """Check `provision`."""
    pool = overlay.read("pools").get(action.pool)
    offered = pool.available_gpus // pool.node_size if pool else 0
    if pool is not None and action.count <= offered:
        if pool.buyable_nodes is None:
            return Drop(
                "Unsafe", f"nodes of {action.pool}, without a provisioner", action.count, 0, 0, "nodes"
            )
        offered = min(offered, pool.buyable_nodes)
    if action.count > offered:
        return Drop("Taken", f"nodes of {action.pool}", action.count, offered, offered, "nodes")
    return None


def release_node(overlay: Overlay, action: act.ReleaseNode, _: float) -> Drop | None:
    """Check `release_node`."""
    if action.node not in overlay.read("nodes"):
        return gone("release", Ref("Node", action.node))
    parts = set(parts_of(overlay.read("nodes"), action.node))
    held = sum(1 for claim in overlay.read("claims").values() if claim.slot.node in parts)
    kept = sum(1 for r in overlay.read("reservations").values() if any(s.node in parts for s in r.slots))
    if held or kept:
        return Drop("Unsafe", f"giving back {action.node}", held + kept, held + kept, 0, "claims")
    if not overlay.read("nodes")[action.node].bought:
        return Drop("Unsafe", f"giving back {action.node}, which was not ordered here", 1, 0, 0, "nodes")
    return None


def probe(overlay: Overlay, action: act.Probe, _: float) -> Drop | None:
    """Check `probe`."""
    missing = [n for n in (action.source, action.target) if n not in overlay.read("nodes")]
    return gone("probe", Ref("Node", missing[0])) if missing else None
