"""Placing by prices: chosen by name, the same steps as best fit, other nodes where that keeps room for what is wanted."""

from __future__ import annotations

from cluster import actions as act
from policies.place.priced_fgd import PricedFgd, PricedFgdConfig
from policies.registry import DEFAULTS, TABLES
from tests.policies.builders import context
from tests.policies.fitting import SERVICE, cluster, of, place


def test_best_fit_stays_the_default():
    assert DEFAULTS["place"] == "best_fit"
    assert "priced_fgd" in TABLES["place"]


def test_what_best_fit_creates_is_created_under_the_same_names():
    made = cluster(nodes=3).with_capacity(SERVICE, 5.0, ("L4", "l4-od", 3), ("L4x2", "l4-od", 2))
    usual, state = place(made)
    policy = PricedFgd(PricedFgdConfig())
    priced = policy.decide(made.build(), policy.initial(), context(loop="place"))
    names = [[action.name for action in of(plan, act.CreateReplica)] for plan in (usual, priced.plan)]
    assert names[0] == names[1]
    assert len(names[0]) == 5
    assert priced.state == state


def test_pairs_that_are_still_wanted_keep_their_room():
    """One GPU is left on one node and two on the other: the single replica takes the odd one, the pair fits too."""
    made = cluster(nodes=2).with_claim("other/a", "l4-od-0", 0, 1, 2).with_claim("other/b", "l4-od-1", 0, 1)
    made.with_capacity(SERVICE, 5.0, ("L4", "l4-od", 1), ("L4x2", "l4-od", 1))
    policy = PricedFgd()
    plan = policy.decide(made.build(), policy.initial(), context(loop="place")).plan
    assert [action.slots[0].node for action in of(plan, act.CreateReplica)] == ["l4-od-0", "l4-od-1"]
