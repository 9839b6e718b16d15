"""What the comparison with Llumnix feeds and how it judges: traces, rates, ratios, savings; and damaged tables."""

import math

import numpy as np
import pytest

from benchmarks import truth_llumnix as truth
from benchmarks.base import BenchmarkError
from simulator.traces.powerlaw import LONGEST

HEADER = "figure,row,metric,unit,system,x_name,x,y\n"


def points(tmp_path, *lines):
    path = tmp_path / "figures.csv"
    path.write_text(HEADER + "".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def eleven(trace, metric, system, rate, y):
    return f"11,{trace},{metric},s,{system},request_rate,{rate},{y}"


def fifteen(system, x, y):
    return f"15,,prefill_p99,s,{system},avg_instances,{x},{y}"


def test_one_trace_has_the_same_requests_whatever_the_seed_but_for_a_tremble_of_their_arrivals():
    first, second = (truth.requests("256-512", 7.8, seed) for seed in (1, 2))
    assert [(r.input_tokens, r.output_tokens) for r in first] == [
        (r.input_tokens, r.output_tokens) for r in second
    ]
    gaps = [abs(a.arrived_seconds - b.arrived_seconds) for a, b in zip(first, second, strict=True)]
    assert 0.0 < max(gaps) <= truth.JITTER_SECONDS * 1.0001
    assert np.mean([r.input_tokens for r in first]) == pytest.approx(256, rel=0.05)
    assert np.mean([r.output_tokens for r in first]) == pytest.approx(512, rel=0.05)
    assert max(r.output_tokens for r in first) <= LONGEST
    assert len(first) / first[-1].arrived_seconds == pytest.approx(7.8, rel=0.05)


def test_gaps_vary_as_asked():
    at = [r.arrived_seconds for r in truth.requests("512-512", 2.0, 1, cv=3.0)]
    gaps = np.diff(at)
    assert gaps.std() / gaps.mean() == pytest.approx(3.0, rel=0.1)
    assert gaps.mean() == pytest.approx(0.5, rel=0.1)


def test_rates_are_those_that_both_were_plotted_at(tmp_path):
    paper = truth.read_paper(
        points(
            tmp_path,
            eleven("128-128", "prefill_p99", "INFaaS++", 32, 4.0),
            eleven("128-128", "prefill_p99", "Llumnix", 32, 2.0),
            eleven("128-128", "prefill_p99", "INFaaS++", 40, 4.0),
            eleven("128-128", "prefill_p99", "Llumnix", 34, 2.0),
            eleven("128-128", "prefill_p99", "INFaaS++", 34, 2.0),
        )
    )
    assert truth.plotted_rates(paper) == {"128-128": [32.0, 34.0]}
    assert truth.published(paper, "128-128", "prefill_p99", 32.0) == 0.5
    with pytest.raises(BenchmarkError, match="prefill_mean of 128-128"):
        truth.published(paper, "128-128", "prefill_mean", 32.0)


def test_a_ratio_is_of_means_over_runs():
    seen = truth.Seen(1.0, 2.0, 3.0, 0.1, 0, 0)
    runs = {truth.BASELINE: [seen, seen._replace(prefill_p99=3.0)], truth.LLUMNIX: [seen, seen]}
    assert truth.ratio(runs, "prefill_p99") == pytest.approx(0.5)
    assert truth.ratio(runs, "prefill_mean") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("curve", "level", "instances"),
    [
        pytest.param({8: 100.0, 10: 1.0}, 10.0, 9.0, id="halfway in the logarithm"),
        pytest.param({8: 100.0, 9: 10.0, 10: 1.0}, 10.0, 9.0, id="at a point"),
        pytest.param({8: 100.0, 9: 10.0, 10: 50.0, 11: 1.0}, 50.0, 8.301, id="a rise is noise"),
        pytest.param({8: 100.0, 10: 1.0}, 0.5, math.nan, id="never so low"),
        pytest.param({8: 100.0, 10: 1.0}, 500.0, math.nan, id="never so high"),
    ],
)
def test_instances_needed_for_a_latency(curve, level, instances):
    assert truth.needed(curve, level) == pytest.approx(instances, abs=1e-3, nan_ok=True)


def test_the_saving_is_read_at_a_latency_that_both_reach(tmp_path):
    paper = truth.read_paper(
        points(
            tmp_path,
            fifteen("INFaaS++", 12, 40.0), fifteen("INFaaS++", 14, 4.0), fifteen("INFaaS++", 15, 3.0),
            fifteen("Llumnix", 10, 10.0), fifteen("Llumnix", 11, 4.0), fifteen("Llumnix", 12, 2.0),
        )
    )  # fmt: skip
    level, curves = truth.equal_level(paper)
    assert level == 4.0
    assert truth.saving(curves, level) == pytest.approx(14 / 11 - 1)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        pytest.param([], "no point of figure 11", id="nothing of the figure"),
        pytest.param(
            [eleven("128-128", "prefill_p99", "INFaaS++", "fast", 1)], "no number", id="a rate that is a word"
        ),
        pytest.param(["11,128-128"], "no number", id="half a line"),
    ],
)
def test_damaged_points_are_told(tmp_path, lines, says):
    path = points(tmp_path, *lines)
    with pytest.raises(BenchmarkError, match=says):
        truth.plotted_rates(truth.read_paper(path))


def test_no_table_and_lengths_that_nobody_draws_are_told(tmp_path):
    with pytest.raises(BenchmarkError, match="--data"):
        truth.read_paper(tmp_path / "none.csv")
    with pytest.raises(BenchmarkError, match="not 'input-output'"):
        truth.means("short")
    with pytest.raises(BenchmarkError, match="means of 128"):
        truth.means("100-512")
    with pytest.raises(BenchmarkError, match="no P99"):
        truth.equal_level({("15", "", "prefill_p99", "INFaaS++", 12.0): 4.0})


def test_both_systems_serve_a_small_trace_whole_and_only_one_moves_requests():
    stream = truth.requests("512-512", 40.0, 1, count=120)
    seen = {
        system: truth.simulate(system, stream, 1, instances=2, threshold=40.0)
        for system in (truth.BASELINE, truth.LLUMNIX)
    }
    assert not seen[truth.BASELINE].migrations
    assert seen[truth.LLUMNIX].migrations > 0
    for each in seen.values():
        assert 0.0 < each.prefill_mean <= each.prefill_p99 <= each.request_p99
