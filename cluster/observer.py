"""Folds a world's events into the model, and publishes immutable views of it.

One thread owns an `Observer`. It holds no clock: `now` comes with each call. Illegal transitions of
replicas, gangs and jobs are refused and counted (SEAMS §9).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import msgspec
import numpy as np

from cluster import events as ev
from cluster.beliefs import Beliefs
from cluster.flight import FlightPhase, InFlight
from cluster.hardware import AcceleratorClass, Node, Pool
from cluster.lifecycles import GANG, IN_FLIGHT, JOB, REPLICA, Arrows, legal, reachable
from cluster.occupancy import Claim, Quota, Reservation
from cluster.power import Lease, LeasePhase, PowerDomain
from cluster.restraint import Moves, PodBudget
from cluster.rows import Rows
from cluster.serving import Launcher, LoadHistogram, Replica, Service, WeightCopy
from cluster.snapshot import Snapshot, Stamp
from cluster.tables import DomainTable, InstanceTable, NodeTable, SignalTable
from cluster.targets import target_key
from cluster.training import Gang, Job
from cluster.views import PowerView

_MAPPING: dict[type[Any], tuple[str, str]] = {
    AcceleratorClass: ("accelerators", "name"),
    Pool: ("pools", "name"),
    Node: ("nodes", "name"),
    Claim: ("claims", "key"),
    Reservation: ("reservations", "key"),
    Quota: ("quotas", "queue"),
    Service: ("services", "name"),
    Launcher: ("launchers", "key"),
    Replica: ("replicas", "key"),
    WeightCopy: ("weights", ""),
    Job: ("jobs", "name"),
    Gang: ("gangs", "key"),
    PowerDomain: ("domains", "name"),
    Lease: ("leases", "node"),
    PodBudget: ("budgets", "name"),
}
_ARROWS: dict[type[Any], Arrows] = {Replica: REPLICA, Gang: GANG, Job: JOB}
_MAPPINGS = (*sorted({name for name, _ in _MAPPING.values()}), "loads", "in_flight", "targets")

_SUBJECTS = {
    "Menu": "services", "Capacity": "services", "Routes": "services", "Warm": "services", "Cadence": "jobs", "Budget": "domains"
}  # fmt: skip
"""Kinds of targets that end with their subject, and the mapping it lives in."""

FLIGHTS_KEPT_SECONDS = 60.0
"""How long an expired in-flight action stays visible before it is forgotten."""


GRANTS_KEPT = 32
"""How many unacknowledged grants of a node are told apart."""


def noun_key(noun: ev.AnyNoun) -> tuple[str, str]:
    """The snapshot mapping a noun lives in, and its key there."""
    if isinstance(noun, LoadHistogram):
        return "loads", f"{noun.service}|{noun.request_class}"
    mapping, field = _MAPPING[type(noun)]
    if isinstance(noun, WeightCopy):
        return mapping, f"{noun.model}|{noun.node}|{noun.tier}"
    return mapping, str(getattr(noun, field))


class Observer:
    """The one model of the cluster in a process."""

    def __init__(self) -> None:
        """Start knowing nothing."""
        self.revision = 0
        self.refused: Counter[str] = Counter()
        self.beliefs = Beliefs()
        self.moves: Moves | None = None
        self._live: dict[str, dict[str, Any]] = {name: {} for name in _MAPPINGS}
        self._published: dict[str, dict[str, Any]] = {}
        self._resort: set[str] = set()
        self._sources: dict[str, float] = {}
        self._granted: dict[str, list[tuple[int, int, int]]] = {}
        self.node_rows = Rows(NodeTable)
        self.instance_rows = Rows(InstanceTable)
        self.domain_rows = Rows(DomainTable)
        self.signal_rows = Rows(SignalTable)
        self._folds: dict[type[ev.Event], Callable[[Any], bool]] = {
            ev.Seen: lambda event: self._seen(event.noun),
            ev.Gone: lambda event: self._drop(event.mapping, event.key),
            ev.AgentReport: self._agent,
            ev.LoadReport: self._load,
            ev.FeedChanged: lambda event: self._replace("domains", event.domain, feeds=event.feeds),
            ev.MeterReport: self._meter,
            ev.ActionIssued: lambda event: self._put("in_flight", event.flight.id, event.flight),
            ev.ActionAcked: self._acked,
            ev.Aimed: lambda event: self._put("targets", target_key(event.target), event.target),
        }

    def live(self, mapping: str) -> dict[str, Any]:
        """A mapping of the model itself: read it between folds, never keep or write it."""
        return self._live[mapping]

    def fold(self, event: ev.AnyEvent) -> bool:
        """Take one event in. True when an object changed that a planner would look at."""
        self._sources[event.source] = max(self._sources.get(event.source, 0.0), event.observed_seconds)
        return self._folds[type(event)](event)

    def believe(self, kind: str, beliefs: dict[str, Any]) -> None:
        """Take an estimator's beliefs of one kind (a field of `Beliefs`), replacing those of equal keys."""
        merged = {**getattr(self.beliefs, kind), **beliefs}
        self.beliefs = msgspec.structs.replace(self.beliefs, **{kind: merged})
        self.revision += 1

    def disbelieve(self, kind: str, keys: Collection[str]) -> None:
        """Drop an estimator's beliefs of one kind (a field of `Beliefs`) that nobody asks for any more."""
        held = getattr(self.beliefs, kind)
        kept = {key: belief for key, belief in held.items() if key not in keys}
        if len(kept) < len(held):
            self.beliefs = msgspec.structs.replace(self.beliefs, **{kind: kept})
            self.revision += 1

    def allow(self, moves: Moves | None) -> bool:
        """Take the cluster's disruption budget as it is now. True when that is news."""
        if moves == self.moves:
            return False
        self.moves = moves
        self.revision += 1
        return True

    def _seen(self, noun: ev.AnyNoun) -> bool:
        mapping, key = noun_key(noun)
        arrows = _ARROWS.get(type(noun))
        if arrows is not None and not self._follows(arrows, self._live[mapping].get(key), noun):
            return False
        if isinstance(noun, Lease):
            self._remember(noun)
        return self._put(mapping, key, noun)

    def _remember(self, lease: Lease) -> None:
        """Keep what was granted until an agent says which grant it holds."""
        grants = self._granted.setdefault(lease.node, [])
        grants.append((lease.epoch, lease.sequence, lease.watts))
        if len(grants) > GRANTS_KEPT:  # the oldest two count as one: at the later, with the larger watts
            (_, _, older), (epoch, sequence, newer) = grants[:2]
            grants[:2] = [(epoch, sequence, max(older, newer))]

    def _follows(self, arrows: Arrows, old: Any, new: Any) -> bool:
        if old is None or old.ref.uid != new.ref.uid or reachable(arrows, old.phase, new.phase):
            return True
        self.refused[f"{type(new).__name__}:{old.phase}>{new.phase}"] += 1
        return False

    def _meter(self, event: ev.MeterReport) -> bool:
        self.domain_rows.set(event.domain, event.observed_seconds, event.columns)
        return False

    def _put(self, mapping: str, key: str, value: Any) -> bool:
        live = self._live[mapping]
        old = live.get(key)
        if old == value:
            return False
        if old is None:
            self._resort.add(mapping)
        live[key] = value
        self._touch(mapping)
        return True

    def _replace(self, mapping: str, key: str, **changes: Any) -> bool:
        old = self._live[mapping].get(key)
        return old is not None and self._put(mapping, key, msgspec.structs.replace(old, **changes))

    def _touch(self, mapping: str) -> None:
        self.revision += 1
        self._published.pop(mapping, None)

    def _drop(self, mapping: str, key: str) -> bool:
        if self._live[mapping].pop(key, None) is None:
            return False
        if mapping == "leases":
            self._granted.pop(key, None)
        elif mapping == "nodes":
            self.node_rows.remove(key)
        elif mapping == "replicas":
            self.instance_rows.remove(key)
        elif mapping == "services":
            self.signal_rows.remove(key)
        elif mapping == "domains":
            self.domain_rows.remove(key)
        self._touch(mapping)
        return True

    def _agent(self, event: ev.AgentReport) -> bool:
        self.node_rows.set(event.node, event.observed_seconds, event.columns)
        for key, values in event.instances.items():
            if key in self._live["replicas"]:
                self.instance_rows.set(key, event.observed_seconds, values)
        self._lease_acked(event)
        return False

    def _lease_acked(self, event: ev.AgentReport) -> None:
        """An agent holds the grant it names and obeyed none of the older ones since: only newer ones may still
        arrive, and the node counts for the largest of those and the one it holds.
        """
        lease: Lease | None = self._live["leases"].get(event.node)
        newest = (event.lease_epoch, event.lease_sequence)
        grants = [grant for grant in self._granted.get(event.node, ()) if grant[:2] >= newest]
        if lease is None or lease.phase is not LeasePhase.SENT:
            return
        if newest >= (lease.epoch, lease.sequence):
            self._granted[event.node] = grants
            acked = msgspec.structs.replace(lease, phase=LeasePhase.ACTIVE, charged_watts=lease.watts)
            self._put("leases", event.node, acked)
        elif grants and grants[0][:2] == newest:
            self._granted[event.node] = grants
            most = max(watts for _, _, watts in grants)
            if most < lease.charged_watts:
                self._put("leases", event.node, msgspec.structs.replace(lease, charged_watts=most))

    def _load(self, event: ev.LoadReport) -> bool:
        woken = False
        for histogram in event.histograms:
            key = f"{histogram.service}|{histogram.request_class}"
            old = self._live["loads"].get(key)
            # A moving rate is read at the next planner run; requests that wait for a first replica are urgent.
            woken |= histogram.held_per_second > 0.0 and (old is None or old.held_per_second == 0.0)
            self._put("loads", key, histogram)
        for service, values in event.signals.items():
            self.signal_rows.set(service, event.observed_seconds, values)
        for key, values in event.instances.items():
            if key in self._live["replicas"]:
                self.instance_rows.set(key, event.observed_seconds, values)
        return woken

    def _acked(self, event: ev.ActionAcked) -> bool:
        flight: InFlight | None = self._live["in_flight"].get(event.id)
        if flight is None:
            return False
        if not legal(IN_FLIGHT, flight.phase, event.phase):
            self.refused[f"InFlight:{flight.phase}>{event.phase}"] += 1
            return False
        if event.phase in (FlightPhase.DONE, FlightPhase.FAILED):
            return self._drop("in_flight", event.id)
        return self._put("in_flight", event.id, msgspec.structs.replace(flight, phase=event.phase))

    def expire(self, now_seconds: float) -> list[str]:
        """Forget what has run out: leases, reservations, actions long past their deadline.

        Returns the ids of actions that expired without an outcome.
        """
        for mapping in ("leases", "reservations"):
            for key, item in list(self._live[mapping].items()):
                if item.expires_seconds <= now_seconds:
                    self._drop(mapping, key)
        late = [
            k
            for k, f in self._live["in_flight"].items()
            if f.deadline_seconds + FLIGHTS_KEPT_SECONDS < now_seconds
        ]
        for key in late:
            self._drop("in_flight", key)
        return late

    def tidy(self) -> None:
        """Forget targets and loads of what is gone: another service of that name must not inherit them. Call it only
        when everything there is has been seen.
        """
        for key in list(self._live["targets"]):
            kind, _, subject = key.partition("/")
            mapping = _SUBJECTS.get(kind)
            if mapping is not None and subject not in self._live[mapping]:
                self._drop("targets", key)
        for key, load in list(self._live["loads"].items()):
            if load.service not in self._live["services"]:
                self._drop("loads", key)

    def snapshot(self, now_seconds: float, epoch: int = 0) -> Snapshot:
        """The planner's view: objects shared, mappings copied only where something changed since the last."""
        for mapping in _MAPPINGS:
            if mapping not in self._published:
                if mapping in self._resort:
                    self._live[mapping] = dict(sorted(self._live[mapping].items()))
                    self._resort.discard(mapping)
                self._published[mapping] = dict(self._live[mapping])
        return Snapshot(
            stamp=self._stamp(now_seconds, epoch),
            beliefs=self.beliefs,
            moves=self.moves,
            node_table=self.node_rows.publish(),
            instance_table=self.instance_rows.publish(),
            domain_table=self.domain_rows.publish(),
            signal_table=self.signal_rows.publish(),
            **self._published,
        )

    def _stamp(self, now_seconds: float, epoch: int) -> Stamp:
        return Stamp(
            revision=self.revision,
            taken_seconds=now_seconds,
            epoch=epoch,
            sources=dict(sorted(self._sources.items())),
        )

    def power_view(self, root: str, now_seconds: float, epoch: int = 0) -> PowerView:
        """The power loop's view of one root domain: its subtree, parents before children, and its nodes."""
        domains: dict[str, PowerDomain] = self._live["domains"]
        order = _subtree(domains, root)
        rows = {name: row for row, name in enumerate(order)}
        member_of = {
            m: rows[name] for name in order for m in domains[name].members if m in self._live["nodes"]
        }
        nodes = sorted(member_of)
        table = self.node_rows.publish()
        at = table.index()
        missing = [n for n in nodes if n not in at]
        for name in missing:
            self.node_rows.set(name, np.nan, {})
        if missing:
            table = self.node_rows.publish()
            at = table.index()
        pick = np.fromiter((at[n] for n in nodes), dtype=np.intp, count=len(nodes))
        own = {name: getattr(table, name)[pick] for name in NodeTable.columns()}
        return PowerView(
            stamp=self._stamp(now_seconds, epoch),
            domains={name: domains[name] for name in order},
            domain_table=self._domain_table(order, rows, domains),
            node_table=NodeTable(keys=tuple(nodes), **own).freeze(),
            node_domain=np.fromiter((member_of[n] for n in nodes), dtype=np.int64, count=len(nodes)),
            leases={n: self._live["leases"][n] for n in nodes if n in self._live["leases"]},
            groups=self._power_groups(set(nodes)),
            clock_ladders={name: a.clocks_mhz for name, a in sorted(self._live["accelerators"].items())},
            beliefs=self.beliefs.power,
        )

    def _domain_table(
        self, order: list[str], rows: dict[str, int], domains: dict[str, PowerDomain]
    ) -> DomainTable:
        return DomainTable.build(
            order,
            {
                "observed_seconds": [self.domain_rows.get(n, "observed_seconds") for n in order],
                "parent": [rows.get(domains[n].parent, -1) for n in order],
                "limit_watts": [domains[n].limit_watts for n in order],
                "rating_watts": [domains[n].rating_watts for n in order],
                "meter_watts": [self.domain_rows.get(n, "meter_watts") for n in order],
                "accumulator": [self.domain_rows.get(n, "accumulator") for n in order],
                "degraded": [self.domain_rows.get(n, "degraded") for n in order],
            },
        )

    def _power_groups(self, nodes: set[str]) -> tuple[tuple[str, ...], ...]:
        groups = []
        for _, gang in sorted(self._live["gangs"].items()):
            if gang.phase in ("stopped", "failed", "done"):
                continue
            members = tuple(sorted({slot.node for slot in gang.layout.slots} & nodes))
            if len(members) > 1:
                groups.append(members)
        return tuple(groups)


def _subtree(domains: dict[str, PowerDomain], root: str) -> list[str]:
    """The root and everything under it, parents first; a cycle is walked once."""
    order: list[str] = []
    frontier = [root] if root in domains else []
    while frontier:
        name = frontier.pop(0)
        if name not in order:
            order.append(name)
            frontier.extend(sorted(n for n, d in domains.items() if d.parent == name))
    return order
