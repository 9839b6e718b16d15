"""The model of the cluster: what each event changes, what is refused, what runs out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cluster import events as ev
from cluster.base import Ref
from cluster.flight import FlightPhase
from cluster.observer import FLIGHTS_KEPT_SECONDS, Observer, noun_key
from cluster.occupancy import Claim, Quota, Reservation
from cluster.power import LeasePhase
from cluster.restraint import PodBudget
from cluster.serving import Launcher, ReplicaPhase, WeightCopy
from cluster.training import GangPhase, JobPhase
from tests.nouns.cases import NOW, gang, job, node, replica, service, slot
from tests.nouns.observing import (
    SMALL,
    agent,
    answered,
    flight,
    gone,
    histogram,
    issued,
    lease,
    load,
    observer,
    seen,
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
    (PodBudget(ref=Ref("PodDisruptionBudget", "shop/chat"), allowed=1), "budgets", "shop/chat"),
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
