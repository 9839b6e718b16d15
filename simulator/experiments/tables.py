"""Results as files other programs read: one row a run, settings and figures in columns. CSV, or Parquet where asked."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from simulator.experiments.outcomes import Outcome
from simulator.world.operated.log import Decided


def write_table(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write runs to `path`: .csv, or .parquet with pyarrow installed.

    Raises OSError when it cannot be written, ValueError for another ending or a missing pyarrow.
    """
    settings = list(dict.fromkeys(key for outcome in outcomes for key, _ in outcome.run.settings))
    figures = list(dict.fromkeys(name for outcome in outcomes for name in outcome.figures))
    header = [*settings, "seed", *figures, "seconds", "error"]
    rows = [_row(outcome, settings, figures) for outcome in outcomes]
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
    elif path.suffix == ".parquet":
        _parquet(path, header, rows)
    else:
        raise ValueError(f"{path}: results are written as .csv or .parquet")


def write_decisions(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write what the operators of all runs decided as CSV: one row an action or a reason. Raises OSError."""
    names = Decided.__struct_fields__
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["point", "seed", *names])
        for outcome in outcomes:
            writer.writerows(
                [outcome.run.point, outcome.run.seed, *(getattr(row, name) for name in names)]
                for row in outcome.log
            )


def _row(outcome: Outcome, settings: Sequence[str], figures: Sequence[str]) -> list[object]:
    given = dict(outcome.run.settings)
    return [
        *(given.get(key) for key in settings),
        outcome.run.seed,
        *(outcome.figures.get(name) for name in figures),
        outcome.seconds,
        outcome.error,
    ]


def _parquet(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    try:
        import pyarrow as pa  # noqa: PLC0415 - only for those who ask for Parquet
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise ValueError(
            f"{path}: Parquet needs pyarrow: install plimsoll[experiments], or write .csv"
        ) from None
    columns = {name: _column([row[at] for row in rows]) for at, name in enumerate(header)}
    pq.write_table(pa.table(columns), path)


def _column(values: list[object]) -> list[object]:
    """Settings may be numbers in one run and words in another: a column of both is words."""
    kinds = {type(value) for value in values if value is not None}
    return (
        values if len(kinds) < 2 or kinds <= {int, float} else [None if v is None else str(v) for v in values]
    )
