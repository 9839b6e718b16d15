"""The model of the cluster: what each event changes, what is refused, what views share, how old facts are."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import events as ev
from cluster import targets as aim
from cluster.base import Ref
from cluster.beliefs import PowerBelief, StartBelief
from cluster.flight import FlightPhase, InFlight
from cluster.observer import FLIGHTS_KEPT_SECONDS, Observer, noun_key
from cluster.occupancy import Claim, Quota, Reservation
from cluster.power import Lease, LeasePhase, PowerDomain
from cluster.serving import Launcher, LoadHistogram, ReplicaPhase, WeightCopy
from cluster.training import GangPhase, JobPhase, Layout
from tests.nouns.cases import NOW, cluster, gang, job, node, replica, service, slot

SMALL = cluster()


def seen(noun: Any, at: float = NOW, source: str = "watch") -> ev.Seen:
    return ev.Seen(source=source, observed_seconds=at, delivered_seconds=at, noun=noun)


def gone(mapping: str, key: str) -> ev.Gone:
    return ev.Gone(source="watch", observed_seconds=NOW, delivered_seconds=NOW, mapping=mapping, key=key)


def agent(of: str, at: float = NOW, **more: Any) -> ev.AgentReport:
    fields = {"columns": {}, **more}
    return ev.AgentReport(source="agents", observed_seconds=at, delivered_seconds=at + 1.0, node=of, **fields)


def load(at: float = NOW, **more: Any) -> ev.LoadReport:
    return ev.LoadReport(
        source="gateways", observed_seconds=at, delivered_seconds=at + 1.0, gateway="g", **more
    )


def histogram(held: float = 0.0, rate: float = 2.0, request_class: str = "default") -> LoadHistogram:
    return LoadHistogram(
        service="shop/chat", request_class=request_class, input_edges=(100,), output_edges=(10,), cells=(rate,),
        window_seconds=10.0, held_per_second=held,
    )  # fmt: skip


def observer(*nouns: Any) -> Observer:
    model = Observer()
    for noun in nouns:
        assert model.fold(seen(noun))
    return model


def lease(of: str = "a", **more: Any) -> Lease:
    fields = {
        "watts": 500,
        "charged_watts": 600,
        "epoch": 1,
        "sequence": 7,
        "issued_seconds": NOW,
        "expires_seconds": NOW + 5,
    }
    return Lease(node=of, **{**fields, **more})


def flight(identity: str = "1/place/1/0", phase: FlightPhase = FlightPhase.ISSUED, **more: Any) -> InFlight:
    fields = {
        "kind": "CreateReplica",
        "subject": Ref("Replica", "r0"),
        "loop": "place",
        "issued_seconds": NOW,
        "deadline_seconds": NOW + 30,
    }
    return InFlight(id=identity, phase=phase, **{**fields, **more})


def issued(one: InFlight) -> ev.ActionIssued:
    return ev.ActionIssued(source="actor", observed_seconds=NOW, delivered_seconds=NOW, flight=one)


def answered(identity: str, phase: FlightPhase) -> ev.ActionAcked:
    return ev.ActionAcked(
        source="actor", observed_seconds=NOW, delivered_seconds=NOW, id=identity, phase=phase
    )


# objects come and go


NOUNS = [
    (SMALL.accelerators["L4"], "accelerators", "L4"),
    (SMALL.pools["l4-od"], "pools", "l4-od"),
    (node("a"), "nodes", "a"),
    (Claim(key="ns/p", owner=Ref("Pod", "ns/p"), slot=slot("a", 0)), "claims", "ns/p"),
    (Reservation(key="k", owner=Ref("TrainingJob", "j"), slots=(), starts_seconds=0, expires_seconds=NOW + 1), "reservations", "k"),
    (Quota(namespace="lab", queue="q", pool="p", nominal_gpus=8), "quotas", "q"),
    (service(), "services", "shop/chat"),
    (histogram(), "loads", "shop/chat|default"),
    (Launcher(key="l", ref=Ref("Launcher", "l"), slots=()), "launchers", "l"),
    (replica("r0"), "replicas", "r0"),
    (WeightCopy(model="m", node="a", tier="dram", bytes=1), "weights", "m|a|dram"),
    (job(), "jobs", "lab/train"),
    (gang(), "gangs", "lab/train-a1"),
    (SMALL.domains["row"], "domains", "row"),
    (lease(), "leases", "a"),
]  # fmt: skip


@pytest.mark.parametrize(("noun", "mapping", "key"), NOUNS, ids=[mapping for _, mapping, _ in NOUNS])
def test_an_object_is_seen_once_shown_and_forgotten(noun: Any, mapping: str, key: str) -> None:
    assert noun_key(noun) == (mapping, key)
    model = Observer()
    assert model.fold(seen(noun)) is True
    assert getattr(model.snapshot(NOW), mapping) == {key: noun}
    assert model.live(mapping) == {key: noun}
    assert model.fold(seen(noun)) is False, "nothing new"
    assert model.revision == 1
    assert model.fold(gone(mapping, key)) is True
    assert getattr(model.snapshot(NOW), mapping) == {}
    assert model.fold(gone(mapping, key)) is False
    assert model.revision == 2


def test_every_mapping_of_a_snapshot_can_be_observed() -> None:
    mappings = {
        name
        for name, value in ((f, getattr(SMALL, f)) for f in type(SMALL).__struct_fields__)
        if isinstance(value, dict)
    }
    assert {mapping for _, mapping, _ in NOUNS} | {"in_flight", "targets"} == mappings


def test_an_object_that_changed_replaces_the_old_one() -> None:
    model = observer(node("a"))
    assert model.fold(seen(node("a", island="rack-1")))
    assert model.snapshot(NOW).nodes["a"].island == "rack-1"
    assert model.revision == 2


# life cycles


def lives(kind: str, phase: str) -> Any:
    made: dict[str, Any] = {
        "Replica": lambda: replica("r0", ReplicaPhase(phase)),
        "Gang": lambda: gang(phase=GangPhase(phase)),
        "Job": lambda: job(phase=JobPhase(phase)),
    }
    return made[kind]()


@pytest.mark.parametrize(
    ("kind", "before", "after", "follows"),
    [
        pytest.param("Replica", "starting", "ready", True, id="a replica becomes ready"),
        pytest.param("Replica", "pending", "ready", True, id="the watch missed its start"),
        pytest.param("Replica", "ready", "failed", True, id="a ready replica crashes"),
        pytest.param("Replica", "ready", "starting", False, id="a ready replica does not start again"),
        pytest.param("Replica", "lost", "ready", False, id="a lost replica does not come back"),
        pytest.param("Gang", "forming", "done", True, id="a gang was over before it was looked at"),
        pytest.param("Gang", "done", "running", False, id="a finished gang does not run"),
        pytest.param("Job", "active", "waiting", True, id="a job queues again after a failed attempt"),
        pytest.param("Job", "done", "active", False, id="a finished job is finished"),
    ],
)
def test_a_life_moves_along_its_arrows_only(kind: str, before: str, after: str, follows: bool) -> None:
    model = observer(lives(kind, before))
    mapping, key = noun_key(lives(kind, before))
    assert model.fold(seen(lives(kind, after))) is follows
    assert model.live(mapping)[key].phase == (after if follows else before)
    assert model.refused == ({} if follows else {f"{kind}:{before}>{after}": 1})


def test_refusals_are_counted_each_time() -> None:
    model = observer(replica("r0", ReplicaPhase.STOPPING))
    for _ in range(3):
        assert not model.fold(seen(replica("r0")))
    assert model.refused == {"Replica:stopping>ready": 3}
    assert model.revision == 1


def test_another_object_of_the_same_name_starts_a_new_life() -> None:
    model = observer(replica("r0", ReplicaPhase.STOPPING))
    assert model.fold(seen(replica("r0", ReplicaPhase.PENDING, uid="another")))
    assert model.live("replicas")["r0"].phase is ReplicaPhase.PENDING
    assert model.refused == {}


# actions in flight


def test_an_issued_action_is_in_view_until_its_outcome() -> None:
    model = Observer()
    assert model.fold(issued(flight()))
    assert model.fold(answered("1/place/1/0", FlightPhase.ACKED))
    assert model.snapshot(NOW).in_flight["1/place/1/0"] == flight(phase=FlightPhase.ACKED)
    assert model.fold(answered("1/place/1/0", FlightPhase.DONE))
    assert model.snapshot(NOW).in_flight == {}


@pytest.mark.parametrize("outcome", [FlightPhase.DONE, FlightPhase.FAILED], ids=str)
def test_an_action_that_ended_is_no_longer_in_flight(outcome: FlightPhase) -> None:
    model = Observer()
    model.fold(issued(flight()))
    assert model.fold(answered("1/place/1/0", outcome))
    assert model.live("in_flight") == {}


def test_an_expired_action_stays_in_view_for_a_while() -> None:
    model = Observer()
    model.fold(issued(flight()))
    assert model.fold(answered("1/place/1/0", FlightPhase.EXPIRED))
    assert model.live("in_flight")["1/place/1/0"].phase is FlightPhase.EXPIRED
    assert not model.fold(answered("1/place/1/0", FlightPhase.DONE))
    assert model.refused == {"InFlight:expired>done": 1}


def test_an_answer_nobody_waits_for_changes_nothing() -> None:
    model = Observer()
    assert model.fold(answered("9/x/1/0", FlightPhase.DONE)) is False
    assert model.refused == {}


# what runs out


def test_leases_and_reservations_end_at_their_second_and_late_actions_a_minute_after() -> None:
    model = observer(
        lease(),
        Reservation(key="k", owner=Ref("X", "x"), slots=(), starts_seconds=0, expires_seconds=NOW + 3),
    )
    model.fold(issued(flight()))
    assert model.expire(NOW + 2.9) == []
    assert (list(model.live("leases")), list(model.live("reservations"))) == (["a"], ["k"])
    assert model.expire(NOW + 3.0) == []
    assert (list(model.live("leases")), list(model.live("reservations"))) == (["a"], [])
    assert model.expire(NOW + 5.0) == []
    assert list(model.live("leases")) == []
    assert model.expire(NOW + 30.0 + FLIGHTS_KEPT_SECONDS) == []
    assert model.expire(NOW + 30.5 + FLIGHTS_KEPT_SECONDS) == ["1/place/1/0"]
    assert model.live("in_flight") == {}
    assert FLIGHTS_KEPT_SECONDS == 60.0


# agents


def test_an_agents_numbers_fill_its_nodes_row_and_those_of_known_replicas() -> None:
    model = observer(node("a"), replica("r0"))
    changed = model.fold(
        agent("a", columns={"watts": 250.0}, instances={"r0": {"running": 3.0}, "stranger": {"running": 9.0}})
    )
    assert changed is False, "a planner does not wake for telemetry"
    view = model.snapshot(NOW + 1)
    assert view.node_table.keys == ("a",)
    assert view.node_table.watts.tolist() == [250.0]
    assert view.node_table.observed_seconds.tolist() == [NOW]
    assert np.isnan(view.node_table.clock_mhz).all()
    assert view.instance_table.keys == ("r0",)
    assert view.instance_table.running.tolist() == [3.0]
    assert view.instance_table.observed_seconds.tolist() == [NOW]


@pytest.mark.parametrize(
    ("epoch", "sequence", "phase", "charged"),
    [
        pytest.param(1, 7, LeasePhase.ACTIVE, 500, id="the newest grant"),
        pytest.param(1, 8, LeasePhase.ACTIVE, 500, id="a newer one"),
        pytest.param(2, 0, LeasePhase.ACTIVE, 500, id="a newer leader's"),
        pytest.param(1, 6, LeasePhase.SENT, 600, id="an older grant"),
        pytest.param(0, 99, LeasePhase.SENT, 600, id="an older leader's"),
        pytest.param(0, 0, LeasePhase.SENT, 600, id="none"),
    ],
)
def test_an_agents_answer_makes_a_lease_active(
    epoch: int, sequence: int, phase: LeasePhase, charged: int
) -> None:
    model = observer(node("a"), lease())
    model.fold(agent("a", lease_epoch=epoch, lease_sequence=sequence))
    assert (model.live("leases")["a"].phase, model.live("leases")["a"].charged_watts) == (phase, charged)
    assert model.live("leases")["a"].watts == 500


def test_an_active_lease_is_not_answered_again() -> None:
    model = observer(lease(phase=LeasePhase.ACTIVE))
    revision = model.revision
    model.fold(agent("a", lease_epoch=1, lease_sequence=7))
    assert model.live("leases")["a"].charged_watts == 600
    assert model.revision == revision


# gateways


def test_load_is_kept_by_service_and_class_and_wakes_the_planner_when_requests_begin_to_wait() -> None:
    model = observer(service())
    assert model.fold(load(histograms=(histogram(),))) is False
    assert model.fold(load(histograms=(histogram(rate=9.0),))) is False, "a moving rate can wait"
    assert model.fold(load(histograms=(histogram(held=1.0),))) is True
    assert model.fold(load(histograms=(histogram(held=2.0),))) is False, "they were waiting already"
    assert model.fold(load(histograms=(histogram(held=0.0),))) is False
    assert model.fold(load(histograms=(histogram(), histogram(held=1.0, request_class="batch")))) is True
    assert (
        model.fold(load(histograms=(histogram(held=1.0), histogram(held=1.0, request_class="batch")))) is True
    )
    assert set(model.snapshot(NOW).loads) == {"shop/chat|default", "shop/chat|batch"}


def test_requests_that_wait_at_the_first_report_wake_the_planner() -> None:
    assert observer(service()).fold(load(histograms=(histogram(held=0.5),))) is True


def test_signals_and_pending_requests_fill_their_rows() -> None:
    model = observer(service(), replica("r0"))
    model.fold(
        load(
            signals={"shop/chat": {"held": 4.0}},
            instances={"r0": {"pending": 2.0}, "stranger": {"pending": 1.0}},
        )
    )
    view = model.snapshot(NOW)
    assert (view.signal_table.keys, view.signal_table.held.tolist()) == (("shop/chat",), [4.0])
    assert np.isnan(view.signal_table.concurrency).all()
    assert (view.instance_table.keys, view.instance_table.pending.tolist()) == (("r0",), [2.0])
    assert view.signal_table.observed_seconds.tolist() == [NOW]
    assert view.instance_table.observed_seconds.tolist() == [NOW]


@pytest.mark.parametrize(
    ("mapping", "key", "table"),
    [("nodes", "a", "node_table"), ("replicas", "r0", "instance_table"), ("services", "shop/chat", "signal_table"), ("domains", "row", "domain_table")],
    ids=["a node", "a replica", "a service", "a domain"],
)  # fmt: skip
def test_what_is_gone_has_no_row(mapping: str, key: str, table: str) -> None:
    model = observer(node("a"), service(), replica("r0"), SMALL.domains["row"])
    model.fold(agent("a", columns={"watts": 1.0}, instances={"r0": {"running": 1.0}}))
    model.fold(load(signals={"shop/chat": {"held": 1.0}}))
    model.fold(
        ev.MeterReport(
            source="meters",
            observed_seconds=NOW,
            delivered_seconds=NOW,
            domain="row",
            columns={"meter_watts": 5.0},
        )
    )
    assert getattr(model.snapshot(NOW), table).keys == (key,)
    model.fold(gone(mapping, key))
    assert getattr(model.snapshot(NOW), table).keys == ()


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
        if name not in {"stamp", "beliefs"}
    )
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
