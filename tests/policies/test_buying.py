"""Buying: nothing while what exists carries the load, each node once, within what may be bought, and given back when empty."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cluster import actions as act
from cluster.base import Ref
from cluster.flight import InFlight
from cluster.hardware import Slot
from cluster.reasons import render
from cluster.snapshot import Snapshot
from cluster.targets import Capacity, Share
from policies.commit.by_priority import ByPriority, ByPriorityConfig
from policies.place.best_fit import BestFit, BestFitConfig
from policies.place.run import BestFitState
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context

CHAT = "shop/chat"
HOLD = 600.0


def cluster(nodes: int = 1, buyable: int | None = 4, rate: float = 8.0) -> ClusterBuilder:
    """Nodes of two L4s, and so many more to be bought."""
    made = a_cluster().with_pool("l4-od", "L4").with_nodes(nodes, "l4-od", gpus=2)
    made.changing("pools", "l4-od", available_gpus=8, node_size=2, buyable_nodes=buyable)
    return made.with_service(CHAT, "L4").with_capacity(CHAT, rate, final=False)


def flying(made: ClusterBuilder, count: int) -> Snapshot:
    """The cluster with so many nodes on their way."""
    flights = {
        f"order-{n}": InFlight(
            id=f"order-{n}", kind="Provision", subject=Ref("Pool", "l4-od"), loop="place",
            issued_seconds=NOW - 30.0, deadline_seconds=NOW + 600.0,
        )
        for n in range(count)
    }  # fmt: skip
    return msgspec.structs.replace(made.build(), in_flight=flights)


def committed(view: Snapshot) -> Any:
    policy = ByPriority(ByPriorityConfig())
    return policy.decide(view, policy.initial(), context(loop="commit")).plan


def counted_on(view: Snapshot) -> int:
    shares = [t for t in committed(view).targets if isinstance(t, Share)]
    return shares[0].nodes_to_buy if shares else 0


def units(view: Snapshot) -> int:
    (capacity,) = (t for t in committed(view).targets if isinstance(t, Capacity))
    return sum(part.units for part in capacity.mix.parts)


def placed(view: Snapshot, state: BestFitState | None = None) -> Any:
    """A round of placing after commitment."""
    policy = BestFit(BestFitConfig(idle_hold_seconds=HOLD))
    return policy.decide(view.after(committed(view)), state or policy.initial(), context(loop="place"))


def of(decision: Any, kind: type) -> list[Any]:
    return [action for action in decision.plan.actions if isinstance(action, kind)]


def test_nothing_is_bought_while_what_exists_carries_the_load():
    view = cluster(nodes=8, rate=4.0).build()
    assert counted_on(view) == 0
    assert of(placed(view), act.Provision) == []


def test_without_a_provisioner_nothing_beyond_what_exists_is_counted_on():
    without, none_left = cluster(buyable=None).build(), cluster(buyable=0).build()
    assert units(without) == units(none_left) == 2
    assert of(placed(without), act.Provision) == of(placed(none_left), act.Provision) == []


def test_what_is_lacking_is_bought_and_says_for_how_much():
    view = cluster().build()
    assert units(view) > 2
    (order,) = of(placed(view), act.Provision)
    assert (order.pool, order.count) == ("l4-od", counted_on(view))
    plan = placed(view).plan
    text = render(plan.reasons[order.reason])
    assert f"orders {order.count} node" in text
    assert "$" in text
    assert "NodesAwaited" in [r.code for r in plan.reasons]
    assert "ReplicaUnplaceable" not in [r.code for r in plan.reasons]


@pytest.mark.parametrize("ahead", [0, 1, 2, 3])
def test_what_is_on_its_way_is_not_ordered_again(ahead: int):
    needed = counted_on(cluster().build())
    view = flying(cluster(buyable=4 - ahead), ahead)
    assert counted_on(view) == needed, "the mix does not change because of what was ordered"
    assert sum(order.count for order in of(placed(view), act.Provision)) == max(0, needed - ahead)


def test_no_more_is_bought_than_may_be():
    view = cluster(rate=1_000.0, buyable=2).build()
    (order,) = of(placed(view), act.Provision)
    assert order.count == 2


def test_a_service_without_any_node_is_served_by_bought_ones():
    view = cluster(nodes=0, rate=2.0).build()
    assert len(of(placed(view), act.Provision)) == 1


def bought(made: ClusterBuilder) -> ClusterBuilder:
    return made.changing("nodes", "l4-od-1", bought=True)


IDLE = BestFitState(idle={"l4-od-1": NOW - HOLD})


def test_a_bought_node_that_stood_empty_for_the_hold_is_given_back():
    view = bought(a_cluster().with_pool("l4-od", "L4").with_nodes(2, "l4-od", gpus=2)).build()
    first = placed(view)
    assert of(first, act.ReleaseNode) == []
    assert first.state.idle == {"l4-od-1": NOW}
    decision = placed(view, IDLE)
    (release,) = of(decision, act.ReleaseNode)
    assert release.node == "l4-od-1"
    assert "gives l4-od-1 back" in render(decision.plan.reasons[release.reason])


KEPT = [
    pytest.param(lambda made: made.changing("nodes", "l4-od-1", bought=False), id="it was not bought"),
    pytest.param(lambda made: made.with_claim("other/a", "l4-od-1", 0), id="somebody's pod is on it"),
    pytest.param(
        lambda made: made.with_reservation("k", "lab/job", Slot(node="l4-od-1", devices=(0,))),
        id="it is kept for somebody",
    ),
]


@pytest.mark.parametrize("change", KEPT)
def test_a_node_is_not_given_back_when(change: Any):
    made = change(bought(a_cluster().with_pool("l4-od", "L4").with_nodes(2, "l4-od", gpus=2)))
    assert of(placed(made.build(), IDLE), act.ReleaseNode) == []
