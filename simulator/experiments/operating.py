"""One run of a cluster under the planner: its traffic, and the figures, series and decisions that came of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from simulator.experiments.operated import OperatedScenario, Prepared, operated_of, prepared
from simulator.experiments.outcomes import Figures
from simulator.experiments.series import BINS, series_of
from simulator.experiments.traffic import Traffic, requests_of
from simulator.traces.arrivals import within
from simulator.traces.requests import Tally, TraceRequest
from simulator.traces.steps import as_measured
from simulator.world import mounting
from simulator.world.operated.world import OperatedWorld
from simulator.world.world import Outcome

LOGGED = 2_000
"""Rows of the decision log that are kept with a run's figures."""


def verify_operated(given: Mapping[str, Any], seed: int) -> None:
    """Raise ScenarioError, with the path of the field, for what a run could not begin with."""
    scenario = operated_of(given)
    OperatedWorld(prepared(scenario, seed).spec, {})


def simulate_operated(given: Mapping[str, Any], seed: int) -> Figures:
    """Run a scenario with a seed. Raises ScenarioError as `verify_operated`, TraceError for traffic that cannot be used."""
    scenario = operated_of(given)
    found = prepared(scenario, seed)
    tally = Tally()
    world = OperatedWorld(found.spec, streams(scenario, found, seed, tally))
    outcome = world.run()
    figures = _figures(world, outcome) | {"malformed_lines": float(tally.malformed)}
    notes = tuple(tally.told())
    series = series_of(world, outcome) | _timeline(world) | mounting.series(world, BINS)
    return Figures(figures, series, notes, tuple(world.log.rows[:LOGGED]))


def promise_of_services(given: Mapping[str, Any]) -> dict[str, float]:
    """Seconds that requests of the first service are to keep, by series. Raises ScenarioError as `verify_operated`."""
    services = prepared(operated_of(given), 1).spec.services
    if not services:
        return {"ttft_seconds": 1.0, "tpot_seconds": 0.1}
    first = services[0].objectives[0]
    return {"ttft_seconds": first.ttft_seconds, "tpot_seconds": first.tpot_seconds}


def streams(
    scenario: OperatedScenario, found: Prepared, seed: int, tally: Tally
) -> dict[str, Iterable[TraceRequest]]:
    """Requests by service; those of a captured cluster that are not mentioned go on as they were measured."""
    wanted = {each.name: each.traffic for each in scenario.services}
    made: dict[str, Iterable[TraceRequest]] = {}
    for service in found.spec.services:
        traffic = wanted.get(service.name, "measured" if found.captured is not None else "none")
        if isinstance(traffic, Traffic):
            made[service.name] = within(requests_of(traffic, seed, tally), scenario.seconds)
        elif traffic == "measured" and found.captured is not None:
            made[service.name] = _measured(found, service.name, scenario.seconds, seed)
    return made


def _measured(found: Prepared, service: str, seconds: float, seed: int) -> Iterable[TraceRequest]:
    loads = found.captured.snapshot.loads_of(service) if found.captured is not None else []
    for load in loads[:1]:
        yield from as_measured(load.input_edges, load.output_edges, load.cells, seconds, seed, service)


def _figures(world: OperatedWorld, outcome: Outcome) -> dict[str, float]:
    book = world.book
    hours = world.spec.seconds / 3_600.0
    whose, kept_in_all = book.services, 0
    found: dict[str, float] = {}
    for noun, service in zip(world.spec.services, world.services, strict=True):
        mine = whose == service.number
        promise = noun.objectives[0]
        kept = (book.ttft_seconds[mine] <= promise.ttft_seconds) & (
            book.tpot_seconds[mine] <= promise.tpot_seconds
        )
        kept_in_all += int(kept.sum())
        found[f"attainment {service.name}"] = int(kept.sum()) / max(service.arrived, 1)
        found[f"ready {service.name}"] = float(np.mean([m.ready[service.name] for m in world.moments] or [0]))
    found |= {
        "attainment": kept_in_all / max(outcome.arrived, 1),
        "ttft_mean_seconds": float(book.ttft_seconds.mean()) if book.completed else math.nan,
        "requests_per_second": outcome.completed / world.spec.seconds,
        "unfinished": outcome.arrived - outcome.completed - outcome.refused,
        "dollars": world.dollars,
        "dollars_per_hour": world.dollars / hours,
        "gpu_hours": sum(world.gpu_seconds.values()) / 3_600.0,
        "planner_runs": world.runs,
        "decisions_omitted": world.log.omitted + max(0, len(world.log.rows) - LOGGED),
    }
    for name, job in sorted(world.jobs_known.items()):
        found |= {
            f"steps {name}": float(world.steps_of(name)),
            f"attempts {name}": float(job.attempt),
            f"failures {name}": float(job.failures),
        }
    done = Counter(row.kind for row in world.log.rows if row.kind and row.outcome == "done")
    found |= {f"actions {kind}": float(count) for kind, count in sorted(done.items())}
    found |= {name: float(getattr(outcome, name)) for name in Outcome.__struct_fields__}
    found |= mounting.figures(world)
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _timeline(world: OperatedWorld) -> dict[str, tuple[float, ...]]:
    """Ready replicas and held requests by service, GPUs held and dollars an hour, over the run."""
    moments = world.moments
    if not moments:
        return {}
    pick = np.unique(np.linspace(0, len(moments) - 1, min(4 * BINS, len(moments))).astype(int)).tolist()
    shown = [moments[at] for at in pick]
    found = {
        "timeline_seconds": tuple(m.seconds for m in shown),
        "timeline_gpus": tuple(float(m.gpus) for m in shown),
        "timeline_dollars_per_hour": tuple(m.dollars_per_hour for m in shown),
    }
    for service in world.services:
        found[f"ready {service.name}"] = tuple(float(m.ready[service.name]) for m in shown)
        found[f"held {service.name}"] = tuple(float(m.held[service.name]) for m in shown)
    return found
