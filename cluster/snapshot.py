"""The planner's view: one immutable picture of the cluster, and its pure overlay `after(plan)`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from cluster.base import Noun
from cluster.beliefs import Beliefs
from cluster.flight import InFlight
from cluster.hardware import AcceleratorClass, Node, Pool
from cluster.occupancy import Claim, Quota, Reservation
from cluster.overlay import Overlay
from cluster.plan import Plan
from cluster.power import Lease, PowerDomain
from cluster.restraint import Moves, PodBudget
from cluster.serving import Launcher, LoadHistogram, Replica, Service, WeightCopy
from cluster.tables import DomainTable, InstanceTable, NodeTable, SignalTable
from cluster.targets import AnyTarget, Capacity, Menu, Routes, Warm
from cluster.training import Gang, Job


class Stamp(Noun, kw_only=True, frozen=True):
    """Where a snapshot stands in time: revision, when it was made, newest observation per source."""

    revision: int = 0
    taken_seconds: float = 0.0
    epoch: int = 0
    sources: dict[str, float] = {}


class Snapshot(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """Everything the planner may know. Mappings are keyed by name (`namespace/name`) or `key`.

    Iterate in sorted order or by `Node.order`; mapping order carries no meaning. `loads` is keyed
    `service|class`; `targets` by `targets.target_key`. `moves` is the whole cluster's disruption budget (None: none).
    """

    stamp: Stamp = Stamp()
    accelerators: Mapping[str, AcceleratorClass] = {}
    pools: Mapping[str, Pool] = {}
    nodes: Mapping[str, Node] = {}
    claims: Mapping[str, Claim] = {}
    reservations: Mapping[str, Reservation] = {}
    quotas: Mapping[str, Quota] = {}
    services: Mapping[str, Service] = {}
    loads: Mapping[str, LoadHistogram] = {}
    launchers: Mapping[str, Launcher] = {}
    replicas: Mapping[str, Replica] = {}
    weights: Mapping[str, WeightCopy] = {}
    jobs: Mapping[str, Job] = {}
    gangs: Mapping[str, Gang] = {}
    domains: Mapping[str, PowerDomain] = {}
    leases: Mapping[str, Lease] = {}
    budgets: Mapping[str, PodBudget] = {}
    in_flight: Mapping[str, InFlight] = {}
    targets: Mapping[str, AnyTarget] = {}
    beliefs: Beliefs = Beliefs()
    moves: Moves | None = None
    node_table: NodeTable = msgspec.field(default_factory=NodeTable.empty)
    instance_table: InstanceTable = msgspec.field(default_factory=InstanceTable.empty)
    domain_table: DomainTable = msgspec.field(default_factory=DomainTable.empty)
    signal_table: SignalTable = msgspec.field(default_factory=SignalTable.empty)

    def capacity(self, service: str) -> Capacity | None:
        """The standing capacity target of a service."""
        target = self.targets.get(f"Capacity/{service}")
        return target if isinstance(target, Capacity) else None

    def menu(self, service: str) -> Menu | None:
        """The standing menu of a service."""
        target = self.targets.get(f"Menu/{service}")
        return target if isinstance(target, Menu) else None

    def routes(self, service: str) -> Routes | None:
        """What a service's gateways were told last."""
        target = self.targets.get(f"Routes/{service}")
        return target if isinstance(target, Routes) else None

    def warm(self, service: str) -> Warm | None:
        """The standing warmth target of a service."""
        target = self.targets.get(f"Warm/{service}")
        return target if isinstance(target, Warm) else None

    def replicas_of(self, service: str) -> list[Replica]:
        """The service's replicas, by key."""
        return [r for _, r in sorted(self.replicas.items()) if r.service == service]

    def loads_of(self, service: str) -> list[LoadHistogram]:
        """The service's histograms, by class."""
        return [h for _, h in sorted(self.loads.items()) if h.service == service]

    def after(self, plan: Plan) -> Snapshot:
        """This snapshot with the plan's actions and targets in effect; the original is untouched."""
        overlay = Overlay(self)
        for action in plan.actions:
            overlay.apply(action)
        for target in plan.targets:
            overlay.aim(target)
        return overlay.snapshot()
