"""`plimsoll simulate`: results, report and what is refused, as its users see them."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from console.main import app

SCENARIO = """
name: two <A10s>
model: llama-2-7b
groups: [{gpu: A10G, count: 2, cost: llama-7b on A10 (Llumnix), dollars_per_gpu_hour: 1.01}]
traffic: {power_law: {input_mean: 128, output_mean: 128, rate: 3.0, requests: 60}}
"""


def type_(*words: str) -> tuple[int, str, str]:
    told = CliRunner().invoke(app, list(words), env={"COLUMNS": "240"})
    return told.exit_code, told.stdout, " ".join(told.stderr.split())


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.yaml"
    path.write_text(SCENARIO)
    return path


class Tags(HTMLParser):
    """Counts tags, and finds what a page would fetch from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.fetched += [
            v for name, v in attrs if name == "src" or (name == "href" and not (v or "").startswith("#"))
        ]  # type: ignore[misc]


def test_a_sweep_ends_in_a_table_results_and_a_report(scenario: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("simulate", "-f", str(scenario), "--seeds", "2", "--out", str(out), "--workers", "2")
    code, told, err = type_(*words, "--sweep", "dispatch.name=round_robin,least_outstanding")
    assert code == 0, err
    assert "round_robin" in told
    assert "least_outstanding" in told
    assert "±" in told
    rows = list(csv.DictReader((out / "results.csv").open()))
    assert [(row["dispatch.name"], row["seed"]) for row in rows] == [
        ("round_robin", "1"), ("round_robin", "2"), ("least_outstanding", "1"), ("least_outstanding", "2"),
    ]  # fmt: skip
    assert all(float(row["completed"]) == 60 for row in rows)
    page = (out / "report.html").read_text()
    tags = Tags(page)
    assert (tags.count["svg"], tags.fetched) == (3, [])
    assert "<h1>two &lt;A10s&gt;</h1>" in page
    assert "2 points, 2 seeds, 4 runs" in page
    assert "plimsoll simulate -f" in page
    assert "rate: 3.0" in page


def test_json_has_means_and_half_widths_and_runs_are_taken_up_again(scenario: Path, tmp_path: Path) -> None:
    words = ("simulate", "-f", str(scenario), "--seeds", "2", "--out", str(tmp_path / "out"), "-o", "json")
    code, told, _ = type_(*words)
    found = json.loads(told)
    assert (code, found["failed"]) == (0, [])
    mean, half_width = found["points"]["as written"]["completed"]
    assert (mean, half_width) == (60, 0)
    kept = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "runs").iterdir()}
    assert type_(*words)[1] == told
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "runs").iterdir()} == kept


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(("--sweep", "groups.0.count=2,-1"), "groups[0].count is -1; it must be a positive finite number (groups.0.count=-1)", id="one bad point"),
        pytest.param(("--sweep", "dispatch.name=fastest"), "dispatch cannot be used", id="no such policy"),
        pytest.param(("--sweep", "count"), "write key=a,b,c", id="no sweep"),
        pytest.param(("--ray", "127.0.0.1:1"), "no Ray cluster at '127.0.0.1:1'", id="no cluster"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_before_any_run(
    words: tuple[str, ...], sentence: str, scenario: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, told, err = type_("simulate", "-f", str(scenario), "--out", str(out), *words)
    assert (code, told) == (2, "")
    assert sentence in err
    assert not list(out.glob("runs/*.json"))


def test_a_file_that_is_not_there_and_a_folder_that_cannot_be_made_are_said(
    scenario: Path, tmp_path: Path
) -> None:
    code, _, err = type_("simulate", "-f", str(tmp_path / "none.yaml"))
    assert (code, "cannot be read" in err) == (2, True)
    code, _, err = type_("simulate", "-f", str(scenario), "--out", str(scenario / "below"))
    assert (code, "Give a folder to write to" in err) == (2, True)


def test_failed_and_partial_runs_are_told_and_end_in_one(scenario: Path, tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n1,50,5\nx,50,5\n")
    scenario.write_text(
        SCENARIO.replace(
            "power_law: {input_mean: 128, output_mean: 128, rate: 3.0, requests: 60}", "trace: {path: t.csv}"
        )
    )
    code, told, _ = type_("simulate", "-f", str(scenario), "--strict", "--out", str(tmp_path / "out"))
    assert code == 1
    assert "t.csv:3: " in told
    assert "Runs that failed" in (tmp_path / "out" / "report.html").read_text()
    scenario.write_text(SCENARIO + "event_budget: 20\n")
    code, told, _ = type_("simulate", "-f", str(scenario), "--out", str(tmp_path / "other"))
    assert code == 1
    assert "partial, the event budget was spent" in told
    assert "1 runs are partial" in (tmp_path / "other" / "report.html").read_text()


def test_power_lines_left_out_and_sources_are_where_a_user_looks(scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n1,50,5\nx,50,5\n9,50,50\n")
    traffic = "power_law: {input_mean: 128, output_mean: 128, rate: 3.0, requests: 60}"
    scenario.write_text(
        SCENARIO.replace(traffic, "trace: {path: t.csv}")
        + "power: {domains: [{name: row, rating_watts: 900}]}\n"
    )
    code, told, err = type_("simulate", "-f", str(scenario), "--out", str(tmp_path / "out"))
    assert code == 0, err
    assert "energy a request" in told
    assert "left out: " in told
    assert "t.csv:3: TIMESTAMP 'x' is no date and time" in "".join(told.split("\n"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert Tags(page).count["svg"] == 4
    for heading in ("Power", "Lines of the trace that were left out", "Where the times and watts come from"):
        assert f"<h2>{heading}</h2>" in page
    assert "peak of the rating, row" in page
    assert "Llumnix (OSDI&#x27;24) fig. 10" in page
