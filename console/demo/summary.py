"""`OUT/summary.json`: the run in numbers, for programs."""

from __future__ import annotations

import math
from typing import Any

from console.demo.run_data import DemoRun, ServiceFacts
from console.demo.runner import Demo


def summarise(demo: Demo) -> dict[str, Any]:
    """All keys of the summary. Token and request counts are per data line; copies are counted apart."""
    run, totals = demo.run_data, demo.books.totals()
    operator = demo.cluster.operator
    best = next((s.dollars_per_hour for s in run.single_types if s.dollars_per_hour is not None), None)
    return {
        "input_sha256": run.input_sha256,
        "seed": run.seed,
        "requests": len(demo.books.trace.requests),
        "served": totals.served,
        "rejected": totals.rejected,
        "lost": totals.lost,
        "malformed_lines": totals.malformed,
        "output_tokens": totals.output_tokens,
        "inflight_at_failure": demo.inflight_at_failure,
        "retried": totals.retried,
        "services": {name: _service(facts) for name, facts in sorted(run.services.items())},
        "jobs": {
            name: {"phase": job.phase, "restarts": job.restarts} for name, job in sorted(run.jobs.items())
        },
        "cost_per_hour": round(demo.dollars_per_hour, 4),
        "best_single_type_cost_per_hour": best,
        "over_power_seconds": demo.over_seconds,
        "uncapped_over_power_seconds": demo.uncapped_over_seconds,
        "peak_serving_use": round(demo.peak_use, 4),
        "node_failures": demo.failures,
        "decisions": operator.narrator.decisions,
        "unexplained_decisions": operator.narrator.unexplained,
        "wall_s": round(demo.wall_seconds, 1),
        "data_lines": totals.data_lines,
        "replication": run.replication,
        "requests_sent": len(demo.books.trace.requests) * run.replication,
        "tokens_emitted": demo.books.tokens_emitted,
        "rejected_by_code": totals.rejected_by_code,
        "out_of_order_lines": run.out_of_order,
        "simulated_s": demo.cluster.conductor.seconds,
        "faults": demo.books.faults[:20],
        "single_type_cost_per_hour": {s.accelerator: s.dollars_per_hour for s in run.single_types},
        "wall_by_part_s": {name: round(s, 1) for name, s in sorted(demo.cluster.conductor.spent.items())},
    }


def _service(facts: ServiceFacts) -> dict[str, Any]:
    answered = sorted(t for t in facts.ttft_seconds if not math.isnan(t))
    p99 = answered[min(len(answered) - 1, math.ceil(0.99 * len(answered)) - 1)] if answered else None
    return {
        "ready": facts.ready,
        "slo_attainment": round(facts.attained / facts.total, 6) if facts.total else 1.0,
        "ttft_p99": round(p99, 4) if p99 is not None else None,
        "gpus": dict(sorted(facts.gpus.items())),
        "requests": facts.total,
    }


def verdicts(run: DemoRun, summary: dict[str, Any]) -> list[tuple[str, bool]]:
    """The demo's promises, each with whether it was kept."""
    best = summary["best_single_type_cost_per_hour"]
    accounted = summary["malformed_lines"] + summary["served"] + summary["rejected"] + summary["lost"]
    return [
        ("every data line ended once", accounted == run.data_lines and not summary["faults"]),
        ("nothing was rejected or lost", not summary["rejected"] and not summary["lost"]),
        (
            "every service kept its objective",
            all(s["slo_attainment"] >= 0.95 for s in summary["services"].values()),
        ),
        ("cheaper than the best single GPU type", best is not None and summary["cost_per_hour"] <= best),
        ("every job succeeded", all(j["phase"] == "Succeeded" for j in summary["jobs"].values())),
        ("the breaker was never overloaded", summary["over_power_seconds"] == 0),
        ("every decision is explained", summary["unexplained_decisions"] == 0),
    ]
