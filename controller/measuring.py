"""What the operator shows at `/metrics`, out of its decisions and its model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from cluster.observer import Observer
from cluster.plan import Plan
from cluster.serving import Replica, ReplicaPhase
from cluster.snapshot import Snapshot
from controller.actor.outcome import Outcome
from controller.hub.service import Hub
from controller.ledger.ledger import Ledger
from controller.metrics import HubTotals, Metrics, ServiceGauges
from controller.observe.caches import Caches
from controller.telling.statuses import LIVE, dollars_per_hour

PHASES = ("waiting", "reserved", "active", "suspended", "done", "failed")


class Measuring:
    """Feeds `Metrics`; remembers only which series exist, so that those of deleted objects go."""

    def __init__(self, metrics: Metrics) -> None:
        """Bind to the metrics of the process."""
        self.metrics = metrics
        self._services: set[str] = set()
        self._domains: set[str] = set()
        self._refused: Counter[str] = Counter()
        self._counted: Counter[str] = Counter()

    def decided(
        self, loop: str, took_seconds: float, *, decision: str, degraded: bool, late_seconds: float = 0.0
    ) -> None:
        """A loop decided: how long it took, and how late it began."""
        self.metrics.decided(
            loop, took_seconds, decision=decision, degraded=degraded, late_seconds=late_seconds
        )

    def planned(self, loop: str, plan: Plan) -> None:
        """A plan's reasons and work."""
        for (code, verdict), count in sorted(
            Counter((r.code, r.verdict.value) for r in plan.reasons).items()
        ):
            self.metrics.reason(code, verdict, count)
        if plan.evidence.units_used:
            self.metrics.solved(loop, units=plan.evidence.units_used)

    def solved(self, scratch: Mapping[str, Any]) -> None:
        """Mixes solved and remembered so far, as the planner's scratch counts them."""
        for name, field in (("mix_solves", "solves"), ("mix_hits", "cache_hits")):
            total = int(scratch.get(name, 0))
            self.metrics.solved("commit", **{field: total - self._counted[name]})
            self._counted[name] = total

    def acted(self, outcomes: list[Outcome]) -> None:
        """Actions were carried out or dropped."""
        counts = Counter((o.stamped.action.kind, o.status, o.code if o.drop else "") for o in outcomes)
        for (kind, status, code), count in sorted(counts.items()):
            self.metrics.action(kind, status, code=code, count=count)

    def observed(
        self,
        observer: Observer,
        snapshot: Snapshot,
        caches: Caches,
        hub: Hub | None,
        ledger: Ledger | None,
        *,
        every_seconds: float,
    ) -> None:
        """Gauges of the model as it is now; called every so many seconds."""
        self._show_services(snapshot)
        self._show_domains(snapshot, every_seconds)
        jobs = Counter(job.phase.value for job in snapshot.jobs.values())
        self.metrics.jobs({phase: jobs.get(phase, 0) for phase in PHASES})
        for kind, reflector in caches.reflectors.items():
            self.metrics.cache(kind, len(reflector.objects), reflector.last_event_age_seconds)
        for key, count in observer.refused.items():
            cycle, _, arrow = key.partition(":")
            source, _, target = arrow.partition(">")
            for _ in range(count - self._refused[key]):
                self.metrics.transition_refused(cycle, source, target)
            self._refused[key] = count
        if hub is not None:
            self.metrics.hub(len(hub.nodes()), HubTotals.of(hub.stats.as_dict()))
        if ledger is not None:
            self.metrics.ledger(ledger.state())

    def _show_services(self, snapshot: Snapshot) -> None:
        rows = snapshot.signal_table.index()
        by_service: dict[str, list[Replica]] = {}
        for _, replica in sorted(snapshot.replicas.items()):
            if replica.phase in LIVE:
                by_service.setdefault(replica.service, []).append(replica)
        for name in sorted(snapshot.services):
            held = by_service.get(name, [])
            capacity = snapshot.capacity(name)
            row = rows.get(name)
            gpus: dict[str, float] = {}
            for replica in held:
                product = replica.variant.accelerator
                gpus[product] = gpus.get(product, 0.0) + replica.variant.gpu_share
            self.metrics.service(
                name,
                ServiceGauges(
                    desired_replicas=sum(p.units for p in capacity.mix.parts) if capacity else 0,
                    ready_replicas=sum(1 for r in held if r.phase is ReplicaPhase.READY),
                    dollars_per_hour=dollars_per_hour(snapshot, held),
                    demand_requests_per_second=float(snapshot.signal_table.requests_per_second[row])
                    if row is not None
                    else None,
                    capacity_requests_per_second=capacity.mix.requests_per_second if capacity else None,
                    held_requests=int(snapshot.signal_table.held[row]) if row is not None else None,
                    gpus=gpus,
                ),
            )
        for gone in self._services - set(snapshot.services):
            self.metrics.forget_service(gone)
        self._services = set(snapshot.services)

    def _show_domains(self, snapshot: Snapshot, every_seconds: float) -> None:
        rows = snapshot.node_table.index()
        for name, domain in sorted(snapshot.domains.items()):
            drawn = [float(snapshot.node_table.watts[rows[m]]) for m in domain.members if m in rows]
            leased = [snapshot.leases[m].charged_watts for m in domain.members if m in snapshot.leases]
            known = [w for w in drawn if not math.isnan(w)]
            self.metrics.power(
                name,
                rating_watts=domain.rating_watts,
                limit_watts=domain.limit_watts,
                leased_watts=sum(leased),
                metered_watts=sum(known) if known else None,
            )
            self.metrics.over_rating(
                name, every_seconds if known and sum(known) > domain.rating_watts else 0.0
            )
        for gone in self._domains - set(snapshot.domains):
            self.metrics.forget_domain(gone)
        self._domains = set(snapshot.domains)
