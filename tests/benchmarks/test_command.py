"""The command line of the figures: table, JSON line last, and errors that say what to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import hub, place, report
from benchmarks.base import Arguments, BenchmarkError, Plot, Result, Row, at_most

RESULT = Result(
    rows=(Row("requests", "12"), at_most("gap", 0.5, 0.1), at_most("time", 3.0, 10.0, "ms")),
    figures={"requests": 12, "gap": 0.5, "time_ms": 3.0, "note": None},
    plots=(
        Plot(name="gap", title="Gap", x_label="row", y_label="gap", series={"all": ((1.0, 0.5), (2.0, 0.1))}),
    ),
    remark="A made-up result.",
)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[Arguments]:
    """A registry of one benchmark that returns `RESULT`, and one whose data is missing."""
    seen: list[Arguments] = []

    def run(args: Arguments) -> Result:
        seen.append(args)
        return RESULT

    def missing(args: Arguments) -> Result:
        raise BenchmarkError("No reference table in /nowhere: give its folder with --data.")

    for name, each in {"good": run, "dry": missing}.items():
        module = ModuleType(f"figures_{name}")
        module.run = each  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    registry = {"good": ("figures_good", "a good one"), "dry": ("figures_dry", "a dry one")}
    monkeypatch.setattr(command, "BENCHMARKS", registry)
    monkeypatch.setattr(report, "BENCHMARKS", registry)
    return seen


def test_the_json_line_is_last_and_alone(fake: list[Arguments], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["good", "--data", "/some/where", "--seed", "7"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert json.loads(printed[-1]) == {"requests": 12, "gap": 0.5, "time_ms": 3.0, "note": None}
    assert any("missed" in line and "gap" in line for line in printed)
    assert any("met" in line and "≤ 10 ms" in line for line in printed)
    assert fake == [Arguments(data=Path("/some/where"), seed=7, one_seed=True)]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        pytest.param("nothing", "There is no benchmark 'nothing'; choose one of dry, good.", id="unknown"),
        pytest.param("dry", "No reference table in /nowhere", id="no data"),
    ],
)
def test_what_cannot_run_says_why(
    fake: list[Arguments], name: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([name]) == 2
    assert sentence in capsys.readouterr().err


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "BENCHMARKS", {"odd": ("benchmarks.no_such_module", "")})
    with pytest.raises(BenchmarkError, match=r"needs the module 'benchmarks\.no_such_module'"):
        command.load("odd")


def test_the_report_keeps_what_could_not_be_measured_again(
    fake: list[Arguments], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "draw", lambda plot, folder: f"{plot.name}.svg")
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\n## good\n\nold figures\n\n## dry\n\nfigures of last week\n")
    report.write(Arguments(), tmp_path, Console(file=(tmp_path / "out").open("w")))
    text = page.read_text()
    assert "old figures" not in text
    assert "| gap | 0.5 | ≤ 0.1 | **missed** |" in text
    assert "figures of last week" in text
    assert text.index("## good") < text.index("## dry")
    assert "![Gap](images/gap.svg)" in text


@pytest.mark.slow  # matplotlib takes seconds to import on a cold machine
def test_the_same_plot_is_the_same_file(tmp_path: Path) -> None:
    drawn = [(tmp_path / report.draw(RESULT.plots[0], tmp_path)).read_bytes() for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert b"<svg" in drawn[0]


def test_list_names_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["list"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} >= {"hub", "decide", "mix"}


@pytest.mark.slow
def test_the_hub_benchmark_runs_small() -> None:
    result = hub.run(Arguments(quick=True))
    assert list(result.figures) == [
        "connections", "reports_per_s", "sent", "acked", "p50_command_ms", "p99_command_ms", "cpu_share",
        "rss_mb", "connect_s", "reconnect_s",
    ]  # fmt: skip
    assert result.figures["connections"] == 50
    assert result.figures["sent"] == result.figures["acked"] == 200


def test_place_compares_medians_and_names_both_goals() -> None:
    ours = [
        place.Run([0.5, seconds], scheduler, 4.0)
        for seconds, scheduler in ((2.0, 1.0), (4.0, 2.0), (8.0, 9.0))
    ]
    stock = [place.Run([0.5, 4.0], 5.0, 0.0)] * 3
    result = place.judge({place.OURS: ours, place.STOCK: stock}, place.Size(1, 2, 1, 3))
    assert result.figures["pods_per_s"] == 0.5
    assert result.figures["scheduler_cpu_s"] == 2.0
    goals = {row.name: row.met for row in result.rows if row.goal}
    assert goals == {
        "rate, operator to stock": True,
        "scheduler's processor time, operator to stock": True,
    }
    slow = place.judge({place.OURS: [place.Run([9.0], 3.0, 1.0)], place.STOCK: stock}, place.Size(1, 2, 1, 1))
    assert [row.met for row in slow.rows if row.goal] == [False, False]


@pytest.mark.slow
def test_place_binds_every_pod_on_a_real_control_plane() -> None:
    figures = place.run(Arguments(quick=True)).figures
    assert figures["pods"] == 60
    assert figures["pods_per_s"] > 0  # type: ignore[operator]
    assert figures["stock_pods_per_s"] > 0  # type: ignore[operator]
