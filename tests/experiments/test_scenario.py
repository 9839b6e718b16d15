"""Scenario files: what is run, and which field is named when something contradicts itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from simulator.experiments.runs import Run
from simulator.experiments.scenario import load, scenario_of, with_settings, world_of
from simulator.experiments.series import LEVELS
from simulator.experiments.simulating import simulate, verify
from simulator.traces.requests import TraceError
from simulator.world.spec import ScenarioError

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {
    "model": "llama-2-7b",
    "groups": [{"gpu": "A10G", "count": 2, "cost": "llama-7b on A10 (Llumnix)"}],
    "traffic": {"power_law": {"input_mean": 128, "output_mean": 128, "rate": 3.0, "requests": 80}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    return with_settings(SMALL, [(path, value)])


def test_a_scenario_becomes_a_world() -> None:
    given = with_settings(
        SMALL,
        [
            ("groups.0.gpus", 1),
            ("groups.0.engine.chunk_tokens", 512),
            ("dispatch.name", "round_robin"),
            ("precision", "fp16"),
        ],
    )
    spec = world_of(scenario_of(given), seed=7)
    assert (spec.seed, spec.model.name, spec.model.precision, spec.dispatch.name) == (
        7,
        "llama-2-7b",
        "fp16",
        "round_robin",
    )
    (group,) = spec.groups
    assert (group.gpu.product, group.count, group.engine.chunk_tokens) == ("A10G", 2, 512)
    assert group.engine.measured is not None
    assert "fig. 10" in group.engine.measured.source


@pytest.mark.parametrize(
    ("given", "path", "sentence"),
    [
        pytest.param(changed("modle", "x"), "scenario", "unknown field `modle`", id="a slip"),
        pytest.param(changed("groups.0.cuont", 2), ".groups[0]", "unknown field `cuont`", id="a slip in a group"),
        pytest.param(changed("groups.0.count", "two"), ".groups[0].count", "Expected `int`", id="a word for a number"),
        pytest.param(changed("groups.0.count", -2), "groups[0].count", "is -2; it must be a positive finite number", id="fewer than none"),
        pytest.param(changed("groups.0.gpu", "A99"), "groups[0].gpu", "is 'A99'; known are A100-80, A10G", id="no such GPU"),
        pytest.param(changed("groups.0.cost", "x"), "groups[0].cost", "is 'x'; known are", id="no such cost"),
        pytest.param(changed("groups.0.dollars_per_gpu_hour", -1.0), "groups[0].dollars_per_gpu_hour", "negative", id="a gift"),
        pytest.param(changed("groups.0.engine.chunk_tokens", 8), "groups[0].engine", "must exceed max_num_seqs", id="no room for prompts"),
        pytest.param(changed("groups", []), "groups", "is empty", id="nobody to serve"),
        pytest.param(changed("model", "gpt-99"), "model", "not in the shipped catalogue", id="no such model"),
        pytest.param(changed("dispatch.name", "fastest"), "dispatch", "cannot be used", id="no such policy"),
        pytest.param(changed("dispatch", {"name": "round_robin", "config": {"speed": 1}}), "dispatch", "cannot be used", id="no such setting of it"),
        pytest.param(changed("delays.report_seconds", -1.0), "delays.report_seconds", "is -1.0", id="a negative time"),
        pytest.param(changed("promise.ttft_seconds", 0.0), "promise.ttft_seconds", "must be positive", id="no time at all"),
        pytest.param(changed("event_budget", 0), "event_budget", "is 0", id="no events"),
        pytest.param(changed("failures", [{"instance": 2, "at_seconds": 1.0}]), "failures[0].instance", "there are 2 instances", id="one too many"),
        pytest.param(changed("failures", [{"instance": 0, "at_seconds": -1.0}]), "failures[0].at_seconds", "is -1.0", id="before the start"),
        pytest.param(changed("traffic.speed", 0.0), "traffic.speed", "must be positive", id="traffic that stands"),
        pytest.param(changed("traffic.requests", -1), "traffic.requests", "must not be negative", id="fewer requests than none"),
        pytest.param(changed("traffic.power_law.rate", 0.0), "traffic.power_law.rate", "must be positive", id="no rate"),
        pytest.param(changed("traffic.trace", {"path": "x"}), "traffic", "has 2 of trace, power_law, clients, steps; give exactly one", id="two sources"),
        pytest.param(changed("traffic", {}), "traffic", "has 0 of trace", id="no source"),
        pytest.param(changed("traffic", {"trace": {"path": "x", "format": "pcap"}}), "traffic.trace.format", "is 'pcap'", id="no such format"),
        pytest.param(with_settings(SMALL, [("groups.0.gpus", 2), ("groups.0.cost", "opt-13b on A100 (DistServe)")]), "groups[0].gpus", "was measured on 1", id="a cost of another degree"),
        pytest.param(changed("groups.0.profile", "x"), "groups[0]", "both cost and profile", id="two cost models"),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused_with_the_path_of_the_field(
    given: dict[str, Any], path: str, sentence: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        verify(given, Run((), 1))
    assert caught.value.path.strip(".") == path.strip(".")
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        pytest.param("groups.5.count", "has '5' where one of the 1 entries", id="an entry that is not there"),
        pytest.param("groups.first.count", "has 'first'", id="a word for an entry"),
        pytest.param("model.name", "leads into a value", id="below a word"),
        pytest.param("model.name.more", "leads into a value", id="far below a word"),
    ],
)
def test_a_setting_that_leads_nowhere_is_refused(key: str, sentence: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        with_settings(SMALL, [(key, 1)])
    assert caught.value.path == key
    assert sentence in str(caught.value)


def test_settings_leave_the_scenario_as_it_is() -> None:
    before = msgspec.json.encode(SMALL)
    assert with_settings(SMALL, [("groups.0.count", 9)])["groups"][0]["count"] == 9
    assert msgspec.json.encode(SMALL) == before


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param("model: [", "is not YAML", id="half a list"),
        pytest.param("- a\n- b\n", "holds no mapping", id="a list"),
        pytest.param("", "holds no mapping", id="nothing"),
    ],
)
def test_a_file_that_is_no_scenario_is_refused(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    with pytest.raises(ScenarioError, match=sentence):
        load(path)
    with pytest.raises(ScenarioError, match="cannot be read"):
        load(tmp_path / "none.yaml")


def test_paths_in_a_scenario_are_seen_from_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text("model: x\ngroups: [{gpu: L4, profile: mine.yaml}]\ntraffic: {trace: {path: ../t.csv}}\n")
    given = load(path)
    assert given["groups"][0]["profile"] == str(tmp_path / "mine.yaml")
    assert given["traffic"]["trace"]["path"] == str(tmp_path.parent / "t.csv")


def run(given: dict[str, Any], seed: int = 1) -> Any:
    return simulate(msgspec.json.encode(given), Run((), seed))


def test_a_run_gives_figures_and_series_and_a_seed_gives_them_again() -> None:
    found = run(SMALL)
    assert found == run(SMALL)
    assert found != run(SMALL, seed=2)
    figures = found.figures
    assert (figures["arrived"], figures["completed"], figures["unfinished"], figures["complete"]) == (
        80,
        80,
        0,
        1,
    )
    assert 0.0 < figures["attainment"] <= 1.0
    assert len(found.series["ttft_seconds"]) == len(LEVELS)
    assert list(found.series["tpot_seconds"]) == sorted(found.series["tpot_seconds"])
    width = found.series["seconds"][1] - found.series["seconds"][0]
    assert sum(found.series["finished_per_second"]) * width == pytest.approx(80)


def test_money_is_counted_and_a_promise_that_none_keeps_is_kept_by_none() -> None:
    given = with_settings(SMALL, [("groups.0.dollars_per_gpu_hour", 1.5), ("promise.ttft_seconds", 1e-6)])
    figures = run(given).figures
    assert figures["dollars_per_hour"] == 3.0
    assert figures["dollars"] == pytest.approx(3.0 * figures["seconds"] / 3_600.0)
    assert figures["attainment"] == 0.0


def test_a_spent_event_budget_leaves_a_partial_result() -> None:
    figures = run(changed("event_budget", 50)).figures
    assert figures["complete"] == 0.0
    assert figures["completed"] + figures["unfinished"] + figures["refused"] == figures["arrived"] < 80


def test_malformed_lines_of_a_trace_are_counted_or_stop_a_strict_run(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n1,50,5\nx,50,5\n2,50,5\n3,50,5\n")
    given = SMALL | {"traffic": {"trace": {"path": str(trace)}, "seconds": 1.5, "speed": 2.0}}
    figures = run(given).figures
    assert (figures["completed"], figures["malformed_lines"]) == (3, 1)
    with pytest.raises(TraceError, match=r"t\.csv:3: "):
        run(with_settings(given, [("traffic.trace.strict", True)]))


def test_failures_replay_what_ran_and_a_user_profile_gives_the_times(tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    rows = [[b, n, b * n, 1e-4 * b * n + 0.01, 0.02 + 1e-4 * b] for b in (1, 4) for n in (100, 1_000)]
    profile.write_text(f"name: mine\nsource: a bench\nkv_tokens: 20000\nmeasurements: {rows}\n")
    given = with_settings(SMALL, [("groups.0.profile", str(profile)), ("groups.0.cost", "")])
    given["failures"] = [{"instance": 0, "at_seconds": 5.0}]
    figures = run(given).figures
    assert figures["completed"] == 80
    assert figures["replayed"] > 0


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "scenarios").glob("*.yaml")), ids=lambda path: path.name
)
def test_every_example_can_be_run(path: Path) -> None:
    given = load(path)
    verify(given, Run((), 1))
    given["event_budget"] = 2_000
    assert run(given).figures["arrived"] > 0
