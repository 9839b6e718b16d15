"""The static clamp: sums never above a breaker's limit, in whole watts, whatever is in flight."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.actions import Stamped
from cluster.checks import check
from cluster.overlay import Overlay
from cluster.plan import Plan
from cluster.reasons import render
from cluster.snapshot import Snapshot
from policies.power.static_clamp import StaticClamp, StaticClampConfig
from policies.power.tree import Tree, share
from tests.policies.builders import NOW, ClusterBuilder, a_cluster, context, power_view_of


def row(demands: list[float], rating: int, safe: float = 300.0, most: float = 1_000.0) -> ClusterBuilder:
    made = a_cluster().with_pool("h100-od", "H100").with_nodes(len(demands), "h100-od")
    nodes = sorted(made.parts["nodes"])
    for node, demand in zip(nodes, demands, strict=True):
        made.with_power(node, safe_watts=safe, min_watts=safe, max_watts=most, demand_watts=demand)
    return made.with_domain("row", rating, tuple(nodes), margin=0.0)


def clamp(snapshot: Snapshot, root: str = "row", **config: Any) -> tuple[dict[str, int], Plan]:
    policy = StaticClamp(StaticClampConfig(**config))
    plan = policy.decide(
        power_view_of(snapshot, root), policy.initial(), context(loop="power", scope=(root,))
    ).plan
    for reason in plan.reasons:
        assert render(reason)
    return {action.node: action.watts for action in plan.actions}, plan


def watts(snapshot: Snapshot, **config: Any) -> list[int]:
    granted, _ = clamp(snapshot, **config)
    return [granted[node] for node in sorted(granted)]


SHARES = [
    # demands, rating, granted
    pytest.param([900.0, 500.0], 2_000, [1_000, 1_000], id="room for everybody: all they can draw"),
    pytest.param([900.0, 300.0], 1_400, [900, 500], id="headroom in proportion to demand"),
    pytest.param([1_000.0, 400.0, 300.0], 1_900, [888, 535, 477], id="three of them, to the watt"),
    pytest.param([1_000.0, 300.0], 1_700, [1_000, 700], id="what one cannot use goes to the other"),
    pytest.param([500.0, 500.0, 500.0], 1_000, [334, 333, 333], id="the odd watt goes to the first"),
    pytest.param([800.0, 800.0], 600, [300, 300], id="no headroom: safe caps"),
]


@pytest.mark.parametrize(("demands", "rating", "granted"), SHARES)
def test_headroom_above_the_safe_caps_is_shared(demands: list[float], rating: int, granted: list[int]):
    found = watts(row(demands, rating).build())
    assert sum(found) <= rating
    assert found == pytest.approx(granted, abs=1)
    assert sum(found) == min(rating, 1_000 * len(demands))


def test_grants_live_five_seconds_and_say_why():
    _, plan = clamp(row([900.0, 500.0], 1_200).build())
    assert {action.ttl_seconds for action in plan.actions} == {5.0}
    (reason,) = plan.reasons
    assert reason.code == "PowerClamped"
    assert (reason.need.value, reason.have.value, reason.limit.value) == (1_400, 1_200, 1_200)
    _, plan = clamp(row([900.0, 500.0], 2_500).build())
    assert [r.code for r in plan.reasons] == ["PowerGranted"]


def test_even_safe_caps_may_be_too_much():
    granted, plan = clamp(row([900.0, 900.0], 500).build())
    assert set(granted.values()) == {300}
    unsafe = next(r for r in plan.reasons if r.code == "PowerUnsafe")
    assert (unsafe.need.value, unsafe.limit.value) == (600, 500)


# ------------------------------------------------------------------------------------------------ lower, then raise


def test_a_raise_waits_until_the_lowering_is_acknowledged():
    """One node holds 1,000 W of 1,300; demand moves to the other."""
    made = row([300.0, 1_000.0], 1_300).with_lease("h100-od-0", 1_000).with_lease("h100-od-1", 300)
    first = watts(made.build())
    assert first[0] < 1_000
    assert first[1] == 300, "the first still counts for what it was granted"
    made.with_lease("h100-od-0", first[0], charged=1_000)
    assert watts(made.build())[1] == 300
    made.with_lease("h100-od-0", first[0], charged=first[0])
    second = watts(made.build())
    assert second[1] > 300
    assert sum(second) <= 1_300


def test_an_expired_lease_counts_as_safe():
    made = row([300.0, 1_000.0], 1_300).with_lease("h100-od-0", 1_000, seconds=-0.1)
    assert watts(made.build())[1] > 700


def test_after_a_feed_loss_everybody_is_lowered_and_nobody_raised():
    made = row([900.0, 400.0, 900.0], 3_000)
    for node, held in zip(sorted(made.parts["nodes"]), (1_000, 350, 1_000), strict=True):
        made.with_lease(node, held)
    made.changing("domains", "row", feeds=0.5)
    found = watts(made.build())
    assert sum(found) <= 1_500
    assert found[1] <= 350


# --------------------------------------------------------------------------------------------- bad and old numbers

BLIND = [
    pytest.param({"observed_seconds": NOW - 10.0}, id="silent"),
    pytest.param({"safe_watts": np.nan}, id="safe cap unknown"),
    pytest.param({"max_watts": np.nan}, id="greatest draw unknown"),
    pytest.param({"observed_seconds": np.nan}, id="never heard"),
]


@pytest.mark.parametrize("columns", BLIND)
def test_a_node_we_know_too_little_of_gets_no_grant_and_counts_at_its_worst(columns: dict[str, float]):
    made = row([900.0, 900.0], 1_500).with_power("h100-od-0", **columns)
    made.with_lease("h100-od-0", 800)
    granted, plan = clamp(made.build())
    assert list(granted) == ["h100-od-1"]
    charged = 1_000 if "safe_watts" in columns else 800
    assert granted["h100-od-1"] == 1_500 - charged
    assert plan.evidence.degraded == ("power of h100-od-0",)


def test_an_unknown_demand_counts_as_the_greatest():
    made = row([300.0, 300.0], 1_400).with_power("h100-od-0", demand_watts=np.nan)
    found = watts(made.build())
    assert found[0] > found[1]


# ---------------------------------------------------------------------------------------------------------- groups


def test_nodes_of_one_gang_get_equal_caps():
    made = row([1_000.0, 300.0, 900.0], 1_800).with_job("lab/job", gpus=8)
    made.with_gang("lab/job", ("h100-od-0", "h100-od-1"))
    found = watts(made.build())
    assert found[0] == found[1]
    assert sum(found) <= 1_800


# -------------------------------------------------------------------------------------------------------- the tree


def test_a_tight_rack_leaves_its_share_to_the_others():
    made = row([900.0] * 4, 3_000)
    nodes = sorted(made.parts["nodes"])
    made.with_domain("row", 3_000, (), margin=0.0)
    made.with_domain("tight", 700, tuple(nodes[:2]), parent="row", margin=0.0)
    made.with_domain("wide", 5_000, tuple(nodes[2:]), parent="row", margin=0.0)
    found = watts(made.build())
    assert sum(found[:2]) == 700
    assert sum(found[2:]) == 2_000


@given(
    limits=st.tuples(*[st.integers(0, 6_000)] * 3),
    rows=st.lists(
        st.tuples(st.integers(100, 400), st.integers(0, 800), st.integers(0, 900), st.booleans(), st.integers(0, 2)),
        min_size=1, max_size=9,
    ),
)  # fmt: skip
def test_no_breaker_is_ever_promised_more_than_its_limit(
    limits: tuple[int, int, int], rows: list[tuple[int, int, int, bool, int]]
):
    """For every domain: the sum of max(granted, still charged) keeps the limit unless it was broken before."""
    made = a_cluster().with_pool("h100-od", "H100").with_nodes(len(rows), "h100-od")
    nodes = sorted(made.parts["nodes"])
    members: dict[int, list[str]] = {0: [], 1: [], 2: []}
    charged, safes = {}, {}
    for node, (safe, extra, held, leased, domain) in zip(nodes, rows, strict=True):
        members[domain].append(node)
        made.with_power(
            node, safe_watts=safe, min_watts=safe, max_watts=safe + extra, demand_watts=safe + extra / 2
        )
        charged[node] = safes[node] = safe
        if leased:
            made.with_lease(node, safe, charged=safe + held)
            charged[node] = safe + held
    for number, name in enumerate(("row", "rack-a", "rack-b")):
        parent = "" if number == 0 else "row"
        made.with_domain(name, limits[number], tuple(members[number]), margin=0.0, parent=parent)
    granted, _ = clamp(made.build())
    for number, under in ((0, nodes), (1, members[1]), (2, members[2])):
        after = sum(max(granted[n], charged[n]) for n in under)
        before = sum(charged[n] for n in under)
        assert after <= max(limits[number], before)
        aimed = sum(granted[n] for n in under)
        assert aimed <= max(limits[number], sum(safes[n] for n in under))
    assert all(granted[n] >= safes[n] for n in nodes)


def test_every_grant_of_a_tick_passes_the_check_at_act_time():
    made = row([900.0, 700.0, 500.0, 300.0], 2_500)
    for node, held in zip(sorted(made.parts["nodes"]), (900, 300, 350, 600), strict=True):
        made.with_lease(node, held)
    snapshot = made.build()
    _, plan = clamp(snapshot)
    overlay = Overlay(snapshot)
    for index, action in enumerate(plan.actions):
        stamped = Stamped(
            id=str(index), action=action, loop="power", epoch=1, issued_seconds=NOW, deadline_seconds=NOW + 1
        )
        assert check(overlay, stamped, NOW) is None
        overlay.apply(action)


@given(
    total=st.integers(0, 5_000),
    rows=st.lists(st.tuples(st.floats(0, 1e4), st.integers(0, 1_000)), min_size=1, max_size=12),
)
def test_shares_are_exact_bounded_and_monotone(total: int, rows: list[tuple[float, int]]):
    weights = np.array([w for w, _ in rows])
    most = np.array([m for _, m in rows], dtype=np.int64)
    given_ = share(total, weights, most)
    assert given_.sum() == min(total, most.sum())
    assert ((given_ >= 0) & (given_ <= most)).all()
    more = share(total + 100, weights, most)
    assert (more >= given_ - 1).all()
    for i, j in itertools.combinations(range(len(rows)), 2):
        if weights[i] > weights[j] and given_[i] < most[i]:
            assert given_[i] >= given_[j] - 1


def test_a_parent_that_comes_later_makes_a_root():
    """Rows out of order or in a cycle: nothing is lost, each is its own root."""
    tree = Tree(np.array([1, 0]), np.array([0, 1]))
    assert tree.roots == [0]
    assert tree.sums(np.array([5, 7])).tolist() == [12, 7]
