"""What came out of runs: one file each, whole or not there, so that what was computed once is never lost."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from simulator.experiments.runs import Run
from simulator.world.operated.log import Decided


class Figures(msgspec.Struct, frozen=True):
    """What a run found: `figures` by name, `series` by name for the plots (quantiles, values over time), and sentences.

    `log` has what its operator decided, where it had one.
    """

    figures: dict[str, float] = {}
    series: dict[str, tuple[float, ...]] = {}
    notes: tuple[str, ...] = ()
    log: tuple[Decided, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A finished run: its `Figures`, or the sentence that says why there are none. `seconds` of wall it took."""

    run: Run
    figures: dict[str, float] = {}
    series: dict[str, tuple[float, ...]] = {}
    notes: tuple[str, ...] = ()
    log: tuple[Decided, ...] = ()
    error: str = ""
    seconds: float = 0.0


class OutcomeFolder:
    """Outcomes by scenario, settings and seed in one folder; several processes may write beside each other."""

    def __init__(self, folder: Path, scenario: bytes) -> None:
        """Make the folder. Raises OSError when it cannot be made."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._scenario = folder, scenario

    def path(self, run: Run) -> Path:
        """Where a run's outcome lies."""
        return self._folder / f"{run.key(self._scenario)}.json"

    def load(self, run: Run) -> Outcome | None:
        """A run's outcome; None when there is none, or the file is not one (it is computed again then)."""
        try:
            outcome = msgspec.json.decode(self.path(run).read_bytes(), type=Outcome)
        except (OSError, msgspec.MsgspecError):
            return None
        return outcome if outcome.run == run else None

    def keep(self, outcome: Outcome) -> None:
        """Write an outcome: a reader sees all of it or nothing. Raises OSError when it cannot be written."""
        path = self.path(outcome.run)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_bytes(msgspec.json.encode(outcome))
        unfinished.replace(path)
