"""The `selection-day` figure: its scenario is sound, its data is asked for in a sentence, and misses are weighed by worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import selection_day
from benchmarks.base import Arguments, BenchmarkError
from simulator.experiments.operated import operated_of, prepared


def data(folder: Path, days: int = 2) -> Path:
    steps = selection_day.DAY_SECONDS // 30 * days
    wave = 100.0 + 50.0 * np.sin(np.arange(steps) / 200.0)
    np.savez(folder / selection_day.FILE, **{f"{model}_req": wave for model in selection_day.MODELS})
    return folder


def test_every_service_has_its_mean_rate_and_the_scenario_can_be_run(tmp_path: Path):
    loads = selection_day._loads(data(tmp_path) / selection_day.FILE, seed=3)
    for kind in selection_day.KINDS:
        assert loads[kind.name].mean() == pytest.approx(kind.rate)
        assert loads[kind.name].shape == (1_440,)
    given = selection_day.scenario(loads, 3_600.0, "joint_mix")
    assert len(prepared(operated_of(given), 3).spec.services) == len(selection_day.KINDS)
    again = selection_day._loads(tmp_path / selection_day.FILE, seed=4)
    assert any((again[name] != loads[name]).any() for name in loads)


def test_without_its_data_it_says_what_is_missing(tmp_path: Path):
    with pytest.raises(BenchmarkError, match="is not there; give its folder with --data"):
        selection_day.run(Arguments(data=tmp_path))
    np.savez(tmp_path / selection_day.FILE, other=np.ones(3))
    with pytest.raises(BenchmarkError, match="has no array m_large_req; it has other"):
        selection_day.run(Arguments(data=tmp_path))


def test_misses_are_weighed_at_the_price_of_unserved_load(tmp_path: Path):
    loads = selection_day._loads(data(tmp_path) / selection_day.FILE, seed=1)
    figures = {f"attainment {kind.name}": 1.0 for kind in selection_day.KINDS}
    figures |= {
        "dollars_per_hour": 10.0,
        "attainment": 0.9,
        "attainment shop/search": 0.9,
        "actions Drain": 4.0,
    }
    day = selection_day._weighed(figures, loads, selection_day.DAY_SECONDS)
    assert day["missed_dollars_per_hour"] == pytest.approx(50.0 * 4.5 * 0.1)
    assert (day["created"], day["drained"]) == (0.0, 4.0)
    result = selection_day.judge({"cheapest_mix": day, "joint_mix": day})
    assert list(result.figures) == ["cheapest_mix", "joint_mix"]
