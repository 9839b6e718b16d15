"""What a run found, in numbers: the figures that the report's headline, its titles and the terminal table share.

Where the summary holds a figure it wins, so that report and `summary.json` never differ; the rest is worked out
from the samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from console.demo.run_data import DemoRun, JobFacts, ServiceFacts, SingleType
from console.demo.words import clean

Column = NDArray[np.float64]
WARNINGS = frozenset({"blocked", "shed", "isolated", "rejected"})
SUCCEEDED = frozenset({"succeeded", "done", "completed"})


@dataclass(frozen=True, slots=True)
class Columns:
    """Samples as columns, all of one length; a service or type missing in a sample counts 0 there.

    `step` is how long each sample stands for, in seconds.
    """

    seconds: Column
    step: Column
    dollars: Column
    power: Column
    uncapped: Column
    granted: Column
    rating: Column
    load: dict[str, Column]
    held: dict[str, Column]
    replicas: dict[str, dict[str, Column]]

    @property
    def empty(self) -> bool:
        """Whether there is no sample at all."""
        return self.seconds.size == 0


@dataclass(frozen=True, slots=True)
class ServiceFinding:
    """How a service did. Shares and seconds are NaN where no request came."""

    name: str
    facts: ServiceFacts
    requests: int
    attainment: float
    ttft_share: float
    tpot_share: float
    ttft_seconds: float
    tpot_seconds: float
    never_answered: int

    @property
    def kept(self) -> bool:
        """Whether the promised share of requests was inside the objective (true where none came)."""
        return self.requests == 0 or self.attainment >= self.facts.percentile


@dataclass(frozen=True, slots=True)
class Findings:
    """The run's figures. Money in dollars per hour, power in watts, time in simulated seconds.

    `total_seconds` ends with the last sample, which may be long after the `last_arrival`.
    """

    total_seconds: float
    last_arrival: float
    lines: int
    served: int
    rejected: int
    lost: int
    malformed: int
    output_tokens: int
    cost: float
    best: SingleType | None
    services: list[ServiceFinding]
    peak_gpus: dict[str, int]
    peak_use: float
    rating: float
    peak_power: float
    peak_uncapped: float
    over_seconds: float
    uncapped_over_seconds: float
    inflight_at_failure: int
    retried: int
    succeeded: list[JobFacts]
    restarts: int
    decisions: int
    unexplained: int
    wall_seconds: float
    warnings: int = field(default=0)

    @property
    def saved(self) -> float:
        """Share saved against the best single type that keeps the objectives; NaN where none does."""
        rival = self.best.dollars_per_hour if self.best else None
        return 1.0 - self.cost / rival if rival else math.nan

    @property
    def accounted(self) -> bool:
        """Whether malformed, served, rejected and lost add up to the data lines."""
        return self.lines == self.malformed + self.served + self.rejected + self.lost


def columns_of(run: DemoRun) -> Columns:
    """The run's samples, in order of time, as columns."""
    samples = sorted(run.samples, key=lambda s: s.seconds)
    seconds = np.array([s.seconds for s in samples], dtype=np.float64)
    gaps = np.diff(seconds)
    step = np.append(gaps, np.median(gaps)) if gaps.size else np.ones_like(seconds)
    kinds = {
        name: sorted({kind for s in samples for kind in s.replicas.get(name, {})})
        for name in sorted(run.services)
    }

    def column(values: list[float]) -> Column:
        return np.array(values, dtype=np.float64)

    return Columns(
        seconds=seconds,
        step=step,
        dollars=column([s.dollars_per_hour for s in samples]),
        power=column([s.power_watts for s in samples]),
        uncapped=column([s.uncapped_watts for s in samples]),
        granted=column([s.granted_watts for s in samples]),
        rating=column([s.rating_watts for s in samples]),
        load={
            name: column([s.load_per_second.get(name, 0.0) for s in samples]) for name in sorted(run.services)
        },
        held={name: column([s.held.get(name, 0) for s in samples]) for name in sorted(run.services)},
        replicas={
            name: {k: column([s.replicas.get(name, {}).get(k, 0) for s in samples]) for k in kinds[name]}
            for name in sorted(run.services)
        },
    )


def findings_of(run: DemoRun, columns: Columns) -> Findings:
    """Every figure of the run, from its summary where it is there and from its samples elsewhere."""
    services = [_service(run, name) for name in sorted(run.services)]
    succeeded = [job for job in run.jobs.values() if job.phase.lower() in SUCCEEDED]
    power = columns.power
    return Findings(
        total_seconds=max(float(columns.seconds[-1]), 0.0) if not columns.empty else 0.0,
        last_arrival=max((max(f.arrived_seconds, default=0.0) for f in run.services.values()), default=0.0),
        lines=run.data_lines,
        served=_whole(run, "served", sum(s.requests - s.never_answered for s in services)),
        rejected=_whole(run, "rejected", 0),
        lost=_whole(run, "lost", 0),
        malformed=_whole(run, "malformed_lines", run.malformed_lines),
        output_tokens=_whole(run, "output_tokens", 0),
        cost=_number(run, "cost_per_hour", _mean_cost(columns)),
        best=best_single(run),
        services=services,
        peak_gpus=_peak_gpus(run),
        peak_use=_number(run, "peak_serving_use", max((s.serving_use for s in run.samples), default=0.0)),
        rating=float(columns.rating.max(initial=0.0)),
        peak_power=float(power.max(initial=0.0)),
        peak_uncapped=float(columns.uncapped.max(initial=0.0)),
        over_seconds=_number(run, "over_power_seconds", _over(power, columns)),
        uncapped_over_seconds=_number(run, "uncapped_over_power_seconds", _over(columns.uncapped, columns)),
        inflight_at_failure=_whole(run, "inflight_at_failure", 0),
        retried=_whole(run, "retried", 0),
        succeeded=succeeded,
        restarts=sum(job.restarts for job in run.jobs.values()),
        decisions=_whole(run, "decisions", len(run.happenings)),
        unexplained=_whole(run, "unexplained_decisions", sum(1 for h in run.happenings if not h.sentence)),
        wall_seconds=_number(run, "wall_s", math.nan),
        warnings=sum(1 for h in run.happenings if h.verdict in WARNINGS),
    )


def best_single(run: DemoRun) -> SingleType | None:
    """The cheapest single GPU type that keeps every objective; None where none does."""
    able = [s for s in run.single_types if keeps(s)]
    told = run.summary.get("best_single_type_cost_per_hour")
    if not able and isinstance(told, int | float) and not run.single_types:
        return SingleType(accelerator="one type", dollars_per_hour=float(told))
    return min(able, key=lambda s: (s.dollars_per_hour or 0.0, s.accelerator), default=None)


def keeps(single: SingleType) -> bool:
    """Whether this type alone keeps every objective."""
    return single.dollars_per_hour is not None and not single.why_not


def why_not(single: SingleType, longest: int) -> str:
    """Why this type alone cannot, to stand after the word `cannot`."""
    why = clean(single.why_not, longest).rstrip(".")
    if why.startswith("cannot "):
        return why.removeprefix("cannot")
    return f": {why}" if why else ", no reason given"


def latency_shares(facts: ServiceFacts) -> tuple[float, float]:
    """Shares of requests inside the TTFT and the TPOT objective; NaN without requests.

    A request that never answered, or never ended, is outside both. One that answered with a single token has no TPOT and is inside.
    """
    ttft = np.asarray(facts.ttft_seconds, dtype=np.float64)
    tpot = tpot_column(facts)
    every = max(int(ttft.size), facts.total)
    if not every:
        return math.nan, math.nan
    return (
        float(np.count_nonzero(ttft <= facts.ttft_objective_seconds)) / every,
        float(np.count_nonzero(tpot <= facts.tpot_objective_seconds)) / every,
    )


def tpot_column(facts: ServiceFacts) -> Column:
    """Seconds per token after the first, per request: NaN only where it never answered, 0 for a single token."""
    ttft = np.asarray(facts.ttft_seconds, dtype=np.float64)
    tpot = np.asarray(facts.tpot_seconds, dtype=np.float64)
    if tpot.size != ttft.size:
        return tpot
    single: Column = np.where(np.isfinite(ttft) & ~np.isfinite(tpot), 0.0, tpot)
    return single


def _service(run: DemoRun, name: str) -> ServiceFinding:
    facts = run.services[name]
    ttft = np.asarray(facts.ttft_seconds, dtype=np.float64)
    requests = facts.total or int(ttft.size)
    told = _service_summary(run, name).get("slo_attainment")
    attainment = float(told) if isinstance(told, int | float) else _ratio(facts.attained, facts.total)
    ttft_share, tpot_share = latency_shares(facts)
    return ServiceFinding(
        name=name,
        facts=facts,
        requests=requests,
        attainment=attainment if requests else math.nan,
        ttft_share=ttft_share,
        tpot_share=tpot_share,
        ttft_seconds=quantile(ttft, facts.percentile),
        tpot_seconds=quantile(tpot_column(facts), facts.percentile),
        never_answered=max(requests, int(ttft.size)) - int(np.count_nonzero(np.isfinite(ttft))),
    )


def quantile(values: Column, level: float) -> float:
    """The quantile over the finite values; NaN without any."""
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, level)) if finite.size else math.nan


def _service_summary(run: DemoRun, name: str) -> dict[str, object]:
    table = run.summary.get("services")
    row = cast("dict[str, object]", table).get(name) if isinstance(table, dict) else None
    return cast("dict[str, object]", row) if isinstance(row, dict) else {}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean_cost(columns: Columns) -> float:
    live = columns.seconds >= 0.0
    if not live.any():
        return 0.0
    return float(np.average(columns.dollars[live], weights=columns.step[live]))


def _over(watts: Column, columns: Columns) -> float:
    return float(columns.step[(watts > columns.rating) & (columns.rating > 0.0)].sum())


def _peak_gpus(run: DemoRun) -> dict[str, int]:
    kinds = sorted({kind for s in run.samples for kind in s.gpus})
    return {kind: max(s.gpus.get(kind, 0) for s in run.samples) for kind in kinds}


def _number(run: DemoRun, key: str, otherwise: float) -> float:
    value = run.summary.get(key)
    return float(value) if isinstance(value, int | float) else otherwise


def _whole(run: DemoRun, key: str, otherwise: int) -> int:
    return int(_number(run, key, float(otherwise)))
