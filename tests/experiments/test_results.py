"""Figures over seeds, and the files they are written to."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from simulator.experiments.outcomes import Outcome
from simulator.experiments.runs import Run, Value
from simulator.experiments.statistics import by_point, estimate
from simulator.experiments.tables import write_table


def outcome(
    seed: int, error: str = "", settings: tuple[tuple[str, Value], ...] = (), **figures: float
) -> Outcome:
    return Outcome(run=Run(settings, seed), figures=figures, error=error, seconds=1.5)


def test_the_interval_is_students() -> None:
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.mean, found.seeds) == (3.0, 5)
    assert found.deviation == pytest.approx(math.sqrt(2.5))
    assert found.half_width == pytest.approx(
        2.776445 * math.sqrt(2.5 / 5.0), rel=1e-6
    )  # t(0.975, 4), from tables
    assert str(found) == "3 ± 2"


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(2_000):
        found = estimate(rng.normal(7.0, 2.0, size=5).tolist())
        assert found.half_width is not None
        inside += abs(found.mean - 7.0) <= found.half_width
    assert inside / 2_000 == pytest.approx(0.95, abs=0.015)


def test_one_seed_has_no_interval() -> None:
    assert str(estimate([2.0])) == "2"
    assert estimate([2.0]).half_width is None


@pytest.mark.parametrize("values", [[], [math.nan, 1.0], [math.inf]])
def test_nothing_and_what_is_no_number_have_no_estimate(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values of at least one run"):
        estimate(values)


def test_seeds_of_a_point_belong_together_and_failed_runs_are_left_out() -> None:
    a, b = (("x", 1),), (("x", 2),)
    found = by_point(
        [
            outcome(1, settings=a, cost=2.0),
            outcome(2, settings=a, cost=4.0),
            outcome(1, settings=b, error="broke"),
        ]
    )
    assert list(found) == ["x=1"]
    assert found["x=1"]["cost"].mean == 3.0


def test_a_table_has_a_row_a_run(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    write_table(
        path,
        [outcome(1, settings=(("x", 1),), cost=2.0), outcome(2, settings=(("x", "most"),), error="broke")],
    )
    with path.open() as file:
        assert list(csv.reader(file)) == [
            ["x", "seed", "cost", "seconds", "error"],
            ["1", "1", "2.0", "1.5", ""],
            ["most", "2", "", "1.5", "broke"],
        ]


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    path = tmp_path / "runs.parquet"
    write_table(
        path,
        [outcome(1, settings=(("x", 1),), cost=2.0), outcome(2, settings=(("x", "most"),), error="broke")],
    )
    assert parquet.read_table(path).to_pydict() == {
        "x": ["1", "most"], "seed": [1, 2], "cost": [2.0, None], "seconds": [1.5, 1.5], "error": ["", "broke"],
    }  # fmt: skip


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"written as \.csv or \.parquet"):
        write_table(tmp_path / "runs.xlsx", [])
