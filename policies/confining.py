"""Why only some of the open nodes can be used: shared by commitment, placing and training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cluster.admission import Fence
from cluster.base import Ref
from cluster.hardware import Node
from cluster.reasons import Quantity, Reason, Verdict
from policies.draft import quantity


class Confined(NamedTuple):
    """Nodes inside the fence and open ones in all; free devices inside it, and in all."""

    nodes: int
    open_nodes: int
    free: int
    elsewhere: int


def confined(subject: Ref, fence: Fence, seen: Confined, need: Quantity) -> Reason:
    """What keeps the pods off the other nodes, and how much is free on either side."""
    return Reason(
        code="PlacesConfined", subject=subject, verdict=Verdict.BLOCKED, choice=fence.text,
        need=need, have=quantity("free", seen.free, "GPU"), limit=quantity("nodes", seen.nodes, "nodes"),
        facts=(
            quantity("open", seen.open_nodes, "nodes"),
            quantity("elsewhere", max(0, seen.elsewhere - seen.free), "GPU"),
        ),
    )  # fmt: skip


def inside(free: Mapping[str, int], fence: Fence | None) -> Mapping[str, int]:
    """Free devices by node, none where the fence keeps the pods off."""
    if fence is None:
        return free
    return {name: count if fence.pods_on(name) != 0 else 0 for name, count in free.items()}


def seen_in(free: Mapping[str, int], fence: Fence) -> Confined:
    """How much of it lies on either side of a fence."""
    kept = [name for name in free if fence.pods_on(name) != 0]
    return Confined(len(kept), len(free), sum(free[name] for name in kept), sum(free.values()))


def narrowed(
    free: Mapping[str, int], fence: Fence | None, products: Iterable[str], nodes: Mapping[str, Node]
) -> Confined | None:
    """The same, of the nodes of these products (none given: of any); None where the fence keeps nothing off."""
    if fence is None:
        return None
    wanted = set(products)
    ours = {n: count for n, count in free.items() if not wanted or nodes[n].accelerator in wanted}
    seen = seen_in(ours, fence)
    return seen if seen.nodes < seen.open_nodes else None
