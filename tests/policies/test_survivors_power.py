"""A new leader knows what nodes hold from their agents alone, and promises nobody what they still have."""

from __future__ import annotations

from cluster.actions import Stamped
from cluster.base import Ref
from cluster.checks import check
from cluster.hardware import Slot
from cluster.overlay import Overlay
from cluster.training import Gang, GangPhase, Layout
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


def test_gangs_that_share_a_node_have_equal_caps_together() -> None:
    made = a_cluster().with_pool("h100-od", "H100").with_nodes(4, "h100-od")
    nodes = sorted(made.parts["nodes"])
    for node, demand in zip(nodes, (900.0, 700.0, 400.0, 900.0), strict=True):
        made.with_power(node, safe_watts=300.0, min_watts=300.0, max_watts=1_000.0, demand_watts=demand)
    made.with_domain("row", 2_600, tuple(nodes), margin=0.0)
    for name, members in (("lab/x", nodes[:2]), ("lab/y", nodes[1:3])):
        slots = tuple(Slot(node=node, devices=(0,)) for node in members)
        made.parts.setdefault("gangs", {})[f"{name}-a1"] = Gang(
            key=f"{name}-a1", ref=Ref("Gang", f"{name}-a1"), job=name, attempt=1, rendezvous=name,
            layout=Layout(slots=slots), phase=GangPhase.RUNNING,
        )  # fmt: skip
    first, second, third, alone = granted(made)
    assert first == second == third < alone


def test_a_lease_of_an_earlier_leader_is_charged_while_it_runs() -> None:
    first, second = granted(after_a_failover(900.0, NOW + 4.0))
    assert first < 900
    assert second == 400


def test_it_is_free_again_when_it_has_run_out() -> None:
    assert granted(after_a_failover(900.0, NOW))[1] == 838


def test_nobody_holds_more_than_the_node_can_draw() -> None:
    assert granted(after_a_failover(9e9, NOW + 4.0))[1] == 300
