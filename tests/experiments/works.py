"""Work for the runs of the tests: named by `tests.experiments.works:<name>`, imported by worker processes."""

from __future__ import annotations

import os
from pathlib import Path

from simulator.experiments.outcomes import Figures
from simulator.experiments.runs import Run


def square(scenario: bytes, run: Run) -> Figures:
    """Notes that it ran in the folder the scenario names; the square of `x`, and the seed."""
    note(scenario, run)
    x = dict(run.settings).get("x", 0)
    return Figures({"square": float(x) ** 2, "seed": float(run.seed)}, {"x": (float(x),)})


def note(scenario: bytes, run: Run) -> int:
    """How often this run was begun, counting this time."""
    file = Path(scenario.decode()) / f"{run.point}-{run.seed}".replace("=", "_")
    with file.open("a") as stream:
        stream.write("x")
    return file.stat().st_size


def dies_once(scenario: bytes, run: Run) -> Figures:
    """The worker of seed 3 is gone the first time, as if it had been killed."""
    if note(scenario, run) == 1 and run.seed == 3:
        os._exit(9)
    return Figures({"seed": float(run.seed)})


def always_dies(scenario: bytes, run: Run) -> Figures:
    """The worker of seed 3 never comes back."""
    note(scenario, run)
    if run.seed == 3:
        os._exit(9)
    return Figures({"seed": float(run.seed)})


def raises(scenario: bytes, run: Run) -> Figures:
    """Seed 2 fails with a sentence."""
    note(scenario, run)
    if run.seed == 2:
        raise ValueError("two is no seed")
    return Figures({"seed": float(run.seed)})
