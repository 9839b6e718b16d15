"""Faults in objects and machines, said like any other reason: what is wrong, where, and what is in force instead."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.observer import Observer
from cluster.reasons import Quantity, Reason, Verdict
from controller.observe.world import World
from controller.telling.devices import disagreement_reasons
from controller.telling.statuses import node_closed_reason, unknown_product_reason
from policies.registry import PolicyConfigError


def faults_found(observer: Observer, world: World, config_faults: Mapping[str, str]) -> list[Reason]:
    """Invalid objects, policies of power domains that cannot be built (by domain), nodes of unknown products, and
    nodes that take no new work.
    """
    reasons = [
        Reason(
            code="SpecInvalid",
            subject=world.subject(kind, key),
            verdict=Verdict.REJECTED,
            choice=" ".join(faults)[:900],
            need=Quantity("allowed", 0.0, "faults"),
            have=Quantity("found", float(len(faults)), "faults"),
        )
        for (kind, key), faults in sorted(world.faults.items())
    ]
    reasons += [
        PolicyConfigError(fault).reason(world.subject("PowerDomain", root))
        for root, fault in sorted(config_faults.items())
    ]
    known = len(observer.live("accelerators"))
    reasons += [
        unknown_product_reason(node, facts.unknown_product, facts.gpus, known)
        for node, facts in sorted(world.unknown_products.items())
    ]
    reasons += [
        node_closed_reason(facts.node.ref, facts.closed, facts.gpus, world.workloads.gpus_used(name))
        for name, facts in sorted(world.closed.items())
        if facts.node is not None
    ]
    return reasons + disagreement_reasons(world)
