"""Constants of the step time as fitted to published measurements of real GPUs, by engine: shipped data."""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources

import msgspec

from placement.profiles.figures import OPEN, StepConstants

SHIPPED_ERROR = 0.13
"""Their median error on a product that they were not fitted to (docs/benchmarks.md, `profiles`)."""


def shipped_constants(engine: str) -> StepConstants:
    """Those of an engine, else the ones that all engines share."""
    table = _table()
    return table.get(engine, table[""])


@cache
def _table() -> dict[str, StepConstants]:
    text = resources.files("placement").joinpath("data", "step_constants.csv").read_text(encoding="utf-8")
    found: dict[str, StepConstants] = {}
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        engine, _ = row.pop("engine"), row.pop("source")
        chunk = int(row.pop("chunk_tokens"))
        values = {field: float(value) for field, value in row.items()}
        found[engine] = msgspec.structs.replace(OPEN, chunk_tokens=chunk, **values)
    return found
