"""Transfers over several links: who is held up by what, and a single link is the shared one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.physics.flows import FlowNetwork
from simulator.physics.network import SharedLink


def network(**links: float) -> FlowNetwork:
    made = FlowNetwork()
    for name, rate in links.items():
        made.link(name, rate)
    return made


def path(*links: str) -> dict[str, float]:
    return dict.fromkeys(links, 1.0)


@pytest.mark.parametrize(
    ("flows", "rates"),
    [
        pytest.param([("a",)], [10.0], id="alone: the whole link"),
        pytest.param([("a",), ("a",)], [5.0, 5.0], id="two: half each"),
        pytest.param([("a", "b")], [4.0], id="alone over two: the narrower one"),
        pytest.param(
            [("a", "b"), ("a",)], [4.0, 6.0], id="who is held up elsewhere leaves the rest to others"
        ),
        pytest.param([("a", "b"), ("b",), ("b",), ("a",)], [4 / 3, 4 / 3, 4 / 3, 10 - 4 / 3], id="a chain"),
        pytest.param([("a",), ("b",)], [10.0, 4.0], id="nothing in common"),
    ],
)
def test_rates_are_max_min_fair(flows: list[tuple[str, ...]], rates: list[float]) -> None:
    made = network(a=10.0, b=4.0)
    for number, links in enumerate(flows):
        made.begin(str(number), path(*links), 100.0)
    assert [made.rate(str(n)) for n in range(len(flows))] == pytest.approx(rates)


def test_bytes_that_are_spread_over_two_links_go_twice_as_fast() -> None:
    spread, single = network(a=10.0, b=10.0), network(a=10.0)
    spread.begin("x", {"a": 0.5, "b": 0.5}, 100.0)
    single.begin("x", {"a": 1.0}, 100.0)
    assert spread.advance_to(99.0) == [(pytest.approx(5.0), "x")]
    assert single.advance_to(99.0) == [(pytest.approx(10.0), "x")]


def test_who_ends_leaves_its_rate_to_the_others_at_that_moment() -> None:
    made = network(a=10.0)
    made.begin("short", path("a"), 20.0)
    made.begin("long", path("a"), 50.0)
    assert made.next_event_seconds() == pytest.approx(4.0)
    assert made.advance_to(100.0) == [(pytest.approx(4.0), "short"), (pytest.approx(7.0), "long")]
    assert made.next_event_seconds() == math.inf


def test_a_cancelled_transfer_gives_its_rate_back_and_its_name_may_be_used_again() -> None:
    made = network(a=10.0)
    made.begin("x", path("a"), 100.0)
    made.begin("y", path("a"), 30.0)
    made.advance_to(2.0)
    assert made.cancel("x")
    assert not made.cancel("x")
    made.begin("x", path("a"), 5.0)
    assert made.advance_to(50.0) == [(pytest.approx(3.0), "x"), (pytest.approx(4.5), "y")]


@pytest.mark.parametrize(
    ("name", "links", "sentence"),
    [
        pytest.param("x", path("a"), "already active", id="twice"),
        pytest.param("y", {}, "crosses no link", id="no path"),
        pytest.param("y", path("c"), "crosses c, which is no link", id="an unknown link"),
        pytest.param("y", {"a": 0.0}, "share of 0.0", id="nothing of it"),
    ],
)
def test_a_transfer_that_cannot_be_is_refused(name: str, links: dict[str, float], sentence: str) -> None:
    made = network(a=10.0)
    made.begin("x", path("a"), 1.0)
    with pytest.raises(ValueError, match=sentence):
        made.begin(name, links, 1.0)
    with pytest.raises(ValueError, match="must carry something"):
        made.link("d", 0.0)


@given(
    st.lists(st.tuples(st.floats(0.0, 20.0), st.floats(1.0, 500.0)), min_size=1, max_size=12),
    st.floats(0.5, 50.0),
)
@settings(max_examples=60, deadline=None)
def test_one_link_is_the_shared_link(transfers: list[tuple[float, float]], rate: float) -> None:
    one, shared = network(a=rate), SharedLink(rate)
    told: tuple[dict[str, float], dict[str, float]] = {}, {}
    for number, (at, size) in enumerate(sorted(transfers)):
        told[0].update((name, when) for when, name in one.advance_to(at))
        told[1].update((name, when) for when, name in shared.advance_to(at))
        one.begin(str(number), path("a"), size)
        shared.begin(str(number), size)
    told[0].update((name, when) for when, name in one.advance_to(1e9))
    told[1].update((name, when) for when, name in shared.advance_to(1e9))
    assert told[0] == pytest.approx(told[1], rel=1e-9)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_no_link_carries_more_than_it_can_and_each_transfer_is_held_up_by_a_full_one(
    data: st.DataObject,
) -> None:
    made = network(a=7.0, b=3.0, c=11.0)
    paths = data.draw(
        st.lists(
            st.dictionaries(st.sampled_from("abc"), st.sampled_from([0.25, 0.5, 1.0]), min_size=1),
            min_size=1,
            max_size=8,
        )
    )
    for number, links in enumerate(paths):
        made.begin(str(number), links, 100.0)
    used = {
        link: sum(links.get(link, 0.0) * made.rate(str(n)) for n, links in enumerate(paths)) for link in "abc"
    }
    capacity = {"a": 7.0, "b": 3.0, "c": 11.0}
    assert all(used[link] <= capacity[link] * (1 + 1e-9) for link in used)
    for links in paths:
        assert any(used[link] >= capacity[link] * (1 - 1e-9) for link in links)
