"""Every metric, declared once: name, kind, labels, buckets and what it means.

One prefix, base units (seconds, bytes, watts, ratio), unit last, `_total` on counters. Labels are closed or small
sets: loops, kinds, codes, services, domains; never ids, pods or nodes, and never `job` or `instance`, which
Prometheus adds itself.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

PREFIX = "plimsoll_"


class Kind(StrEnum):
    """Kinds of metric, by their Prometheus names."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Declared(msgspec.Struct, frozen=True):
    """One metric. `name` is the exposed name without the prefix; `buckets` are upper bounds of a histogram."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """The name as Prometheus sees it."""
        return PREFIX + self.name


# From a dispatch-like tick to the planner's limit.
_DECIDE = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
_REQUEST = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ACTION = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_WAIT = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 4 * 3600.0, 24 * 3600.0)


def _counter(name: str, meaning: str, *labels: str) -> Declared:
    return Declared(name, Kind.COUNTER, meaning, labels)


def _gauge(name: str, meaning: str, *labels: str) -> Declared:
    return Declared(name, Kind.GAUGE, meaning, labels)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Declared:
    return Declared(name, Kind.HISTOGRAM, meaning, labels, buckets)


DECLARED: tuple[Declared, ...] = (
    # -- the process
    _gauge("build_info", "Always 1; the version that runs, as labels.", "version", "python"),
    _gauge("leader", "1 while this process leads, else 0."),
    _gauge(
        "leader_epoch", "Epoch this process leads or last led in; agents refuse commands of an older one."
    ),
    _counter(
        "refused_calls_total",
        "Calls not sent because this process led no more: `create`, `patch` … to the API server, `command` to an "
        "agent, `routes`, `mark`.",
        "call",
    ),
    # -- deciding
    _histogram(
        "decide_duration_seconds",
        "Time one call of a loop's policies took. The exemplar names the decision.",
        _DECIDE,
        "loop",
    ),
    _histogram("loop_lateness_seconds", "How long after it was due a loop began.", _DECIDE, "loop"),
    _counter(
        "decisions_total",
        "Plans made; `degraded` is `true` where something was missing or cut.",
        "loop",
        "degraded",
    ),
    _counter(
        "unexplained_decisions_total",
        "Actions whose reason is missing or lacks a number. Anything but 0 is a defect.",
        "loop",
    ),
    _counter("reasons_total", "Reasons given, by code and by what became of the subject.", "code", "verdict"),
    _counter("solver_units_total", "Units of work that solvers spent, by stage.", "stage"),
    _counter("solver_solves_total", "Programmes solved, by stage.", "stage"),
    _counter(
        "solver_cache_hits_total", "Results taken from the scratch memo instead of solved, by stage.", "stage"
    ),
    _counter(
        "refused_transitions_total",
        "Observed changes of phase that no life cycle allows.",
        "cycle",
        "source",
        "target",
    ),
    # -- acting
    _counter(
        "actions_total",
        "Actions by kind and outcome: `done`, `sent`, `failed`, `expired`, `dropped`.",
        "kind",
        "outcome",
    ),
    _counter(
        "actions_dropped_total", "Actions dropped when they were checked again, by code.", "kind", "code"
    ),
    _histogram("action_duration_seconds", "From issuing an action to its end.", _ACTION, "kind", "outcome"),
    # -- the API server and what is known of it
    _counter(
        "store_requests_total",
        "Requests to the object store; `code` is the HTTP status.",
        "verb",
        "kind",
        "code",
    ),
    _histogram("store_request_duration_seconds", "Time until the object store answered.", _REQUEST, "verb"),
    _gauge("cache_objects", "Objects in the cache.", "kind"),
    _gauge("cache_age_seconds", "Age of the newest thing known of a kind: event, bookmark or list.", "kind"),
    _counter(
        "relists_total", "Lists after the first, by cause: `expired`, `error`, `resync`.", "kind", "cause"
    ),
    _counter("watch_events_total", "Events taken from watches.", "kind", "type"),
    # -- agents
    _counter(
        "enrolments_total",
        "Answers to agents that ask for a certificate: `signed`, or the reason of the refusal.",
        "outcome",
    ),
    _histogram(
        "enrolment_duration_seconds",
        "From an agent's request for a certificate to the answer, the API server's review included.",
        _REQUEST,
    ),
    _gauge("hub_sessions", "Agents with an open stream."),
    _counter(
        "hub_session_changes_total",
        "Streams by what became of them: `opened`, `replaced`, `left`, `lost`, `refused_name`, `refused_protocol`.",
        "change",
    ),
    _counter(
        "hub_reports_total",
        "Reports, by kind: `taken`, `heartbeat` (nothing moved), `repeated` (refused).",
        "kind",
    ),
    _counter("hub_rejected_values_total", "Values in reports that cannot be, such as negative watts."),
    _counter("hub_oversized_messages_total", "Messages refused for their size."),
    _counter("hub_commands_total", "Commands by stage: `queued`, `sent`, `dropped`, `refused`.", "stage"),
    _counter("hub_command_answers_total", "Agents' answers to commands, by code.", "code"),
    _histogram(
        "hub_command_duration_seconds", "From sending a command to the agent's answer.", _REQUEST, "kind"
    ),
    # -- power
    _gauge("power_rating_watts", "What the domain's breaker is rated for.", "domain"),
    _gauge("power_limit_watts", "What may be leased: rating after feeds and margin.", "domain"),
    _gauge(
        "power_leased_watts",
        "What is charged to the domain: leases, unacknowledged ones at the larger value.",
        "domain",
    ),
    _gauge("power_metered_watts", "What the domain draws, as reported.", "domain"),
    _counter("power_over_rating_seconds_total", "Time the reported draw was above the rating.", "domain"),
    # -- services
    _gauge("service_desired_replicas", "Replicas the last plan wants.", "service"),
    _gauge("service_ready_replicas", "Replicas that can take requests.", "service"),
    _gauge("service_gpus", "GPUs a service holds, by product.", "service", "accelerator"),
    _gauge("service_cost_dollars_per_hour", "Price of the GPUs a service holds.", "service"),
    _gauge("service_demand_requests_per_second", "Load the last plan was made for.", "service"),
    _gauge(
        "service_capacity_requests_per_second",
        "Load the ready replicas carry within the objective.",
        "service",
    ),
    _gauge("service_held_requests", "Requests waiting at the gateway for a replica.", "service"),
    _gauge(
        "service_attainment_ratio",
        "Share of the last window's requests within the objective, 0 to 1.",
        "service",
    ),
    # -- training
    _gauge("training_jobs", "Training jobs by phase.", "phase"),
    _counter("gang_restarts_total", "Attempts of a gang after its first, by cause.", "training_job", "cause"),
    _histogram("gang_wait_duration_seconds", "From submission until a gang runs.", _WAIT, "queue"),
    # -- the ledger
    _gauge("ledger_up", "1 while the ledger can be written, 0 while rows wait in memory."),
    _gauge("ledger_queue_rows", "Rows waiting to be written."),
    _gauge("ledger_queue_capacity_rows", "Rows that may wait before the oldest are given up."),
    _gauge("ledger_queue_bytes", "Bytes waiting to be written."),
    _gauge("ledger_size_bytes", "Size of the ledger's file, 0 when it is on a server."),
    _counter("ledger_written_rows_total", "Rows written."),
    _counter("ledger_removed_rows_total", "Rows removed by retention."),
    _counter(
        "ledger_lost_rows_total",
        "Rows given up: `overflow`, `too_large`, `refused`, `closed`.",
        "cause",
    ),
    _counter(
        "ledger_failures_total",
        "Failed attempts to write: `locked`, `full`, `gone`, `readonly`, `corrupt`, `schema`, `denied`, `crowded`, `unreachable`, `unusable`.",
        "cause",
    ),
    # -- this page itself
    _counter(
        "folded_series_total",
        "Samples put under the label value `other` because a metric had too many series.",
        "metric",
    ),
)
