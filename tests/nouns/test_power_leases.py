"""What the model believes nodes hold, while grants, answers and time go by and some of them are lost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import actions as act
from cluster import events as ev
from cluster.checks import check
from cluster.observer import GRANTS_KEPT, Observer
from cluster.overlay import Overlay
from cluster.power import LeasePhase, PowerDomain
from cluster.power_sums import ancestors, charged_watts, domain_sums
from cluster.snapshot import Snapshot
from tests.nouns.cases import NOW, stamped
from tests.nouns.powering import domain, powered


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
