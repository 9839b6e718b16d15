"""One run inside a worker: finds the function by its name, and turns whatever happens into an outcome."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

from simulator.experiments.outcomes import Figures, Outcome
from simulator.experiments.runs import Run

Work = Callable[[bytes, Run], Figures]
"""Runs a scenario (its bytes) under a run's settings and seed."""


def work_of(target: str) -> Work:
    """The function named `package.module:function`. Raises ValueError when there is none."""
    module, _, name = target.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{target!r} names no function: {error}") from error
    work: Work = found
    return work


def carry_out(target: str, scenario: bytes, run: Run) -> Outcome:
    """Run once. A failure is an outcome with its sentence: one bad point must not take the others along."""
    began = time.perf_counter()
    try:
        found = work_of(target)(scenario, run)
    except Exception as error:  # noqa: BLE001 - told in the outcome
        seconds = time.perf_counter() - began
        return Outcome(run=run, error=f"{type(error).__name__}: {error}", seconds=seconds)
    seconds = time.perf_counter() - began
    return Outcome(
        run=run, figures=found.figures, series=found.series, notes=found.notes, log=found.log, seconds=seconds
    )
