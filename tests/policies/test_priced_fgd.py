"""Placing by prices: the default, the same steps as best fit, other nodes where that keeps room for what is wanted."""

from __future__ import annotations

import msgspec

from cluster import actions as act
from cluster.plan import Decision
from policies.place.best_fit import BestFitState
from policies.place.priced_fgd import PricedFgd, PricedFgdConfig
from policies.registry import DEFAULTS, TABLES
from tests.policies.builders import NOW, context
from tests.policies.fitting import SERVICE, cluster, of, place


def test_it_is_the_default_and_best_fit_can_be_had():
    assert DEFAULTS["place"] == "priced_fgd"
    assert "best_fit" in TABLES["place"]


def test_what_best_fit_creates_is_created_under_the_same_names():
    made = cluster(nodes=3).with_capacity(SERVICE, 5.0, ("L4", "l4-od", 3), ("L4x2", "l4-od", 2))
    usual, state = place(made)
    policy = PricedFgd(PricedFgdConfig())
    priced = policy.decide(made.build(), policy.initial(), context(loop="place"))
    names = [[action.name for action in of(plan, act.CreateReplica)] for plan in (usual, priced.plan)]
    assert names[0] == names[1]
    assert len(names[0]) == 5
    assert msgspec.structs.replace(priced.state, bases={}) == state


def test_prices_stand_for_a_while_and_the_runner_up_is_told_with_its_cost():
    """As one of four singles goes, the prices of before stand; a minute on they are made anew."""
    made = cluster(nodes=2).with_claim("other/a", "l4-od-0", 0, 1, 2).with_claim("other/b", "l4-od-1", 0, 1)
    policy = PricedFgd()

    def decide(singles: int, state: BestFitState, now: float) -> Decision[BestFitState]:
        made.with_capacity(SERVICE, 5.0, ("L4", "l4-od", singles), ("L4x2", "l4-od", 1))
        return policy.decide(made.build(), state, context(loop="place", now=now))

    first = decide(4, policy.initial(), NOW)
    assert first.state.bases["l4-od"].workload == ((0, 1, 1_000, 4), (0, 2, 1_000, 1))
    (reason,) = [r for r in first.plan.reasons if r.choice == "l4-od-0" and r.code == "ReplicaPlaced"]
    assert [a.choice for a in reason.against] == ["l4-od-1"]
    more = reason.against[0].cost
    assert more is not None
    assert more.value > 0.0
    assert reason.fact("cost") is not None
    second = decide(3, first.state, NOW + 59.0)
    assert second.state.bases == first.state.bases
    third = decide(3, second.state, NOW + 60.0)
    assert third.state.bases["l4-od"].workload == ((0, 1, 1_000, 3), (0, 2, 1_000, 1))
    assert third.state.bases["l4-od"].since_seconds == NOW + 60.0


def test_pairs_that_are_still_wanted_keep_their_room():
    """One GPU is left on one node and two on the other: the single replica takes the odd one, the pair fits too."""
    made = cluster(nodes=2).with_claim("other/a", "l4-od-0", 0, 1, 2).with_claim("other/b", "l4-od-1", 0, 1)
    made.with_capacity(SERVICE, 5.0, ("L4", "l4-od", 1), ("L4x2", "l4-od", 1))
    policy = PricedFgd()
    plan = policy.decide(made.build(), policy.initial(), context(loop="place")).plan
    assert [action.slots[0].node for action in of(plan, act.CreateReplica)] == ["l4-od-0", "l4-od-1"]
