"""What the tests of placing share: a small cluster, a call of the policy, and what its plan holds."""

from __future__ import annotations

from typing import Any

from cluster.plan import Plan
from cluster.reasons import render
from cluster.snapshot import Snapshot
from policies.place.best_fit import BestFit, BestFitConfig, BestFitState
from tests.policies.builders import ClusterBuilder, a_cluster, context

SERVICE = "shop/chat"
OLD = "old"


def cluster(nodes: int = 2, gpus: int = 4) -> ClusterBuilder:
    made = a_cluster().with_pool("l4-od", "L4").with_nodes(nodes, "l4-od", gpus=gpus)
    return made.with_service(SERVICE, "L4", "L4x2")


def place(
    made: ClusterBuilder | Snapshot, state: BestFitState | None = None, **config: Any
) -> tuple[Plan, BestFitState]:
    snapshot = made if isinstance(made, Snapshot) else made.build()
    policy = BestFit(BestFitConfig(**config))
    decision = policy.decide(snapshot, state or policy.initial(), context(loop="place"))
    for reason in decision.plan.reasons:
        assert render(reason)
    return decision.plan, decision.state


def kinds(plan: Plan) -> list[str]:
    return [action.kind for action in plan.actions]


def of(plan: Plan, kind: type) -> list[Any]:
    return [action for action in plan.actions if isinstance(action, kind)]


def codes(plan: Plan) -> list[str]:
    return [reason.code for reason in plan.reasons]
