"""Sums of leases: exact, over every ancestor, and what a grant is checked against."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from cluster import actions as act
from cluster.base import Ref
from cluster.checks import check
from cluster.overlay import Overlay
from cluster.power import Lease, PowerDomain
from cluster.power_sums import Excess, ancestors, charged_watts, domain_sums, held_watts, power_excess
from cluster.snapshot import Snapshot
from cluster.tables import NodeTable
from cluster.training import GangPhase
from tests.nouns.cases import NOW, cluster, gang, node, stamped
from tests.nouns.powering import NAN, domain, lease, powered

# what one node counts for


@pytest.mark.parametrize(
    ("safe", "reported", "until", "held", "watts"),
    [
        pytest.param(300.0, NAN, NAN, None, 300, id="no lease: its safe watts"),
        pytest.param(299.2, NAN, NAN, None, 300, id="safe watts are rounded up"),
        pytest.param(NAN, NAN, NAN, None, 0, id="nothing known at all"),
        pytest.param(300.0, NAN, NAN, lease("a", 500), 500, id="a lease in force"),
        pytest.param(300.0, NAN, NAN, lease("a", 400, 550), 550, id="a lowering nobody acknowledged counts at its old value"),
        pytest.param(300.0, NAN, NAN, lease("a", 200), 300, id="a lease below the safe watts"),
        pytest.param(300.0, NAN, NAN, lease("a", 500, ends=NOW), 300, id="a lease that ends now"),
        pytest.param(300.0, NAN, NAN, lease("a", 500, ends=NOW + 0.1), 500, id="a lease in its last moment"),
        pytest.param(300.0, 450.5, NOW + 1, None, 451, id="a lease of an earlier leader, as the agent reports it"),
        pytest.param(300.0, 450.0, NOW, None, 300, id="an earlier leader's lease that has run out"),
        pytest.param(300.0, NAN, NOW + 1, None, 300, id="a lease of unknown watts"),
        pytest.param(300.0, 450.0, NAN, None, 300, id="a lease of unknown end is over"),
        pytest.param(300.0, 450.0, NOW + 1, lease("a", 400), 450, id="the larger of what was granted and what is held"),
    ],
)  # fmt: skip
def test_what_a_node_counts_for(
    safe: float, reported: float, until: float, held: Lease | None, watts: int
) -> None:
    assert held_watts(safe, reported, until, held, NOW) == watts


def test_unknown_safe_watts_count_as_the_most_the_node_can_draw() -> None:
    snapshot = powered(domain("row", "a", "b"), safe_watts=[NAN, 300.0, NAN], max_watts=[600.0, 600.0, NAN])
    assert charged_watts(Overlay(snapshot), "a", NOW) == 600
    assert charged_watts(Overlay(snapshot), "b", NOW) == 300
    assert charged_watts(Overlay(snapshot), "c", NOW) == 4 * 72, "four L4s nobody has a cap on"


@pytest.mark.parametrize(
    ("reported", "most", "watts"),
    [(500.0, 600.0, 500), (9e9, 600.0, 600), (500.0, NAN, 500), (NAN, 600.0, 300)],
    ids=[
        "what its agent says",
        "never more than it can draw",
        "an unknown maximum bounds nothing",
        "nothing was said",
    ],
)
def test_what_an_agent_says_it_holds_is_charged(reported: float, most: float, watts: int) -> None:
    columns = {
        "lease_watts": [reported, NAN, NAN],
        "lease_expires_seconds": [NOW + 1] * 3,
        "max_watts": [most] * 3,
    }
    assert charged_watts(Overlay(powered(domain("row", "a"), **columns)), "a", NOW) == watts


def test_a_node_no_agent_ever_reported_counts_as_its_products_maximum() -> None:
    snapshot = msgspec.structs.replace(powered(domain("row", "a", "z")), node_table=NodeTable.empty())
    assert charged_watts(Overlay(snapshot), "a", NOW) == 4 * 72
    assert charged_watts(Overlay(snapshot), "z", NOW) == 0, "there is no such machine"
    unknown = msgspec.structs.replace(snapshot, accelerators={})
    assert charged_watts(Overlay(unknown), "a", NOW) == 0


# trees of domains


def test_the_ancestors_of_a_node_nearest_first() -> None:
    tree = Overlay(
        powered(domain("rack", "a", parent="row"), domain("row", "b", parent="hall"), domain("hall"))
    )
    assert ancestors(tree, "a") == ["rack", "row", "hall"]
    assert ancestors(tree, "b") == ["row", "hall"]
    assert ancestors(tree, "c") == []


def test_a_missing_parent_ends_the_walk_and_a_cycle_is_walked_once() -> None:
    assert ancestors(Overlay(powered(domain("rack", "a", parent="nowhere"))), "a") == ["rack"]
    ring = Overlay(powered(domain("x", "a", parent="y"), domain("y", parent="x")))
    assert ancestors(ring, "a") == ["x", "y"]
    assert domain_sums(ring, NOW) == {"x": 300, "y": 300}


def test_sums_count_children_in_their_parents() -> None:
    tree = powered(
        domain("rack", "a", parent="row"), domain("row", "b"), domain("spare"), leases=(lease("a", 500),)
    )
    assert domain_sums(Overlay(tree), NOW) == {"rack": 500, "row": 800, "spare": 0}
    assert domain_sums(Overlay(tree), NOW + 60) == {"rack": 300, "row": 600, "spare": 0}


def test_a_node_that_two_domains_claim_is_counted_once() -> None:
    both = Overlay(powered(domain("x", "a"), domain("y", "a")))
    assert domain_sums(both, NOW) == {"x": 0, "y": 300}


def test_the_first_domain_that_would_be_too_full_is_named_with_its_numbers() -> None:
    tree = powered(domain("rack", "a", parent="row", rating=600), domain("row", "b", rating=850))
    assert power_excess(Overlay(tree), "a", 550, NOW) is None
    assert power_excess(Overlay(tree), "a", 551, NOW) == Excess("row", 851, 600, 850)
    assert power_excess(Overlay(tree), "a", 601, NOW) == Excess("rack", 601, 300, 600)


def test_a_grant_that_raises_nothing_is_no_excess_even_in_a_domain_that_is_too_full() -> None:
    full = powered(domain("row", "a", "b", rating=500), leases=(lease("a", 450, 550),))
    assert power_excess(Overlay(full), "a", 400, NOW) is None
    assert power_excess(Overlay(full), "a", 550, NOW) is None
    assert power_excess(Overlay(full), "a", 551, NOW) == Excess("row", 851, 850, 500)


def test_a_grant_is_charged_to_all_its_ancestors_before_the_next_is_checked() -> None:
    tree = Overlay(
        powered(domain("rack", "a", "b", parent="row", rating=900), domain("row", "c", rating=1_200))
    )
    tree.apply(act.GrantPower(reason=0, node="a", watts=600))
    assert domain_sums(tree, NOW) == {"rack": 900, "row": 1_200}
    assert power_excess(tree, "b", 301, NOW) == Excess("rack", 901, 900, 900)
    assert power_excess(tree, "c", 301, NOW) == Excess("row", 1_201, 1_200, 1_200)


def verdict(snapshot: Snapshot, watts: int, at: str = "a") -> tuple[str, float, float, float] | None:
    drop = check(Overlay(snapshot), stamped(act.GrantPower(reason=0, node=at, watts=watts), "power"), NOW)
    return None if drop is None else (drop.code, drop.need, drop.have, drop.limit)


def test_the_check_of_a_grant_gives_the_sum_it_would_make() -> None:
    row = powered(domain("row", "a", "b", rating=800))
    assert verdict(row, 500) is None
    assert verdict(row, 501) == ("Unsafe", 801, 600, 800)
    assert verdict(row, 300) is None
    assert verdict(row, 299) == ("Unsafe", 299, 300, 300)
    assert verdict(row, 601, "c") == ("Unsafe", 601, 300, 600)


def test_a_grant_to_a_node_of_unknown_range_is_refused_in_numbers_that_exist() -> None:
    unknown = powered(domain("row", "a"), safe_watts=[NAN, 300.0, 300.0])
    assert verdict(unknown, 400) == ("Unsafe", 400, 0, 0)
    assert verdict(powered(domain("row", "a"), max_watts=[NAN] * 3), 400) == ("Unsafe", 400, 0, 0)


def test_many_nodes_are_found_by_row_as_few_are() -> None:
    names = [f"n{i:03}" for i in range(64)]
    many = cluster(
        nodes={n: node(n) for n in names},
        domains={"row": domain("row", *names, rating=64 * 300 + 50)},
        node_table=NodeTable.build(tuple(names), {"safe_watts": [300.0] * 64, "max_watts": [600.0] * 64}),
    )
    assert verdict(many, 350, "n063") is None
    assert verdict(many, 351, "n063") == ("Unsafe", 64 * 300 + 51, 64 * 300, 64 * 300 + 50)
    drop = check(Overlay(many), stamped(act.GrantPower(reason=0, node="x", watts=350), "power"), NOW)
    assert drop is not None
    assert drop.code == "Stale"


def caps(first: int, second: int, phase: GangPhase = GangPhase.RUNNING, safe: float = 300.0) -> str:
    """What becomes of the grant to b after one to a, both of one gang."""
    row = powered(domain("row", "a", "b", rating=5_000), safe_watts=[300.0, safe, 300.0])
    working = Overlay(msgspec.structs.replace(row, gangs={"lab/train-a1": gang(phase=phase)}))
    for at, watts in (("a", first), ("b", second)):
        action = act.GrantPower(reason=0, node=at, watts=watts)
        drop = check(working, stamped(action, "power"), NOW)
        if drop is not None:
            assert (drop.code, drop.need, drop.have, drop.limit, drop.unit) == (
                "Unsafe",
                second,
                first,
                first,
                "W",
            )
            return drop.what
        working.apply(action)
    return ""


@pytest.mark.parametrize(
    ("first", "second", "more", "said"),
    [
        pytest.param(500, 500, {}, "", id="equal caps"),
        pytest.param(500, 400, {}, "grant to b, unlike a of the same gang", id="a lower one"),
        pytest.param(400, 500, {}, "grant to b, unlike a of the same gang", id="a higher one"),
        pytest.param(400, 450, {"safe": 450.0}, "", id="one that cannot go lower"),
        pytest.param(400, 451, {"safe": 450.0}, "grant to b, unlike a of the same gang", id="one that could"),
        pytest.param(500, 400, {"phase": GangPhase.FORMING}, "grant to b, unlike a of the same gang", id="a gang that forms"),
        pytest.param(500, 400, {"phase": GangPhase.STOPPED}, "", id="a gang that stopped"),
        pytest.param(500, 400, {"phase": GangPhase.FAILED}, "", id="a gang that failed"),
        pytest.param(500, 400, {"phase": GangPhase.DONE}, "", id="a gang that is done"),
    ],
)  # fmt: skip
def test_nodes_of_one_gang_get_equal_caps_in_one_round(
    first: int, second: int, more: dict[str, Any], said: str
) -> None:
    assert caps(first, second, **more) == said


def test_caps_of_an_earlier_round_may_differ() -> None:
    row = powered(domain("row", "a", "b", rating=5_000), leases=(lease("a", 600),))
    gangs = msgspec.structs.replace(row, gangs={"lab/train-a1": gang()})
    assert verdict(gangs, 400, "b") is None


def test_limits_are_whole_watts_after_feeds_and_margin() -> None:
    half = PowerDomain(ref=Ref("PowerDomain", "x"), rating_watts=999, feeds=0.5, margin=0.1)
    assert half.limit_watts == 449
    assert math.isclose(999 * 0.5 * 0.9, 449.55)
    assert PowerDomain(ref=Ref("PowerDomain", "x"), rating_watts=1_000).limit_watts == 970
    assert isinstance(half.limit_watts, int)
    assert np.isnan(NodeTable.build(("a",), {}).lease_watts[0])
