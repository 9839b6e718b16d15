"""One run of a scenario: the world it describes, and the figures and series of what came of it."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np

from simulator.experiments.mechanisms import RequestClass, classified
from simulator.experiments.operated import is_operated
from simulator.experiments.operating import promise_of_services, simulate_operated, verify_operated
from simulator.experiments.outcomes import Figures
from simulator.experiments.runs import Run
from simulator.experiments.scenario import Scenario, scenario_of, with_settings, world_of
from simulator.experiments.series import BINS, series_of
from simulator.experiments.traffic import requests_of
from simulator.physics.provenance import provenance
from simulator.traces.requests import Tally
from simulator.world import mounting
from simulator.world.world import Outcome, World

TARGET = f"{__name__}:simulate"
"""The name of `simulate` for whoever runs it elsewhere."""


def verify(given: dict[str, Any], run: Run) -> None:
    """Raise ScenarioError, with the path of the field, for what a run could not begin with."""
    put = with_settings(given, run.settings)
    if is_operated(put):
        verify_operated(put, run.seed)
        return
    World(world_of(scenario_of(put), run.seed), ())


def promise_of(given: dict[str, Any]) -> dict[str, float]:
    """Seconds that a request is to keep, by series: the scenario's, or of a cluster those of its first service that has some."""
    if not is_operated(given):
        promise = scenario_of(given).promise
        return {"ttft_seconds": promise.ttft_seconds, "tpot_seconds": promise.tpot_seconds}
    return promise_of_services(given)


def simulate(given: bytes, run: Run) -> Figures:
    """Run a scenario (JSON of its plain data) with settings and seed.

    Raises ScenarioError as `verify`, TraceError for traffic that cannot be used.
    """
    put = with_settings(msgspec.json.decode(given), run.settings)
    if is_operated(put):
        return simulate_operated(put, run.seed)
    scenario = scenario_of(put)
    tally = Tally()
    stream = classified(requests_of(scenario.traffic, run.seed, tally), scenario.classes, run.seed)
    world = World(world_of(scenario, run.seed), stream)
    outcome = world.run()
    series = series_of(world, outcome) | mounting.series(world, BINS)
    return Figures(_figures(scenario, world, outcome, tally), series, tuple(tally.told()))


def sources(given: dict[str, Any]) -> tuple[str, ...]:
    """Where the step times and the power of each group come from, with their errors. Raises ScenarioError as `verify`."""
    if is_operated(given):
        return ()
    spec = world_of(scenario_of(given), 1)
    told = [
        f"groups[{number}]: {' '.join(provenance(group.engine).sentences())}"
        for number, group in enumerate(spec.groups)
    ]
    return tuple(told)


def _figures(scenario: Scenario, world: World, outcome: Outcome, tally: Tally) -> dict[str, float]:
    book, promise = world.book, scenario.promise
    kept = (book.ttft_seconds <= promise.ttft_seconds) & (book.tpot_seconds <= promise.tpot_seconds)
    hours = outcome.seconds / 3_600.0
    price = sum(group.count * group.gpus * group.dollars_per_gpu_hour for group in scenario.groups)
    found: dict[str, float] = {
        "attainment": float(kept.sum()) / max(outcome.arrived, 1),
        "ttft_mean_seconds": _mean(book.ttft_seconds),
        "requests_per_second": outcome.completed / outcome.seconds if outcome.seconds else 0.0,
        "unfinished": outcome.arrived - outcome.completed - outcome.refused,
        "malformed_lines": tally.malformed,
        "dollars_per_hour": price,
        "dollars": price * hours,
    }
    found |= {name: float(getattr(outcome, name)) for name in Outcome.__struct_fields__}
    found |= mounting.figures(world) | _by_class(scenario, world)
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def _by_class(scenario: Scenario, world: World) -> dict[str, float]:
    """Arrivals, attainment and latency of each class, or of each priority where a trace has several and no classes."""
    book, promise = world.book, scenario.promise
    priorities = book.priorities
    classes = scenario.classes
    if not classes:
        levels = np.unique(priorities).tolist()
        if len(levels) < 2:
            return {}
        classes = tuple(RequestClass(name=f"priority {n}", share=0.0, priority=n) for n in levels)
    found: dict[str, float] = {}
    for each in classes:
        mine = priorities == each.priority
        ttft, tpot = book.ttft_seconds[mine], book.tpot_seconds[mine]
        kept = (ttft <= (each.ttft_seconds or promise.ttft_seconds)) & (
            tpot <= (each.tpot_seconds or promise.tpot_seconds)
        )
        arrived = book.arrived_of(each.priority)
        found |= {
            f"arrived of {each.name}": arrived,
            f"attainment of {each.name}": float(kept.sum()) / max(arrived, 1),
            f"ttft_p99_seconds of {each.name}": _p99(ttft),
            f"tpot_p99_seconds of {each.name}": _p99(tpot),
        }
    return found


def _p99(values: Any) -> float:
    return float(np.percentile(values, 99)) if len(values) else math.nan


def _mean(values: Any) -> float:
    return float(values.mean()) if len(values) else math.nan
