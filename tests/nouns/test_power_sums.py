"""Sums of leases: exact, over every ancestor, and true whatever is lost between the operator and the agents."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import actions as act
from cluster import events as ev
from cluster.base import Ref
from cluster.checks import check
from cluster.observer import GRANTS_KEPT, Observer
from cluster.overlay import Overlay
from cluster.power import Lease, LeasePhase, PowerDomain
from cluster.power_sums import Excess, ancestors, charged_watts, domain_sums, held_watts, power_excess
from cluster.snapshot import Snapshot
from cluster.tables import NodeTable
from tests.nouns.cases import NOW, cluster, node, stamped

NAN = float("nan")


def domain(name: str, *members: str, parent: str = "", rating: int = 1_000) -> PowerDomain:
    return PowerDomain(
        ref=Ref("PowerDomain", name), parent=parent, rating_watts=rating, margin=0.0, members=members
    )


def lease(of: str, watts: int, charged: int = 0, ends: float = NOW + 5, **more: Any) -> Lease:
    return Lease(
        node=of, watts=watts, charged_watts=charged or watts, issued_seconds=NOW, expires_seconds=ends, **more
    )


def powered(
    *domains: PowerDomain, nodes: str = "abc", leases: tuple[Lease, ...] = (), **columns: Any
) -> Snapshot:
    """Nodes of 300 W safe and 600 W at most under the domains given."""
    filled = {"safe_watts": [300.0] * len(nodes), "max_watts": [600.0] * len(nodes), **columns}
    return cluster(
        nodes={n: node(n) for n in nodes},
        domains={d.name: d for d in domains},
        node_table=NodeTable.build(tuple(nodes), filled),
        leases={each.node: each for each in leases},
    )


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


# what the model believes while grants, answers and time go by


def observe(snapshot: Snapshot) -> Observer:
    """An observer that has seen the snapshot's nodes and domains, and a report of every node."""
    observer = Observer()
    for mapping in (snapshot.accelerators, snapshot.nodes, snapshot.domains):
        for noun in mapping.values():
            observer.fold(ev.Seen(source="watch", observed_seconds=NOW, delivered_seconds=NOW, noun=noun))
    for key in snapshot.node_table.keys:
        report(observer, key, NOW)
    return observer


def report(observer: Observer, of: str, at: float, sequence: int = 0) -> None:
    observer.fold(
        ev.AgentReport(
            source="agents", observed_seconds=at, delivered_seconds=at, node=of,
            columns={"safe_watts": 300.0, "max_watts": 600.0}, lease_epoch=1, lease_sequence=sequence,
        )
    )  # fmt: skip


def grant(observer: Observer, of: str, watts: int, at: float, sequence: int, ttl: float = 5.0) -> bool:
    """Check a grant and take it into the model, as the actor does; False when it is refused."""
    working = Overlay(observer.snapshot(at))
    action = act.GrantPower(reason=0, node=of, watts=watts, ttl_seconds=ttl)
    if check(working, stamped(action, "power", issued=at), at) is not None:
        return False
    working.apply(action)
    made = msgspec.structs.replace(working.read("leases")[of], epoch=1, sequence=sequence)
    observer.fold(ev.Seen(source="actor", observed_seconds=at, delivered_seconds=at, noun=made))
    return True


def charged(observer: Observer, of: str, at: float) -> int:
    return charged_watts(Overlay(observer.snapshot(at)), of, at)


def test_an_answer_lowers_what_a_node_counts_for() -> None:
    observer = observe(powered(domain("row", "a")))
    assert grant(observer, "a", 600, NOW, 1)
    report(observer, "a", NOW + 1, 1)
    assert grant(observer, "a", 400, NOW + 2, 2)
    assert charged(observer, "a", NOW + 2) == 600
    report(observer, "a", NOW + 3, 1)
    assert charged(observer, "a", NOW + 3) == 600, "an answer to the old grant says nothing about the new one"
    report(observer, "a", NOW + 4, 2)
    assert charged(observer, "a", NOW + 4) == 400
    assert observer.live("leases")["a"].phase is LeasePhase.ACTIVE


def test_renewals_faster_than_answers_do_not_keep_the_old_value_for_ever() -> None:
    observer = observe(powered(domain("row", "a")))
    assert grant(observer, "a", 600, NOW, 1)
    report(observer, "a", NOW, 1)
    for second in range(1, 6):  # each answer comes when the next renewal is on its way
        assert grant(observer, "a", 400, NOW + second, second + 1)
        report(observer, "a", NOW + second, second)
    assert charged(observer, "a", NOW + 6) == 400
    assert observer.live("leases")["a"].phase is LeasePhase.SENT


def test_an_answer_leaves_what_newer_grants_may_still_bring() -> None:
    observer = observe(powered(domain("row", "a")))
    for sequence, watts in enumerate((600, 400, 500, 350), start=1):
        assert grant(observer, "a", watts, NOW + sequence, sequence)
    seen = []
    for sequence in (1, 2, 3, 4):
        report(observer, "a", NOW + 5, sequence)
        seen.append(charged(observer, "a", NOW + 5))
    assert seen == [600, 500, 500, 350]


def test_an_answer_to_a_grant_nobody_remembers_changes_nothing() -> None:
    observer = observe(powered(domain("row", "a")))
    assert grant(observer, "a", 600, NOW, 7)
    assert grant(observer, "a", 400, NOW, 8)
    report(observer, "a", NOW, 6)
    assert charged(observer, "a", NOW) == 600
    report(observer, "b", NOW, 8)
    assert charged(observer, "a", NOW) == 600


def test_grants_beyond_memory_count_at_their_largest() -> None:
    observer = observe(powered(domain("row", "a")))
    watts = [600, *([400] * (GRANTS_KEPT + 3))]
    for sequence, each in enumerate(watts, start=1):
        assert grant(observer, "a", each, NOW, sequence)
    first_kept = len(watts) - GRANTS_KEPT + 1
    report(observer, "a", NOW, first_kept - 1)
    assert charged(observer, "a", NOW) == 600
    report(observer, "a", NOW, first_kept + 1)
    assert charged(observer, "a", NOW) == 400


def test_a_lease_ends_when_no_agent_can_hold_it_any_more() -> None:
    observer = observe(powered(domain("row", "a")))
    assert grant(observer, "a", 600, NOW, 1, ttl=5.0)
    observer.expire(NOW + 9.9)
    assert charged(observer, "a", NOW + 9.9) == 600, "delivered at its deadline, held for its life"
    observer.expire(NOW + 10.0)
    assert observer.live("leases") == {}
    assert charged(observer, "a", NOW + 10.0) == 300


def test_a_shorter_lease_does_not_hide_the_longer_one_it_may_not_have_replaced() -> None:
    observer = observe(powered(domain("row", "a")))
    assert grant(observer, "a", 600, NOW, 1, ttl=30.0)
    assert grant(observer, "a", 400, NOW + 1, 2, ttl=2.0)
    observer.expire(NOW + 8)
    assert charged(observer, "a", NOW + 8) == 600


class Play:
    """An operator's model, and what agents really hold: a grant is taken until its deadline, and kept for its life."""

    def __init__(self, forest: tuple[PowerDomain, ...]) -> None:
        self.forest = forest
        self.observer = observe(powered(*forest, nodes=NODES))
        self.now, self.sequence = NOW, 0
        self.sent: list[tuple[str, int, int, float, float]] = []
        self.held: dict[str, tuple[int, int, float]] = {}

    def grant(self, of: str, watts: int, ttl: float) -> None:
        self.sequence += 1
        if grant(self.observer, of, watts, self.now, self.sequence, ttl):
            self.sent.append((of, watts, self.sequence, self.now + ttl, ttl))

    def deliver(self, place: int) -> None:
        of, watts, sequence, deadline, ttl = (
            self.sent.pop(place % len(self.sent)) if self.sent else ("a", 0, 0, 0.0, 0.0)
        )
        if self.now <= deadline and sequence > self.held.get(of, (0, 0, 0.0))[1]:
            self.held[of] = (watts, sequence, self.now + ttl)

    def lose(self, place: int) -> None:
        if self.sent:
            self.sent.pop(place % len(self.sent))

    def answer(self, of: str) -> None:
        watts, sequence, ends = self.held.get(of, (0, 0, 0.0))
        columns = {
            "safe_watts": 300.0,
            "max_watts": 600.0,
            "lease_watts": float(watts),
            "lease_expires_seconds": ends,
        }
        self.observer.fold(
            ev.AgentReport(
                source="agents", observed_seconds=self.now, delivered_seconds=self.now, node=of, columns=columns,
                lease_epoch=1, lease_sequence=sequence,
            )
        )  # fmt: skip

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.observer.expire(self.now)

    def change_leader(self) -> None:
        """The new one knows nothing until every agent has told it what it holds."""
        self.observer = observe(powered(*self.forest, nodes=NODES))
        self.sent.clear()
        for of in NODES:
            self.answer(of)

    def watts(self, of: str) -> int:
        watts, _, ends = self.held.get(of, (0, 0, 0.0))
        return max(300, watts) if ends > self.now else 300


NODES = "abcde"
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("grant"), st.sampled_from(NODES), st.integers(250, 650), st.sampled_from([1.0, 3.0, 5.0])
        ),
        st.tuples(st.just("deliver"), st.integers(0, 99)),
        st.tuples(st.just("lose"), st.integers(0, 99)),
        st.tuples(st.just("answer"), st.sampled_from(NODES)),
        st.tuples(st.just("wait"), st.sampled_from([0.25, 1.0, 4.0])),
        st.tuples(st.just("change_leader")),
    ),
    max_size=60,
)
FORESTS = {
    "one row": (domain("row", *NODES, rating=1_800),),
    "racks in a row": (
        domain("r1", "a", "b", parent="row", rating=800), domain("r2", "c", "d", parent="row", rating=950),
        domain("row", "e", rating=1_700),
    ),
    "a chain": (
        domain("x", "a", "b", parent="y", rating=1_000), domain("y", "c", parent="z", rating=1_200),
        domain("z", "d", "e", rating=1_900),
    ),
    "a cycle": (domain("x", "a", "b", "c", parent="y", rating=1_600), domain("y", "d", "e", parent="x", rating=1_700)),
}  # fmt: skip


@pytest.mark.parametrize("forest", FORESTS.values(), ids=FORESTS.keys())
@given(steps=STEPS)
def test_no_breaker_ever_carries_more_than_its_limit_whatever_is_lost_or_late(
    forest: tuple[PowerDomain, ...], steps: list[Any]
) -> None:
    play = Play(forest)
    for name, *arguments in steps:
        getattr(play, name)(*arguments)
        working = Overlay(play.observer.snapshot(play.now))
        sums = domain_sums(working, play.now)
        for each in forest:
            below = [n for n in NODES if each.name in ancestors(working, n)]
            assert sums[each.name] == sum(charged_watts(working, n, play.now) for n in below)
            assert sums[each.name] <= each.limit_watts, "what is charged"
            assert sum(play.watts(n) for n in below) <= sums[each.name], "what is really held"


def test_limits_are_whole_watts_after_feeds_and_margin() -> None:
    half = PowerDomain(ref=Ref("PowerDomain", "x"), rating_watts=999, feeds=0.5, margin=0.1)
    assert half.limit_watts == 449
    assert math.isclose(999 * 0.5 * 0.9, 449.55)
    assert PowerDomain(ref=Ref("PowerDomain", "x"), rating_watts=1_000).limit_watts == 970
    assert isinstance(half.limit_watts, int)
    assert np.isnan(NodeTable.build(("a",), {}).lease_watts[0])
