"""A new leader knows what nodes hold from their agents alone, and promises nobody what they still have."""

from __future__ import annotations

from cluster.actions import Stamped
from cluster.checks import check
from cluster.overlay import Overlay
from policies.power.static_clamp import StaticClamp
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context, power_view_of


def after_a_failover(held: float, until: float) -> ClusterBuilder:
    """Two nodes of 300 to 1,000 W under 1,300 W; the first says it holds a lease nobody remembers."""
    made = a_cluster().with_pool("h100-od", "H100").with_nodes(2, "h100-od")
    first, second = sorted(made.parts["nodes"])
    limits = {"safe_watts": 300.0, "min_watts": 300.0, "max_watts": 1_000.0}
    made.with_power(first, **limits, demand_watts=300.0, lease_watts=held, lease_expires_seconds=until)
    made.with_power(second, **limits, demand_watts=1_000.0)
    return made.with_domain("row", 1_300, (first, second), margin=0.0)


def granted(made: ClusterBuilder) -> list[int]:
    policy, snapshot = StaticClamp(), made.build()
    view = power_view_of(snapshot, "row")
    plan = policy.decide(view, policy.initial(), context(loop="power", scope=("row",))).plan
    working = Overlay(snapshot)
    for index, action in enumerate(plan.actions):
        stamped = Stamped(
            id=str(index), action=action, loop="power", epoch=2, issued_seconds=NOW, deadline_seconds=NOW + 1
        )
        assert check(working, stamped, NOW) is None, "nothing is proposed that would be dropped"
        working.apply(action)
    return [action.watts for action in plan.actions]


def test_a_lease_of_an_earlier_leader_is_charged_while_it_runs() -> None:
    first, second = granted(after_a_failover(900.0, NOW + 4.0))
    assert first < 900
    assert second == 400


def test_it_is_free_again_when_it_has_run_out() -> None:
    assert granted(after_a_failover(900.0, NOW))[1] == 838


def test_nobody_holds_more_than_the_node_can_draw() -> None:
    assert granted(after_a_failover(9e9, NOW + 4.0))[1] == 300
