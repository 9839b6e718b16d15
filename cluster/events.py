"""What happened in a world, as both worlds tell it to the `Observer`.

Every event carries when it was observed and when it was delivered: delay lives before the fold, and
the core cannot tell the operator from the simulator.
"""

from __future__ import annotations

import msgspec

from cluster.flight import FlightPhase, InFlight
from cluster.hardware import AcceleratorClass, Node, Pool
from cluster.occupancy import Claim, Quota, Reservation
from cluster.power import Lease, PowerDomain
from cluster.restraint import PodBudget
from cluster.serving import Launcher, LoadHistogram, Replica, Service, WeightCopy
from cluster.targets import AnyTarget
from cluster.training import Gang, Job

AnyNoun = (
    AcceleratorClass
    | Pool
    | Node
    | Claim
    | Reservation
    | Quota
    | Service
    | LoadHistogram
    | Launcher
    | Replica
    | WeightCopy
    | Job
    | Gang
    | PowerDomain
    | Lease
    | PodBudget
)


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag_field="event"):
    """Base of all events: source, observed and delivered time (UTC seconds)."""

    source: str
    observed_seconds: float
    delivered_seconds: float


class Seen(Event, frozen=True, kw_only=True, tag=True):
    """An object as the world shows it now (`NodeSeen`, `ClaimSeen`, … of SEAMS §5 by type of noun)."""

    noun: AnyNoun


class Gone(Event, frozen=True, kw_only=True, tag=True):
    """An object is no longer there. `mapping` is the snapshot's field, `key` its key there."""

    mapping: str
    key: str


class AgentReport(Event, frozen=True, kw_only=True, tag=True):
    """What a node's agent measured: values of `NodeTable` columns, and of `InstanceTable` rows by key.

    `lease_epoch` and `lease_sequence` acknowledge the newest grant the agent has in force.
    """

    node: str
    columns: dict[str, float]
    instances: dict[str, dict[str, float]] = {}
    lease_epoch: int = 0
    lease_sequence: int = 0


class LoadReport(Event, frozen=True, kw_only=True, tag=True):
    """What a gateway measured: histograms, `SignalTable` values per service, `InstanceTable` values per row."""

    gateway: str
    histograms: tuple[LoadHistogram, ...] = ()
    signals: dict[str, dict[str, float]] = {}
    instances: dict[str, dict[str, float]] = {}


class FeedChanged(Event, frozen=True, kw_only=True, tag=True):
    """A power feed was lost or came back: the share of the domain's rating left."""

    domain: str
    feeds: float


class MeterReport(Event, frozen=True, kw_only=True, tag=True):
    """A domain's meter and breaker state: values of `DomainTable` columns."""

    domain: str
    columns: dict[str, float]


class ActionIssued(Event, frozen=True, kw_only=True, tag=True):
    """An action was accepted and sent."""

    flight: InFlight


class ActionAcked(Event, frozen=True, kw_only=True, tag=True):
    """What became of an issued action."""

    id: str
    phase: FlightPhase


class Aimed(Event, frozen=True, kw_only=True, tag=True):
    """A standing target came into force."""

    target: AnyTarget


AnyEvent = (
    Seen | Gone | AgentReport | LoadReport | FeedChanged | MeterReport | ActionIssued | ActionAcked | Aimed
)
