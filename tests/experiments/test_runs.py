"""Sweeps and seeds: what is run, in which order, and what is refused."""

from __future__ import annotations

import pytest

from simulator.experiments.runs import MOST_RUNS, Run, SweepError, parse_sweep, runs_of


def test_values_are_read_as_yaml_reads_them() -> None:
    assert parse_sweep(["cluster.nodes=4, 8", "policy=llumnix,round_robin", "on=true", "rate=0.5"]) == {
        "cluster.nodes": (4, 8),
        "policy": ("llumnix", "round_robin"),
        "on": (True,),
        "rate": (0.5,),
    }


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        pytest.param(["nodes"], "write key=a,b,c", id="no values at all"),
        pytest.param(["=4"], "write key=a,b,c", id="no key"),
        pytest.param(["nodes=,"], "write key=a,b,c", id="empty values"),
        pytest.param(["nodes=[1"], "write key=a,b,c", id="half a list"),
        pytest.param(["nodes=1", "nodes=2"], "given twice", id="a key twice"),
        pytest.param(["nodes={a: 1}"], "neither a word nor a number", id="a mapping"),
    ],
)
def test_a_sweep_that_says_nothing_is_refused_with_a_sentence(texts: list[str], sentence: str) -> None:
    if sentence == "write key=a,b,c" and texts == ["nodes=[1"]:
        assert parse_sweep(texts) == {"nodes": ("[1",)}  # not YAML: a word
        return
    with pytest.raises(SweepError, match=sentence):
        parse_sweep(texts)


def test_every_combination_runs_with_every_seed_points_outermost() -> None:
    runs = runs_of({"a": (1, 2), "b": ("x", "y")}, (7, 8))
    assert [(run.point, run.seed) for run in runs][:3] == [("a=1, b=x", 7), ("a=1, b=x", 8), ("a=1, b=y", 7)]
    assert len(runs) == 8
    assert runs_of({}, (7,)) == [Run((), 7)]
    assert Run((), 7).point == "as written"


@pytest.mark.parametrize("seeds", [(), tuple(range(MOST_RUNS + 1))], ids=["no seed", "too many"])
def test_no_runs_and_too_many_are_refused(seeds: tuple[int, ...]) -> None:
    with pytest.raises(SweepError, match="at least one seed"):
        runs_of({}, seeds)


def test_an_outcome_is_of_its_scenario_settings_and_seed() -> None:
    run = Run((("a", 1),), 7)
    others = {Run((("a", 1),), 8).key(b"s"), Run((("a", 2),), 7).key(b"s"), run.key(b"t")}
    assert run.key(b"s") == run.key(b"s")
    assert run.key(b"s") not in others
    assert len(others) == 3
