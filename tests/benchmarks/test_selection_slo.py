"""The `selection-slo` figure: engines recovered from a profile, lengths from a histogram, exact keys, faults told."""

import itertools
import json
import math

import msgspec
import numpy as np
import pytest

from benchmarks import selection_slo, slo_data
from benchmarks.base import Arguments, BenchmarkError
from benchmarks.slo_load import Sizes, drawn, poisson, sizes_of
from benchmarks.slo_physics import _rates, fitted
from placement.profiles.grid import Grid, upper_edge_histogram

INPUTS, OUTPUTS = (100, 1_000, 4_000), (25, 250, 1_000)
TRUE = {  # weights, matmul, pair, context, KV tokens
    "L4": (0.7, (0.0562, 1.86e-4, 3.6e-9, 2.18e-6, 15_444.0)),
    "A10G": (1.01, (0.0281, 3.21e-4, 6.2e-9, 1.09e-6, 15_444.0)),
    "A100": (3.67, (0.0087, 7.2e-5, 1.4e-9, 3.39e-7, 118_147.0)),
    "H100": (7.516, (0.0050, 2.27e-5, 4.4e-10, 1.96e-7, 118_147.0)),
}


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "gpu-selection"
    inside.mkdir()
    grid = np.array(INPUTS, dtype=float)[:, None], np.array(OUTPUTS, dtype=float)[None, :]
    gpus = {
        name: {"cost_usd_h": price, "tputs": _rates(np.array(true), *grid, 0.12, 0.01, 0.0005).tolist()}
        for name, (price, true) in TRUE.items()
    }
    profile = {
        "kind": "roofline, c0=10ms c1=0.5ms",
        "tpot_slo_s": 0.12,
        "input_edges": INPUTS,
        "output_edges": OUTPUTS,
        "gpus": gpus,
    }
    (inside / "profile_roofline_llama2-7b_12gpu_tpot120ms.json").write_text(json.dumps(profile))
    histogram = {"workloads": {"chat": [[0.3, 0.2, 0.0], [0.3, 0.2, 0.0], [0.0, 0.0, 0.0]]}}
    (inside / "workloads_10x6.json").write_text(json.dumps(histogram))
    lines = "wl,rate,tag,cost\nchat,3.0,melange_upper_sf4,3.67\nchat,3.0,interp+rho(n),3.67\n"
    (inside / "slo_simulation_headtohead.csv").write_text(lines)
    return inside


def test_engines_are_recovered_from_the_grid(folder):
    profile = json.loads((folder / "profile_roofline_llama2-7b_12gpu_tpot120ms.json").read_text())
    for name in ("L4", "A100"):
        found, true = fitted(profile, name), TRUE[name][1]
        assert found.largest_error < 0.02
        assert found.matmul == pytest.approx(true[1], rel=0.1)
        assert (found.fixed, found.request) == (0.01, 0.0005)
    profile["gpus"]["L4"]["tputs"] = [[1.0, 5.0, 0.1], [7.0, 0.2, 3.0], [0.1, 9.0, 2.0]]
    with pytest.raises(BenchmarkError, match="L4 does not follow"):
        fitted(profile, "L4")
    profile["gpus"]["L4"]["tputs"] = [[0.0] * 3] * 3
    with pytest.raises(BenchmarkError, match="no feasible size"):
        fitted(profile, "L4")


def test_lengths_have_the_histogram_they_were_drawn_from():
    grid = Grid(INPUTS, OUTPUTS)
    shares = np.array([[0.3, 0.1, 0.0], [0.2, 0.2, 0.1], [0.0, 0.05, 0.05]])
    inputs, outputs = drawn(grid, shares, np.random.default_rng(1), 20_000)
    assert np.abs(upper_edge_histogram(grid, inputs, outputs, 1.0) - shares).max() < 0.012
    assert inputs.min() >= 1.0
    assert (inputs == np.round(inputs)).all()


def test_lengths_of_the_trace_itself_are_taken_where_its_histogram_is_the_given_one(folder):
    trace = folder.parent / "live-migration"
    trace.mkdir()
    (trace / "azure2023_conv.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\nx,90,20\nx,950,200\n")
    grid = Grid(INPUTS, OUTPUTS)
    shares = np.zeros(grid.shape)
    shares[0, 0] = shares[1, 1] = 0.5
    found = sizes_of(folder, "azure_conv", grid, shares, 1)
    assert (found.source, found.inputs.tolist()) == ("trace", [90.0, 950.0])
    shares[1, 1] = 0.4
    shares[2, 2] = 0.1
    assert sizes_of(folder, "azure_conv", grid, shares, 1).source == "drawn within buckets"


def test_arrivals_come_at_the_rate_with_sizes_of_the_sample():
    sizes = Sizes(np.array([5.0, 7.0]), np.array([1.0, 2.0]), "here")
    found = poisson(sizes, 50.0, 40.0, 3)
    assert len(found) == pytest.approx(2_000, abs=150)
    assert {(each.input_tokens, each.output_tokens) for each in found} == {(5, 1), (7, 2)}
    assert all(a.arrived_seconds <= b.arrived_seconds < 40.0 for a, b in itertools.pairwise(found))


def test_figures_have_exactly_the_promised_keys(folder):
    result = selection_slo.run(Arguments(data=folder, quick=True))
    assert list(result.figures) == ["mean_saving", "min_attainment", "by_scenario"]
    assert list(result.figures["by_scenario"]) == ["chat_3"]
    row = result.figures["by_scenario"]["chat_3"]
    assert list(row) == ["our_cost", "our_attainment", "melange_cost", "melange_attainment"]
    assert result.figures["mean_saving"] == pytest.approx(
        1.0 - row["our_cost"] / row["melange_cost"], abs=1e-4
    )
    assert result.figures["min_attainment"] == row["our_attainment"] > 0.9
    assert result.remark == "Every plan of ours passed the checker."
    assert msgspec.json.encode(result.figures)


def test_what_never_finishes_kept_no_promise(folder):
    data = slo_data.read(folder)
    sizes = Sizes(np.array([900.0]), np.array([900.0]), "here")
    side = selection_slo.ours(data, sizes, 0.2)
    longer = poisson(Sizes(np.array([900.0, 200_000.0]), np.array([900.0, 10.0]), "here"), 0.2, 100.0, 1)
    kept = selection_slo.simulate(data, side, longer, 1)
    assert kept == selection_slo.simulate(data, side, longer, 1)
    assert 0 < kept.both < kept.arrived
    assert math.isfinite(kept.ttft_p99)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param("slo_simulation_headtohead.csv", None, "slo_simulation_headtohead.csv is missing", id="no table"),
        pytest.param("workloads_10x6.json", None, "workloads_10x6.json is missing", id="no histograms"),
        pytest.param("profile_roofline_llama2-7b_12gpu_tpot120ms.json", None, "has no profile", id="no profile"),
        pytest.param("slo_simulation_headtohead.csv", "wl,rate,tag,cost\nchat,3,ours,1\n", "begins with melange",
                     id="no scenario"),
        pytest.param("slo_simulation_headtohead.csv", "wl,rate,tag,cost\nodd,3,melange,1\n", "workload 'odd'",
                     id="a workload that is not there"),
    ],
)  # fmt: skip
def test_missing_data_is_told_with_its_name(folder, name, text, said):
    (folder / name).unlink()
    if text is not None:
        (folder / name).write_text(text)
    with pytest.raises(BenchmarkError, match=said):
        slo_data.read(folder)
