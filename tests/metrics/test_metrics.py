"""The metrics page, read with Prometheus' own parser."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from controller.ledger import LedgerState
from controller.metrics import DECLARED, HubTotals, Kind, Metrics, ServiceGauges, reference_page

ROOT = Path(__file__).resolve().parents[2]


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample by name and label values, without the prefix."""
    page, content_type = metrics.page()
    assert content_type.startswith("text/plain")
    order = {each.name: each.labels for each in DECLARED}
    shown = {}
    for family in parse_text(page.decode()):
        for sample in family.samples:
            name = sample.name.removeprefix("plimsoll_")
            labels = [sample.labels[label] for label in order.get(name, sample.labels)]
            shown[name, *labels] = sample.value
    return shown


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3")


HUB = {
    "opened": 24,
    "lost": 1,
    "reports": 100,
    "heartbeats": 60,
    "commands_sent": 30,
    "commands_refused": 2,
    "acks_done": 28,
    "acks_old_epoch": 2,
    "rejected_values": 3,
    "oversized": 1,
}
LEDGER = LedgerState(
    queued_rows=5,
    queued_bytes=900,
    capacity_rows=100,
    written_rows=50,
    removed_rows=4,
    lost_rows={"overflow": 7},
    failures={"locked": 3},
    disk_bytes=4096,
    problem="database is locked",
)


def use_everything(metrics: Metrics) -> None:
    metrics.leading(True, 7)
    metrics.refused("create", 3)
    metrics.decided("planner", 0.2, decision="7/planner/3", degraded=True, late_seconds=0.01)
    metrics.unexplained("planner")
    metrics.reason("MixChosen", "chosen", 2)
    metrics.solved("select", units=40, solves=3, cache_hits=2)
    metrics.transition_refused("replica", "gone", "ready")
    metrics.action("GrantPower", "done", count=24)
    metrics.action("CreateReplica", "dropped", code="Stale")
    metrics.action_ended("CreateReplica", "done", 12.0)
    metrics.store_request("patch", "Pod", 409, 0.004)
    metrics.cache("Pod", 50, 0.4)
    metrics.relisted("Pod", "expired")
    metrics.watched("Pod", "MODIFIED", 5)
    metrics.hub(24, HubTotals.of(HUB))
    metrics.command_answered("GrantPower", 0.02)
    metrics.enrolled("signed", 0.03)
    metrics.enrolled("wrong_audience", 0.001)
    metrics.power(
        "row-1", rating_watts=50_000, limit_watts=48_000, leased_watts=40_000, metered_watts=39_000.5
    )
    metrics.over_rating("row-1", 2.0)
    metrics.service(
        "shop/chat",
        ServiceGauges(
            desired_replicas=8,
            ready_replicas=7,
            dollars_per_hour=22.2,
            demand_requests_per_second=41.2,
            capacity_requests_per_second=43.0,
            held_requests=0,
            attainment_ratio=0.97,
            gpus={"A100-80": 6, "L4": 2},
        ),
    )
    metrics.jobs({"active": 2})
    metrics.gang_restarted("train/big", "node_lost")
    metrics.gang_started("default", 42.0)
    metrics.ledger(LEDGER)


def test_every_method_shows_what_it_was_told(metrics: Metrics) -> None:
    use_everything(metrics)
    shown = samples(metrics)
    expected = {
        ("leader",): 1,
        ("leader_epoch",): 7,
        ("decide_duration_seconds_sum", "planner"): 0.2,
        ("decide_duration_seconds_count", "planner"): 1,
        ("decisions_total", "planner", "true"): 1,
        ("unexplained_decisions_total", "planner"): 1,
        ("reasons_total", "MixChosen", "chosen"): 2,
        ("solver_units_total", "select"): 40,
        ("solver_solves_total", "select"): 3,
        ("solver_cache_hits_total", "select"): 2,
        ("refused_calls_total", "create"): 3,
        ("refused_transitions_total", "replica", "gone", "ready"): 1,
        ("actions_total", "GrantPower", "done"): 24,
        ("actions_total", "CreateReplica", "dropped"): 1,
        ("actions_dropped_total", "CreateReplica", "Stale"): 1,
        ("store_requests_total", "patch", "Pod", "409"): 1,
        ("cache_objects", "Pod"): 50,
        ("cache_age_seconds", "Pod"): 0.4,
        ("relists_total", "Pod", "expired"): 1,
        ("watch_events_total", "Pod", "MODIFIED"): 5,
        ("hub_sessions",): 24,
        ("hub_session_changes_total", "lost"): 1,
        ("hub_reports_total", "taken"): 100,
        ("hub_commands_total", "refused"): 2,
        ("hub_command_answers_total", "old_epoch"): 2,
        ("hub_rejected_values_total",): 3,
        ("hub_oversized_messages_total",): 1,
        ("enrolments_total", "signed"): 1,
        ("enrolments_total", "wrong_audience"): 1,
        ("enrolment_duration_seconds_count",): 2,
        ("power_rating_watts", "row-1"): 50_000,
        ("power_leased_watts", "row-1"): 40_000,
        ("power_metered_watts", "row-1"): 39_000.5,
        ("power_over_rating_seconds_total", "row-1"): 2,
        ("service_desired_replicas", "shop/chat"): 8,
        ("service_ready_replicas", "shop/chat"): 7,
        ("service_cost_dollars_per_hour", "shop/chat"): 22.2,
        ("service_held_requests", "shop/chat"): 0,
        ("service_gpus", "shop/chat", "A100-80"): 6,
        ("training_jobs", "active"): 2,
        ("gang_restarts_total", "train/big", "node_lost"): 1,
        ("gang_wait_duration_seconds_sum", "default"): 42,
        ("ledger_up",): 0,
        ("ledger_queue_rows",): 5,
        ("ledger_size_bytes",): 4096,
        ("ledger_written_rows_total",): 50,
        ("ledger_lost_rows_total", "overflow"): 7,
        ("ledger_failures_total", "locked"): 3,
    }
    assert {key: shown.get(key) for key in expected} == expected
    assert [key[1] for key in shown if key[0] == "build_info"] == ["1.2.3"]


def test_no_metric_is_declared_that_nothing_sets(metrics: Metrics) -> None:
    use_everything(metrics)
    families = {family.name: family for family in parse_text(metrics.page()[0].decode())}
    silent = [
        each.name
        for each in DECLARED
        if each.name != "folded_series_total" and not families[each.exposed.removesuffix("_total")].samples
    ]
    assert silent == []


UNITS = (
    "seconds",
    "bytes",
    "watts",
    "rows",
    "ratio",
    "replicas",
    "gpus",
    "requests",
    "info",
    "epoch",
    "hour",
    "second",
)


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared.name)
def test_names_labels_and_texts_keep_the_conventions(declared) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z]", declared.name)
    assert declared.name.endswith("_total") == (declared.kind is Kind.COUNTER)
    if declared.kind is Kind.HISTOGRAM:
        assert declared.name.endswith("_seconds")
        assert list(declared.buckets) == sorted(set(declared.buckets))
        assert len(declared.buckets) <= 16
    if declared.kind is Kind.GAUGE:
        plain = {"leader", "cache_objects", "hub_sessions", "training_jobs", "ledger_up"}
        assert declared.name in plain or declared.name.endswith(UNITS)
    # Prometheus adds these itself, or they have no bound.
    assert not set(declared.labels) & {
        "job",
        "instance",
        "le",
        "quantile",
        "id",
        "uid",
        "pod",
        "node",
        "request",
    }
    assert declared.meaning.endswith(".")
    assert "|" not in declared.meaning


def test_names_are_unique() -> None:
    assert len({each.name for each in DECLARED}) == len(DECLARED)


def test_a_decision_s_id_is_the_exemplar_in_openmetrics(metrics: Metrics) -> None:
    metrics.decided("planner", 0.2, decision="7/planner/3")
    metrics.decided("power", 0.2, decision="x" * 500)
    page, content_type = metrics.page("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    found = [
        sample.exemplar.labels["decision"]
        for family in parse_openmetrics(page.decode())
        for sample in family.samples
        if sample.exemplar
    ]
    assert found == ["7/planner/3"], "an id too long for an exemplar is left out"


def test_totals_kept_elsewhere_only_ever_rise_even_when_their_keeper_starts_anew(metrics: Metrics) -> None:
    seen = []
    for total in (10, 25, 25, 3, 5):
        metrics.hub(1, HubTotals(answers={"done": total}))
        seen.append(samples(metrics)["hub_command_answers_total", "done"])
    assert seen == [10, 25, 25, 28, 30]


def test_series_of_an_object_that_is_gone_are_gone(metrics: Metrics) -> None:
    use_everything(metrics)
    metrics.service("shop/other", ServiceGauges(ready_replicas=1))
    metrics.forget_service("shop/chat")
    metrics.forget_domain("row-1")
    metrics.forget_job("train/big")
    left = {label for key in samples(metrics) for label in key[1:]}
    assert "shop/other" in left
    assert not left & {"shop/chat", "row-1", "train/big"}
    metrics.service("shop/chat", ServiceGauges(ready_replicas=2))
    assert samples(metrics)["service_ready_replicas", "shop/chat"] == 2


def test_a_product_no_longer_held_is_zero_and_what_is_not_told_stays(metrics: Metrics) -> None:
    metrics.service("shop/chat", ServiceGauges(ready_replicas=3, gpus={"L4": 2}))
    metrics.service("shop/chat", ServiceGauges(gpus={"H100": 1}))
    shown = samples(metrics)
    assert shown["service_gpus", "shop/chat", "L4"] == 0
    assert shown["service_gpus", "shop/chat", "H100"] == 1
    assert shown["service_ready_replicas", "shop/chat"] == 3


def test_a_metric_with_too_many_series_puts_the_rest_under_other_and_says_so() -> None:
    metrics = Metrics("1", max_series=100)
    for number in range(250):
        metrics.reason(f"Code{number}", "chosen")
    shown = samples(metrics)
    reasons = {key: value for key, value in shown.items() if key[0] == "reasons_total"}
    assert len(reasons) == 101
    assert sum(reasons.values()) == 250
    assert reasons["reasons_total", "other", "other"] == 150
    assert shown["folded_series_total", "plimsoll_reasons_total"] == 150


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a" * 1_000_000, id="a megabyte"),
        pytest.param('quote " backslash \\ newline \n', id="characters that need escapes"),
        pytest.param("lone \ud800 surrogate", id="no UTF-8"),
        pytest.param("", id="empty"),
    ],
)
def test_odd_label_values_leave_the_page_readable(metrics: Metrics, name: str) -> None:
    metrics.service(name, ServiceGauges(ready_replicas=1))
    page = metrics.page()[0]
    assert len(page) < 100_000
    assert [value for key, value in samples(metrics).items() if key[0] == "service_ready_replicas"] == [1]


def test_numbers_that_are_none_or_nonsense_do_not_stop_the_caller(metrics: Metrics) -> None:
    metrics.solved("select", units=-5)
    metrics.decided("planner", float("nan"))
    metrics.power("row-1", rating_watts=1, limit_watts=1, leased_watts=1, metered_watts=None)
    shown = samples(metrics)
    assert shown["solver_units_total", "select"] == 0
    assert ("power_metered_watts", "row-1") not in shown


def test_two_operators_in_one_process_do_not_share_numbers() -> None:
    one, other = Metrics("1"), Metrics("1")
    one.leading(True, 3)
    assert samples(other)["leader",] == 0


def test_threads_lose_no_count(metrics: Metrics) -> None:
    def work() -> None:
        for number in range(500):
            metrics.reason(f"Code{number % 7}", "chosen")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(value for key, value in samples(metrics).items() if key[0] == "reasons_total") == 2000


def test_the_reference_page_is_what_the_declarations_say() -> None:
    page = ROOT / "docs" / "reference" / "metrics.md"
    assert page.read_text() == reference_page(), (
        "run: python -m controller.metrics > docs/reference/metrics.md"
    )
    for declared in DECLARED:
        assert f"| `{declared.exposed}` | {declared.kind} |" in page.read_text()
