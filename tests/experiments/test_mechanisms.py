"""Mechanisms in a scenario file: what they become, what is told of them, and which field is named when one cannot be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulator.experiments.mechanisms import RequestClass, classified
from simulator.experiments.runs import Run
from simulator.experiments.scenario import scenario_of, with_settings, world_of
from simulator.experiments.simulating import simulate, sources, verify
from simulator.physics.failures import LLAMA3_GPU_HOURS
from simulator.physics.loading import WeightTier
from simulator.traces.requests import TraceRequest
from simulator.world.spec import ScenarioError

BASE: dict[str, Any] = {
    "model": "llama-2-7b",
    "groups": [{"gpu": "A100-80", "count": 4, "per_node": 2}],
    "traffic": {"power_law": {"input_mean": 128, "output_mean": 128, "rate": 10.0, "requests": 100}},
}
JOB = {"name": "j", "parameters": 1e9, "tokens_per_step": 65_536, "steps": 20, "count": 2}


def given(**more: Any) -> dict[str, Any]:
    return BASE | more


def run(scenario: dict[str, Any]) -> Any:
    return simulate(msgspec.json.encode(scenario), Run((), 1))


def test_the_fields_become_the_parts_of_the_world() -> None:
    spec = world_of(
        scenario_of(
            given(
                start={"tier": "dram"},
                buses={"gpus_per_switch": 4},
                power={"domains": [{"name": "row", "rating_watts": 5000, "groups": [0]}]},
                breaking=[{"node": "node-0-00001", "at_seconds": 5.0, "gpu": 1, "restart": False}],
                random_failures=[{"repair_seconds": 9.0}],
                jobs=[JOB, JOB | {"name": "k", "count": 0, "beside": 0, "overlap": 0.5}],
                failures=[{"instance": 0, "at_seconds": 1.0}],
            )
        ),
        seed=1,
    )
    parts = spec.parts
    assert spec.failures[0].start is not None
    assert spec.failures[0].start.tier is WeightTier.DRAM
    assert parts.buses is not None
    assert parts.buses.gpus_per_switch == 4
    assert parts.breaking[0].start is None
    (hazard,) = parts.hazards
    assert (hazard.per_gpu_hour, hazard.repair_seconds) == (1.0 / LLAMA3_GPU_HOURS, 9.0)
    assert [job.nodes for job in parts.training] == [("j-000", "j-001"), ("node-0-00000", "node-0-00001")]
    assert parts.training[1].spec.overlap == 0.5


def test_a_scenario_without_them_has_none() -> None:
    parts = world_of(scenario_of(BASE), seed=1).parts
    assert (parts.buses, parts.power, parts.hazards, parts.breaking, parts.training) == (
        None,
        None,
        (),
        (),
        (),
    )
    found = run(BASE)
    assert not [name for name in (*found.figures, *found.series) if "watts" in name or "joules" in name]
    assert found.notes == ()


@pytest.mark.parametrize(
    ("changed", "path", "sentence"),
    [
        pytest.param({"jobs": [JOB | {"count": 0}]}, "jobs[0]", "one of count", id="no nodes"),
        pytest.param({"jobs": [JOB | {"beside": 0}]}, "jobs[0]", "one of count", id="nodes twice"),
        pytest.param({"jobs": [JOB | {"count": 0, "beside": 3}]}, "jobs[0].beside", "there are 1 groups", id="no such group"),
        pytest.param({"jobs": [JOB | {"gpu": "A99"}]}, "jobs[0].gpu", "known are", id="no such GPU"),
        pytest.param({"jobs": [JOB | {"steps": 0}]}, "jobs[0]", "steps of a training job is 0", id="no steps"),
        pytest.param({"jobs": [JOB, JOB]}, "jobs", "'j' twice", id="the same job twice"),
        pytest.param({"jobs": [JOB | {"network": {"ports": 0}}]}, "jobs[0]", "both must be positive", id="no port"),
        pytest.param({"start": {"image_bytes": -1}}, "start", "image_bytes of a start is -1", id="less than no image"),
        pytest.param({"breaking": [{"node": "node-9", "at_seconds": 1.0}]}, "breaking[0].node", "known are node-0-00000", id="no such node"),
        pytest.param({"power": {"every_seconds": 0}}, "power.every_seconds", "must be a positive", id="no time at all"),
        pytest.param({"power": {"wats": 0}}, "power", "unknown field `wats`", id="a slip"),
        pytest.param({"classes": [{"name": "a", "share": 0.4}]}, "classes", "shares of 0.4", id="not all"),
        pytest.param({"classes": [{"name": "a", "share": -1.0}]}, "classes[0].share", "must be positive", id="less than none"),
        pytest.param({"classes": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5}]}, "classes[1]", "told apart", id="one priority twice"),
        pytest.param({"classes": [{"name": "a", "share": 1.0, "priority": 9999}]}, "classes[0].priority", "at most 1000", id="beyond all"),
        pytest.param({"classes": [{"name": "a", "share": 1.0, "ttft_seconds": -1.0}]}, "classes[0].ttft_seconds", "not be negative", id="a promise of the past"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_path_of_the_field(
    changed: dict[str, Any], path: str, sentence: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        verify(given(**changed), Run((), 1))
    assert caught.value.path.strip(".") == path
    assert sentence in str(caught.value)


def test_classes_share_the_traffic_out_by_the_seed() -> None:
    classes = (
        RequestClass(name="a", share=0.25, priority=2),
        RequestClass(name="b", share=0.75, priority=-1),
    )
    stream = [TraceRequest(n, float(n), 10, 10) for n in range(4_000)]
    found = [request.priority for request in classified(stream, classes, 1)]
    assert found == [request.priority for request in classified(stream, classes, 1)]
    assert found != [request.priority for request in classified(stream, classes, 2)]
    assert Counter(found)[2] == pytest.approx(1_000, abs=120)
    assert set(found) == {2, -1}
    assert list(classified(stream, (), 1)) == stream


def test_a_higher_class_waits_less_and_keeps_its_own_promise() -> None:
    scenario = given(
        groups=[{"gpu": "L4", "count": 1, "engine": {"max_num_seqs": 8}}],
        classes=[
            {"name": "first", "share": 0.2, "priority": 1, "ttft_seconds": 1e-9},
            {"name": "rest", "share": 0.8},
        ],
        promise={"ttft_seconds": 1e6, "tpot_seconds": 1e6},
    )
    figures = run(scenario).figures
    assert figures["arrived of first"] + figures["arrived of rest"] == 100
    assert figures["ttft_p99_seconds of first"] < 0.5 * figures["ttft_p99_seconds of rest"]
    assert (figures["attainment of first"], figures["attainment of rest"]) == (0.0, 1.0)


def test_priorities_of_a_trace_are_told_apart_and_lines_left_out_are_named(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    rows = "".join(f"{n},50,5,{n % 2}\n" for n in range(8))
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens,priority\n" + rows + "x,50,5,0\n" * 30)
    found = run(given(traffic={"trace": {"path": str(trace)}}))
    assert found.figures["arrived of priority 1"] == 4
    assert found.notes[0] == f"{trace}:10: TIMESTAMP 'x' is no date and time"
    assert found.notes[-1] == "10 more lines are malformed"


def test_power_and_training_are_told_in_figures_and_series() -> None:
    scenario = given(
        power={"domains": [{"name": "row", "rating_watts": 4_000, "groups": [0]}]},
        jobs=[JOB | {"start_seconds": 1.0}],
    )
    found = run(scenario)
    figures, series = found.figures, found.series
    assert figures["joules"] == pytest.approx(sum(figures[f"joules_{name}"] for name in (
        "prefill", "decode", "training", "boundary", "idle", "server")))  # fmt: skip
    assert figures["watts_mean"] * 0.5 < figures["watts_peak"]
    assert figures["peak_share_row"] == pytest.approx(figures["watts_peak_row"] / 4_000)
    assert (figures["job_j_steps"], figures["job_j_done"]) == (20, 1)
    phases = [name for name in series if name.startswith("watts_phase_")]
    assert len(phases) == 6
    nodes = [name for name in series if name.startswith("watts_node_")]
    assert len(nodes) == 4
    assert sum(series[name][0] for name in phases) == pytest.approx(sum(series[name][0] for name in nodes))


def test_each_group_says_where_its_numbers_come_from() -> None:
    named = with_settings(
        BASE, [("groups.0.cost", "llama2-70b on 8 x A100-80 (Splitwise)"), ("groups.0.gpus", 8)]
    )
    (told,) = sources(named)
    assert "Median error 4.7%, nine tenths between -32.2% and +13.6%" in told
    assert "Median error 5.1%" in told
    (plain,) = sources(BASE)
    assert plain.startswith("groups[0]: roofline: ")
