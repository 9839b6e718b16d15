"""The operator's metrics behind typed methods: no other room touches the Prometheus client."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from controller.ledger.writer import LedgerState
from controller.metrics.declared import DECLARED
from controller.metrics.families import MAX_SERIES, Families


class ServiceGauges(msgspec.Struct, frozen=True, kw_only=True):
    """What is shown of one service. None leaves the last value standing."""

    desired_replicas: int | None = None
    ready_replicas: int | None = None
    dollars_per_hour: float | None = None
    demand_requests_per_second: float | None = None
    capacity_requests_per_second: float | None = None
    held_requests: int | None = None
    attainment_ratio: float | None = None
    gpus: dict[str, float] | None = None


class HubTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of the agent hub since it started; `answers` by code."""

    changes: dict[str, int] = {}
    reports: dict[str, int] = {}
    commands: dict[str, int] = {}
    answers: dict[str, int] = {}
    rejected_values: int = 0
    oversized: int = 0

    @classmethod
    def of(cls, flat: Mapping[str, int]) -> HubTotals:
        """From the hub's flat counts, as its statistics give them (`acks_<code>` for the answers)."""

        def some(**names: str) -> dict[str, int]:
            return {label: flat.get(name, 0) for label, name in names.items()}

        changes = ("opened", "replaced", "left", "lost", "refused_name", "refused_protocol")
        stages = ("queued", "sent", "dropped", "refused")
        return cls(
            changes=some(**{change: change for change in changes}),
            reports=some(taken="reports", heartbeat="heartbeats", repeated="repeated_reports"),
            commands=some(**{stage: f"commands_{stage}" for stage in stages}),
            answers={
                name.removeprefix("acks_"): count for name, count in flat.items() if name.startswith("acks_")
            },
            rejected_values=flat.get("rejected_values", 0),
            oversized=flat.get("oversized", 0),
        )


class Metrics:
    """Everything shown at `/metrics`, on a registry of its own. Thread-safe; no method raises for odd values."""

    def __init__(self, version: str = "", max_series: int = MAX_SERIES) -> None:
        # When a series began is of no use to us and would double the page. (A setting of the whole process.)
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True)
        self._families = Families(DECLARED, self.registry, max_series)
        ProcessCollector(registry=self.registry)
        self._families.set("build_info", version, platform.python_version(), value=1)
        self._shown_gpus: dict[str, set[str]] = {}

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its content type: OpenMetrics when `accept` asks for it, else the plain text format."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    # -- the process

    def leading(self, is_leader: bool, epoch: int) -> None:
        """Whether this process leads, and its epoch."""
        self._families.set("leader", value=float(is_leader))
        self._families.set("leader_epoch", value=epoch)

    def refused(self, call: str, count: int = 1) -> None:
        """Calls that were not sent, because this process led no more."""
        self._families.count("refused_calls_total", call, amount=count)

    # -- deciding

    def decided(
        self,
        loop: str,
        duration_seconds: float,
        *,
        decision: str = "",
        degraded: bool = False,
        late_seconds: float = 0.0,
    ) -> None:
        """A loop decided: how long it took, how late it began; `decision` (its id) becomes the exemplar."""
        exemplar = {"decision": decision} if 0 < len(decision) <= 100 else None
        self._families.observe("decide_duration_seconds", loop, value=duration_seconds, exemplar=exemplar)
        self._families.observe("loop_lateness_seconds", loop, value=max(0.0, late_seconds))
        self._families.count("decisions_total", loop, str(degraded).lower())

    def unexplained(self, loop: str, count: int = 1) -> None:
        """Actions without a whole reason."""
        self._families.count("unexplained_decisions_total", loop, amount=count)

    def reason(self, code: str, verdict: str, count: int = 1) -> None:
        """A reason was given, `count` times."""
        self._families.count("reasons_total", code, verdict, amount=count)

    def solved(self, stage: str, *, units: int = 0, solves: int = 0, cache_hits: int = 0) -> None:
        """Work of a stage's solver."""
        self._families.count("solver_units_total", stage, amount=units)
        self._families.count("solver_solves_total", stage, amount=solves)
        self._families.count("solver_cache_hits_total", stage, amount=cache_hits)

    def transition_refused(self, cycle: str, source: str, target: str) -> None:
        """A phase changed in a way that no life cycle allows."""
        self._families.count("refused_transitions_total", cycle, source, target)

    # -- acting

    def action(self, kind: str, outcome: str, *, code: str = "", count: int = 1) -> None:
        """Actions of a kind with an outcome; `code` says why they were dropped."""
        self._families.count("actions_total", kind, outcome, amount=count)
        if outcome == "dropped":
            self._families.count("actions_dropped_total", kind, code or "unknown", amount=count)

    def action_ended(self, kind: str, outcome: str, duration_seconds: float) -> None:
        """An action ended that long after it was issued."""
        self._families.observe("action_duration_seconds", kind, outcome, value=duration_seconds)

    # -- the object store

    def store_request(self, verb: str, kind: str, code: int, duration_seconds: float) -> None:
        """A request to the object store was answered with an HTTP status (0: no answer)."""
        self._families.count("store_requests_total", verb, kind, str(code))
        self._families.observe("store_request_duration_seconds", verb, value=duration_seconds)

    def cache(self, kind: str, objects: int, age_seconds: float) -> None:
        """How many objects of a kind are known, and how old the newest knowledge is."""
        self._families.set("cache_objects", kind, value=objects)
        self._families.set("cache_age_seconds", kind, value=age_seconds)

    def relisted(self, kind: str, cause: str) -> None:
        """A kind was listed again."""
        self._families.count("relists_total", kind, cause)

    def watched(self, kind: str, event: str, count: int = 1) -> None:
        """Events of a watch: ADDED, MODIFIED, DELETED, BOOKMARK, ERROR."""
        self._families.count("watch_events_total", kind, event, amount=count)

    # -- agents

    def hub(self, sessions: int, totals: HubTotals) -> None:
        """Open streams, and the hub's counts so far."""
        families = self._families
        families.set("hub_sessions", value=sessions)
        families.advance("hub_rejected_values_total", total=totals.rejected_values)
        families.advance("hub_oversized_messages_total", total=totals.oversized)
        _advance_all(families, "hub_session_changes_total", totals.changes)
        _advance_all(families, "hub_reports_total", totals.reports)
        _advance_all(families, "hub_commands_total", totals.commands)
        _advance_all(families, "hub_command_answers_total", totals.answers)

    def enrolled(self, outcome: str, duration_seconds: float) -> None:
        """An agent that asked for a certificate was answered: `signed`, or the reason of the refusal."""
        self._families.count("enrolments_total", outcome)
        self._families.observe("enrolment_duration_seconds", value=duration_seconds)

    def command_answered(self, kind: str, duration_seconds: float) -> None:
        """An agent answered a command that long after it was sent."""
        self._families.observe("hub_command_duration_seconds", kind, value=duration_seconds)

    # -- power

    def power(
        self,
        domain: str,
        *,
        rating_watts: float,
        limit_watts: float,
        leased_watts: float,
        metered_watts: float | None,
    ) -> None:
        """A power domain: rating, what may be leased, what is, and what is drawn where that is known."""
        self._families.set("power_rating_watts", domain, value=rating_watts)
        self._families.set("power_limit_watts", domain, value=limit_watts)
        self._families.set("power_leased_watts", domain, value=leased_watts)
        if metered_watts is not None:
            self._families.set("power_metered_watts", domain, value=metered_watts)

    def over_rating(self, domain: str, seconds: float) -> None:
        """The reported draw was above the rating for that long (0 shows the domain at all)."""
        self._families.count("power_over_rating_seconds_total", domain, amount=seconds)

    # -- services and jobs

    def service(self, service: str, gauges: ServiceGauges) -> None:
        """What is known of a service (`namespace/name`)."""
        for name, value in (
            ("service_desired_replicas", gauges.desired_replicas),
            ("service_ready_replicas", gauges.ready_replicas),
            ("service_cost_dollars_per_hour", gauges.dollars_per_hour),
            ("service_demand_requests_per_second", gauges.demand_requests_per_second),
            ("service_capacity_requests_per_second", gauges.capacity_requests_per_second),
            ("service_held_requests", gauges.held_requests),
            ("service_attainment_ratio", gauges.attainment_ratio),
        ):
            if value is not None:
                self._families.set(name, service, value=value)
        if gauges.gpus is not None:
            shown = self._shown_gpus.setdefault(service, set())
            # A product that is no longer held is 0, not what it was.
            for accelerator in sorted(shown | set(gauges.gpus)):
                self._families.set(
                    "service_gpus", service, accelerator, value=gauges.gpus.get(accelerator, 0)
                )
            shown.update(gauges.gpus)

    def forget_service(self, service: str) -> None:
        """A service was deleted: its series go."""
        self._shown_gpus.pop(service, None)
        self._families.forget("service", service)

    def jobs(self, by_phase: Mapping[str, int]) -> None:
        """Training jobs by phase; phases not named stay as they are, so name all."""
        for phase, count in by_phase.items():
            self._families.set("training_jobs", phase, value=count)

    def gang_restarted(self, job: str, cause: str) -> None:
        """A gang of a job (`namespace/name`) begins another attempt."""
        self._families.count("gang_restarts_total", job, cause)

    def gang_started(self, queue: str, waited_seconds: float) -> None:
        """A gang runs, that long after its job was submitted."""
        self._families.observe("gang_wait_duration_seconds", queue, value=waited_seconds)

    def forget_job(self, job: str) -> None:
        """A training job was deleted: its series go."""
        self._families.forget("training_job", job)

    def forget_domain(self, domain: str) -> None:
        """A power domain was deleted: its series go."""
        self._families.forget("domain", domain)

    # -- the ledger

    def ledger(self, state: LedgerState) -> None:
        """How the ledger is."""
        families = self._families
        families.set("ledger_up", value=0.0 if state.problem else 1.0)
        families.set("ledger_queue_rows", value=state.queued_rows)
        families.set("ledger_queue_capacity_rows", value=state.capacity_rows)
        families.set("ledger_queue_bytes", value=state.queued_bytes)
        families.set("ledger_size_bytes", value=state.disk_bytes or 0)
        families.advance("ledger_written_rows_total", total=state.written_rows)
        families.advance("ledger_removed_rows_total", total=state.removed_rows)
        _advance_all(families, "ledger_lost_rows_total", state.lost_rows)
        _advance_all(families, "ledger_failures_total", state.failures)


def _advance_all(families: Families, name: str, totals: Mapping[str, int]) -> None:
    for label, total in totals.items():
        families.advance(name, label, total=total)
