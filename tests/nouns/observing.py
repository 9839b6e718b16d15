"""Events for tests of the observer."""

from __future__ import annotations

from typing import Any

from cluster import events as ev
from cluster.base import Ref
from cluster.flight import FlightPhase, InFlight
from cluster.observer import Observer
from cluster.power import Lease
from cluster.serving import LoadHistogram
from tests.nouns.cases import NOW, cluster

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
