"""The `mix` figures: exact keys, an honest failure, and a sentence when the data is missing."""

import json

import msgspec
import pytest

from benchmarks import mix
from benchmarks.base import Arguments, BenchmarkError
from placement.selection.mix import solve_mix

KEYS = ["rows", "failures", "max_rel_gap", "p50_ms", "p99_ms", "p50_ms_headroom", "p99_ms_headroom"]
SPEED = {"L4": (0.7, 1.0), "A10G": (1.01, 1.8), "A100": (3.67, 7.0), "H100": (7.516, 15.0)}


@pytest.fixture
def folder(tmp_path):
    profile = {
        "tpot_slo_s": 0.12,
        "input_edges": [100, 1000],
        "output_edges": [100, 500],
        "gpus": {
            name: {"cost_usd_h": price, "tputs": [[4 * s, 1.2 * s], [2 * s, 0.5 * s]]}
            for name, (price, s) in SPEED.items()
        },
    }
    (tmp_path / "profile_roofline_llama2-7b_12gpu_tpot120ms.json").write_text(json.dumps(profile))
    workloads = {"workloads": {"chat": [[0.4, 0.2], [0.3, 0.1]]}}
    (tmp_path / "workloads_10x6.json").write_text(json.dumps(workloads))
    lines = ["n_gpu_types,tpot_slo_ms,workload,rate_rps,optimal_fractional_cost"]
    for rate in (1, 16):
        row = {"n_gpu_types": "4", "workload": "chat", "rate_rps": str(rate)}
        optimum = solve_mix(mix.instance(row, workloads, profile, headroom=False)).cost_per_hour
        lines.append(f"4,120,chat,{rate},{optimum}")
    (tmp_path / "reference_costs_single_model.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_figures_have_exactly_the_promised_keys(folder):
    result = mix.run(Arguments(data=folder))
    assert list(result.figures) == KEYS
    assert (result.figures["rows"], result.figures["failures"]) == (2, 0)
    assert result.figures["max_rel_gap"] == pytest.approx(0.0, abs=1e-12)
    assert result.remark == "Every plan passed the checker."
    assert msgspec.json.encode(result.figures)


def test_an_unsound_plan_counts_as_an_infinite_gap(folder, monkeypatch):
    def cheat(task):
        found = solve_mix(task)
        return msgspec.structs.replace(found, counts={name: n - 1 for name, n in found.counts.items()})

    monkeypatch.setattr(mix, "solve_mix", cheat)
    result = mix.run(Arguments(data=folder))
    assert result.figures["failures"] == 2
    assert result.figures["max_rel_gap"] == float("inf")
    assert "Faults" in result.remark


def test_an_optimum_that_is_missed_is_shown(folder):
    table = folder / "reference_costs_single_model.csv"
    table.write_text(table.read_text().replace("4,120,chat,1,", "4,120,chat,1,0"))
    optimum = float(table.read_text().splitlines()[1].rsplit(",", 1)[1])
    table.write_text("\n".join([*table.read_text().splitlines()[:1], f"4,120,chat,1,{optimum * 2}"]))
    assert mix.run(Arguments(data=folder)).figures["max_rel_gap"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "missing",
    [
        "reference_costs_single_model.csv",
        "workloads_10x6.json",
        "profile_roofline_llama2-7b_12gpu_tpot120ms.json",
    ],
)
def test_missing_data_is_a_sentence(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(BenchmarkError, match=f"{missing} is missing"):
        mix.run(Arguments(data=folder))


def test_an_unknown_number_of_types_is_a_sentence(folder):
    table = folder / "reference_costs_single_model.csv"
    table.write_text(table.read_text().replace("\n4,", "\n7,"))
    with pytest.raises(BenchmarkError, match="n_gpu_types is 7; give"):
        mix.run(Arguments(data=folder))
