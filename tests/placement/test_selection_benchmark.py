"""The `selection` figures: exact keys, the independent exact programme, and cheats that are seen."""

import json

import msgspec
import pytest

from benchmarks import mix, selection
from benchmarks.base import Arguments, BenchmarkError
from benchmarks.selection_exact import ordered_binaries
from placement.selection.mix import solve_mix
from tests.placement.mixes import brute_force, problem

KEYS = [
    "rows",
    "failures",
    "max_rel_gap",
    "worse_than_melange",
    "p50_ms",
    "p99_ms",
    "dense_p50_ms",
    "dense_p99_ms",
    "headroom_p50_ms",
    "headroom_p99_ms",
    "headroom_max_rel_gap",
]
SPEED = {"L4": (0.7, 1.0), "A10G": (1.01, 1.8), "A100": (3.67, 7.0), "H100": (7.516, 15.0)}


@pytest.fixture
def folder(tmp_path):
    gpus = {
        name: {"cost_usd_h": price, "tputs": [[4 * s, 1.2 * s], [2 * s, 0.5 * s]]}
        for name, (price, s) in SPEED.items()
    }
    profile = {"tpot_slo_s": 0.12, "input_edges": [100, 1000], "output_edges": [100, 500], "gpus": gpus}
    (tmp_path / "profile_roofline_llama2-7b_12gpu_tpot120ms.json").write_text(json.dumps(profile))
    workloads = {"workloads": {"chat": [[0.4, 0.2], [0.3, 0.1]]}}
    (tmp_path / "workloads_10x6.json").write_text(json.dumps(workloads))
    lines = ["n_gpu_types,tpot_slo_ms,workload,rate_rps,optimal_fractional_cost,melange_exact_sf4"]
    for rate in (1, 16):
        row = {"n_gpu_types": "4", "workload": "chat", "rate_rps": str(rate)}
        optimum = solve_mix(mix.instance(row, workloads, profile, headroom=False)).cost_per_hour
        lines.append(f"4,120,chat,{rate},{optimum},{optimum if rate == 1 else ''}")
    (tmp_path / "reference_costs_single_model.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_figures_have_exactly_the_promised_keys(folder):
    result = selection.run(Arguments(data=folder))
    assert list(result.figures) == KEYS
    assert (result.figures["rows"], result.figures["failures"]) == (2, 0)
    assert result.figures["worse_than_melange"] == 0
    assert result.figures["headroom_max_rel_gap"] == pytest.approx(0.0, abs=1e-9)
    assert result.remark == "Every plan passed the checker."
    assert msgspec.json.encode(result.figures)


def test_an_unsound_plan_is_a_failure_with_infinite_gaps(folder, monkeypatch):
    def cheat(task):
        found = solve_mix(task)
        return msgspec.structs.replace(found, counts={name: n - 1 for name, n in found.counts.items()})

    monkeypatch.setattr(mix, "solve_mix", cheat)
    figures = selection.run(Arguments(data=folder)).figures
    assert figures["failures"] == 2 + selection.DENSE_DRAWS
    assert figures["max_rel_gap"] == figures["headroom_max_rel_gap"] == float("inf")
    assert figures["worse_than_melange"] == 1


def test_a_dearer_plan_shows_in_the_gap_with_headroom(folder, monkeypatch):
    def careless(task):
        dear = tuple(each for each in task.variants if each.name == "H100")
        return solve_mix(msgspec.structs.replace(task, variants=dear))

    monkeypatch.setattr(mix, "solve_mix", careless)
    assert selection.run(Arguments(data=folder)).figures["headroom_max_rel_gap"] > 0.05


@pytest.mark.parametrize("headroom", [False, True])
def test_the_plain_programme_agrees_with_enumeration(headroom):
    task = problem(headroom=headroom)
    exact = ordered_binaries(task, 20.0)
    assert exact.closed
    assert exact.objective == pytest.approx(brute_force(task, 6)[0][0])
    assert exact.bound == pytest.approx(exact.objective)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(lambda text: text.replace(",chat,1,", ",nowhere,1,"), "names the workload 'nowhere'", id="an unknown workload"),
        pytest.param(lambda text: text.replace(",chat,1,", ",chat,fast,"), "line 2: rate_rps is 'fast'", id="a rate that is no number"),
    ],
)  # fmt: skip
def test_a_row_that_makes_no_sense_is_named(folder, change, sentence):
    table = folder / selection.TABLE
    table.write_text(change(table.read_text()))
    with pytest.raises(BenchmarkError, match=sentence):
        selection.run(Arguments(data=folder))


def test_a_profile_on_its_side_is_named(folder):
    path = folder / "profile_roofline_llama2-7b_12gpu_tpot120ms.json"
    profile = json.loads(path.read_text())
    profile["gpus"]["L4"]["tputs"] = [[1.0, 2.0]]
    path.write_text(json.dumps(profile))
    with pytest.raises(BenchmarkError, match=r"gpus\.L4\.tputs has shape"):
        selection.run(Arguments(data=folder))
