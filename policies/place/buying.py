"""Nodes that are ordered because the chosen mixes count on them, and given back once they stand empty.

How many are counted on is commitment's word (`Share.nodes_to_buy`); what was ordered is in flight in the view, so that
nothing is ordered twice. Nothing is remembered but since when a bought node has been empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.actions import Provision, ReleaseNode
from cluster.base import Ref
from cluster.hardware import Node, Offer, Pool
from cluster.reasons import Reason, Verdict
from cluster.snapshot import Snapshot
from cluster.targets import Share
from policies.commit.inventory import ordered
from policies.draft import quantity
from policies.place.cases import Case, Part

if TYPE_CHECKING:
    from policies.place.run import Run


def counted_on(view: Snapshot, pool: str) -> int:
    """Nodes of a pool beyond those that exist that the standing mixes count on."""
    target = view.targets.get(f"Share/{pool}")
    return target.nodes_to_buy if isinstance(target, Share) else 0


def awaited(run: Run, case: Case, part: Part) -> Reason | None:
    """Why a replica that found no room need not look for any: nodes for it are bought. None where none are."""
    pool = part[1]
    if not counted_on(run.view, pool):
        return None
    flying = ordered(run.view, pool)
    waited = run.now - flying[0].issued_seconds if flying else 0.0
    missing = case.wanted.get(part, 0) - len(case.live(part))
    return Reason(
        code="NodesAwaited", subject=case.service.ref, verdict=Verdict.BLOCKED, choice=pool,
        need=quantity("missing", missing, "replicas"), have=quantity("ordered", len(flying), "nodes"),
        limit=quantity("waited", max(0.0, waited), "s"), refs=(Ref("Pool", pool),),
    )  # fmt: skip


def buy(run: Run) -> None:
    """Order what is counted on and not on its way yet, as far as market, budget and back-off allow."""
    for name in sorted(run.view.pools):
        pool: Pool = run.overlay.read("pools")[name]
        if not pool.buyable_nodes:
            continue
        wanted, flying = counted_on(run.view, name), len(ordered(run.view, name))
        count = min(wanted - flying, pool.buyable_nodes)
        if count > 0:
            reason = _ordered(run.view, pool, count, wanted)
            action = Provision(pool=name, count=count, reason=run.draft.because(reason))
            run.draft.act(action)
            run.overlay.apply(action)


def _ordered(view: Snapshot, pool: Pool, count: int, wanted: int) -> Reason:
    return Reason(
        code="NodesOrdered", subject=_class_of(view, pool), verdict=Verdict.CHOSEN, choice=pool.name,
        need=quantity("ordered", count, "nodes"), have=quantity("counted_on", wanted, "nodes"),
        limit=quantity("buyable", pool.buyable_nodes or 0, "nodes"),
        facts=(quantity("gpus", count * pool.node_size, "GPU"),
               quantity("cost", count * pool.node_size * pool.dollars_per_gpu_hour, "$/h")),
        refs=(Ref("Pool", pool.name),),
    )  # fmt: skip


def give_back(run: Run) -> None:
    """Give back what was bought, holds nothing, is kept for nobody, and has been so for the hold."""
    held = _in_use(run)
    idle: dict[str, float] = {}
    for name in sorted(run.view.nodes):
        node = run.view.nodes[name]
        if (
            not node.bought
            or node.offer is Offer.RECLAIMING
            or name in held
            or counted_on(run.view, node.pool)
        ):
            continue
        idle[name] = run.idle.get(name, run.now)
        waited = run.now - idle[name]
        if waited >= run.config.idle_hold_seconds:
            reason = run.draft.because(_given_back(run, node, waited))
            run.draft.act(ReleaseNode(node=name, reason=reason))
    run.idle = idle


def _in_use(run: Run) -> set[str]:
    """Nodes on which something is, was just placed, or is kept for somebody."""
    used = {claim.slot.node for claim in run.overlay.read("claims").values()}
    for reservation in run.view.reservations.values():
        if reservation.expires_seconds > run.now:
            used.update(slot.node for slot in reservation.slots)
    return {run.view.nodes[name].machine if name in run.view.nodes else name for name in used}


def _given_back(run: Run, node: Node, waited: float) -> Reason:
    pool = run.view.pools.get(node.pool)
    gpus = len(node.devices)
    return Reason(
        code="NodeGivenBack", subject=_class_of(run.view, pool) if pool else node.ref, verdict=Verdict.CHOSEN,
        choice=node.name, need=quantity("gpus", gpus, "GPU"), have=quantity("idle", waited, "s"),
        limit=quantity("hold", run.config.idle_hold_seconds, "s"),
        facts=(quantity("cost", gpus * (pool.dollars_per_gpu_hour if pool else 0.0), "$/h"),), refs=(node.ref,),
    )  # fmt: skip


def _class_of(view: Snapshot, pool: Pool) -> Ref:
    """The AcceleratorClass a pool belongs to, by its object's name."""
    found = view.accelerators.get(pool.accelerator)
    name = found.aliases[0] if found is not None and found.aliases else pool.accelerator
    return Ref("AcceleratorClass", name, found.ref.uid if found is not None else "")
