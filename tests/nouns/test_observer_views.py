"""Views of the model: one tree of power, what snapshots share, in which order, and how old facts are."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cluster import events as ev
from cluster import targets as aim
from cluster.base import Ref
from cluster.beliefs import PowerBelief, StartBelief
from cluster.observer import Observer
from cluster.power import PowerDomain
from cluster.training import GangPhase, Layout
from tests.nouns.cases import NOW, gang, node, replica, service, slot
from tests.nouns.observing import (
    SMALL,
    agent,
    gone,
    lease,
    observer,
    seen,
)

# power


def feeds(domain: str, share: float) -> ev.FeedChanged:
    return ev.FeedChanged(
        source="feeds", observed_seconds=NOW, delivered_seconds=NOW, domain=domain, feeds=share
    )


def test_a_lost_feed_lowers_what_a_domain_may_plan() -> None:
    model = observer(SMALL.domains["row"])
    assert model.fold(feeds("row", 0.5)) is True
    assert model.snapshot(NOW).domains["row"].limit_watts == 500
    assert model.fold(feeds("row", 0.5)) is False
    assert model.fold(feeds("nowhere", 0.5)) is False


def domain(name: str, *members: str, parent: str = "", rating: int = 1_000) -> PowerDomain:
    return PowerDomain(
        ref=Ref("PowerDomain", name), parent=parent, rating_watts=rating, margin=0.0, members=members
    )


def power_model() -> Observer:
    model = observer(
        SMALL.accelerators["L4"], *(node(n) for n in "cab"), domain("hall", "c", rating=5_000), domain("rack2", "b", parent="row"),
        domain("rack1", "a", "ghost", parent="row", rating=700), domain("row", parent="hall"), domain("other", "x"),
        lease("a"), lease("x"),
    )  # fmt: skip
    model.fold(agent("b", columns={"watts": 100.0, "safe_watts": 300.0}))
    model.fold(
        ev.MeterReport(
            source="meters",
            observed_seconds=NOW - 3,
            delivered_seconds=NOW,
            domain="row",
            columns={"meter_watts": 640.0, "accumulator": 0.25, "degraded": 1.0},
        )
    )
    return model


def test_a_power_view_is_one_tree_with_parents_before_children() -> None:
    view = power_model().power_view("hall", NOW, epoch=4)
    table = view.domain_table
    assert table.keys == ("hall", "row", "rack1", "rack2") == tuple(view.domains)
    assert table.parent.tolist() == [-1, 0, 1, 1]
    assert table.limit_watts.tolist() == [5_000, 1_000, 700, 1_000]
    assert table.rating_watts.tolist() == [5_000, 1_000, 700, 1_000]
    assert table.meter_watts[1] == 640.0
    assert (table.accumulator[1], table.degraded[1], table.observed_seconds[1]) == (0.25, 1.0, NOW - 3)
    assert np.isnan(table.meter_watts[[0, 2, 3]]).all()
    assert (view.stamp.epoch, view.stamp.taken_seconds) == (4, NOW)


def test_a_power_view_has_the_nodes_of_its_tree_with_or_without_reports() -> None:
    view = power_model().power_view("hall", NOW)
    assert view.node_table.keys == ("a", "b", "c")
    assert view.node_domain.tolist() == [2, 3, 0]
    assert view.node_table.watts[1] == 100.0
    assert view.node_table.observed_seconds[1] == NOW
    assert np.isnan(view.node_table.watts[[0, 2]]).all(), "no agent has told anything of a and c"
    assert np.isnan(view.node_table.observed_seconds[[0, 2]]).all()
    assert not view.node_table.watts.flags.writeable
    assert view.leases == {"a": lease("a")}
    assert view.clock_ladders == {"L4": ()}


def test_a_power_view_of_a_subtree_and_of_nothing() -> None:
    model = power_model()
    rack = model.power_view("rack2", NOW)
    assert (rack.domain_table.keys, rack.node_table.keys, rack.leases) == (("rack2",), ("b",), {})
    assert rack.domain_table.parent.tolist() == [-1]
    nothing = model.power_view("nowhere", NOW)
    assert (nothing.domain_table.keys, nothing.node_table.keys, dict(nothing.domains)) == ((), (), {})
    assert nothing.node_domain.tolist() == []


def test_a_cycle_of_domains_is_walked_once() -> None:
    model = observer(domain("x", parent="y"), domain("y", parent="x"))
    assert model.power_view("x", NOW).domain_table.keys == ("x", "y")


def layout(*nodes: str) -> Layout:
    return Layout(slots=tuple(slot(n, 0) for n in nodes))


def test_nodes_of_one_gang_must_have_equal_caps() -> None:
    model = power_model()
    for attempt, (phase, nodes) in enumerate(
        [
            (GangPhase.RUNNING, "cab"), (GangPhase.FORMING, "ab"), (GangPhase.RESTARTING, "ac"), (GangPhase.RUNNING, "a"),
            (GangPhase.RUNNING, "az"), (GangPhase.STOPPED, "ab"), (GangPhase.FAILED, "ab"), (GangPhase.DONE, "ab"),
        ]
    ):  # fmt: skip
        model.fold(seen(msgspec.structs.replace(gang(attempt=attempt, phase=phase), layout=layout(*nodes))))
    assert model.power_view("hall", NOW).groups == (("a", "b", "c"), ("a", "b"), ("a", "c"))
    assert model.power_view("rack1", NOW).groups == ()


# beliefs and targets


def test_beliefs_of_one_kind_replace_those_of_equal_keys() -> None:
    model = Observer()

    def start(p50: float) -> StartBelief:
        return StartBelief(
            model="m", variant="v", tier="dram", p50_seconds=p50, p90_seconds=9, p99_seconds=10
        )

    model.believe("start", {"m|v|dram": start(1.0), "m|v|nvme": start(2.0)})
    model.believe("start", {"m|v|dram": start(5.0)})
    model.believe(
        "power", {"L4|busy": PowerBelief(accelerator="L4", phase="busy", clocks_mhz=(), watts=(), speed=())}
    )
    beliefs = model.snapshot(NOW).beliefs
    assert {key: b.p50_seconds for key, b in beliefs.start.items()} == {"m|v|dram": 5.0, "m|v|nvme": 2.0}
    assert list(beliefs.power) == ["L4|busy"]
    assert list(model.power_view("x", NOW).beliefs) == ["L4|busy"]
    assert model.revision == 3


def test_a_target_stands_until_a_newer_one_of_its_key() -> None:
    model = Observer()

    def budget(watts: int) -> ev.Aimed:
        target = aim.Budget(owner="power", decided_seconds=NOW, domain="row", watts=watts)
        return ev.Aimed(source="planner", observed_seconds=NOW, delivered_seconds=NOW, target=target)

    assert model.fold(budget(5))
    assert not model.fold(budget(5))
    assert model.fold(budget(6))
    assert model.snapshot(NOW).targets["Budget/row"] == budget(6).target


# views


def test_a_snapshot_shares_every_mapping_that_did_not_change() -> None:
    model = observer(node("a"), node("b"), service())
    first = model.snapshot(NOW)
    model.fold(seen(node("b", island="x")))
    model.fold(agent("a", columns={"watts": 1.0}))
    second = model.snapshot(NOW + 1)
    assert second.services is first.services
    assert second.jobs is first.jobs
    assert second.nodes is not first.nodes
    assert second.nodes["a"] is first.nodes["a"]
    assert first.nodes["b"].island == "", "an old snapshot never changes"
    assert second.domain_table is first.domain_table
    assert second.node_table is not first.node_table
    assert model.snapshot(NOW + 2).nodes is second.nodes


def test_a_snapshot_is_not_the_model_itself() -> None:
    model = observer(node("a"))
    first = model.snapshot(NOW)
    model.fold(gone("nodes", "a"))
    assert list(first.nodes) == ["a"]


@given(
    st.permutations(
        [node("a"), node("b"), node("c"), service("x/1"), service("x/2"), replica("r1"), replica("r0")]
    )
)
def test_the_order_of_arrival_is_not_in_the_view(nouns: list[Any]) -> None:
    view = observer(*nouns).snapshot(NOW)
    assert (list(view.nodes), list(view.services), list(view.replicas)) == (
        ["a", "b", "c"],
        ["x/1", "x/2"],
        ["r0", "r1"],
    )


def test_a_newcomer_is_sorted_in_after_others_were_published() -> None:
    model = observer(node("b"), node("d"))
    assert list(model.snapshot(NOW).nodes) == ["b", "d"]
    for name in ("a", "c"):
        model.fold(seen(node(name)))
    assert list(model.snapshot(NOW).nodes) == ["a", "b", "c", "d"]
    assert list(model.live("nodes")) == ["a", "b", "c", "d"]


def test_a_stamp_has_the_newest_observation_of_each_source() -> None:
    model = observer()
    model.fold(agent("a", at=NOW + 5))
    model.fold(agent("b", at=NOW + 2))
    model.fold(seen(node("a"), at=NOW + 1))
    view = model.snapshot(NOW + 9, epoch=3)
    assert view.stamp.sources == {"agents": NOW + 5, "watch": NOW + 1}
    assert list(view.stamp.sources) == ["agents", "watch"]
    assert (view.stamp.taken_seconds, view.stamp.epoch, view.stamp.revision) == (NOW + 9, 3, 1)


def test_an_observer_starts_knowing_nothing() -> None:
    view = Observer().snapshot(NOW)
    assert all(
        len(getattr(view, name)) == 0
        for name in type(view).__struct_fields__
        if name not in {"stamp", "beliefs", "moves"}
    )
    assert view.moves is None
    assert view.stamp.revision == 0
    assert view.stamp.sources == {}


# delay lives before the fold


DELAYS = {"agents": 1.0, "gateways": 1.5, "meters": 2.0}
REPORTS = st.lists(
    st.tuples(st.sampled_from(sorted(DELAYS)), st.sampled_from("ab"), st.floats(0, 20), st.floats(0, 3)),
    max_size=30,
)


@given(REPORTS, st.floats(20, 30))
def test_no_row_is_fresher_than_its_sources_delay_allows(
    reports: list[tuple[str, str, float, float]], until: float
) -> None:
    """Reports reach the model when they are delivered; every row served is as old as its way was long."""
    model = observer(domain("a"), domain("b"), service("a"), service("b"), node("a"), node("b"))
    on_the_way = sorted(
        (seen_at + DELAYS[source] + extra, seen_at, source, of) for source, of, seen_at, extra in reports
    )
    for delivered, observed, source, of in on_the_way:
        if delivered > until:
            break
        stamp = {"source": source, "observed_seconds": observed, "delivered_seconds": delivered}
        match source:
            case "agents":
                model.fold(ev.AgentReport(node=of, columns={"watts": 1.0}, **stamp))
            case "gateways":
                model.fold(ev.LoadReport(gateway="g", signals={of: {"held": 1.0}}, **stamp))
            case _:
                model.fold(ev.MeterReport(domain=of, columns={"meter_watts": 1.0}, **stamp))
        view = model.snapshot(delivered)
        tables = {"agents": view.node_table, "gateways": view.signal_table, "meters": view.domain_table}
        for name, table in tables.items():
            assert (delivered - table.observed_seconds >= DELAYS[name] - 1e-9).all()
            assert all(
                delivered - view.stamp.sources[name] >= DELAYS[name] - 1e-9
                for name in DELAYS
                if name in view.stamp.sources
            )


def test_a_row_says_when_it_was_observed_not_when_it_came() -> None:
    model = observer(replica("r0"))
    model.fold(agent("a", at=NOW - 7, instances={"r0": {"running": 1.0}}))
    view = model.snapshot(NOW)
    assert view.node_table.observed_seconds.tolist() == [NOW - 7]
    assert view.instance_table.observed_seconds.tolist() == [NOW - 7]
    assert not math.isnan(view.instance_table.running[0])
