"""`plimsoll snapshot`: what the ledger kept is listed, written, and decides the same again."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.plan import Context
from console.main import app
from controller.config import OperatorConfig
from controller.ledger.ledger import Ledger
from controller.records import Recorder
from policies.planner import PlannerStates, run_planner
from tests.policies.builders import NOW, a_cluster


def type_(*words: str) -> tuple[int, str, str]:
    told = CliRunner().invoke(app, list(words), env={"COLUMNS": "400"})
    return told.exit_code, told.stdout, " ".join(told.stderr.split())


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A ledger with the records of two planner runs."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(str(path), now=lambda: NOW)
    snapshot = (
        a_cluster()
        .with_pool("west", "A100-80")
        .with_nodes(2, "west")
        .with_service("shop/chat", floor_units=1)
        .build()
    )
    recorder, config = Recorder(ledger, 8), OperatorConfig()
    policies = {loop: (choice.name, choice.config) for loop, choice in config.policies.items()}
    for tick in (1, 2):
        context = Context(
            now_seconds=NOW + tick,
            tick=tick,
            epoch=3,
            seed=1,
            loop="planner",
            units=10**9,
            scratch={},
        )
        run = run_planner(snapshot, PlannerStates(), context, policies)
        assert recorder.keep(snapshot, PlannerStates(), context, run, config)
    ledger.close()
    return path


def test_what_was_kept_is_listed_newest_first(kept: Path) -> None:
    assert type_("snapshot", "--ledger", str(kept)) == (0, "3/planner/2\n3/planner/1\n", "")


@pytest.mark.parametrize(
    ("words", "tick"), [((), 2), (("--plan", "3/planner/1"), 1)], ids=["the newest", "by name"]
)
def test_a_record_is_written_and_decides_the_same_again(
    words: tuple[str, ...], tick: int, kept: Path, tmp_path: Path
) -> None:
    out = tmp_path / "snapshot.json"
    code, _, err = type_("snapshot", "--ledger", str(kept), "--out", str(out), *words)
    assert code == 0, err
    assert "2 nodes, 1 services, 0 jobs" in err
    code, told, err = type_("plan", "--snapshot", str(out), "-o", "json")
    assert code == 0, told[:2_000]
    assert '"same":true' in told
    assert f'"tick":{tick}' in out.read_text()


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        pytest.param(("--plan", "newest"), 2, "'newest' names no plan", id="no name of a plan"),
        pytest.param(("--plan", "9/planner/1"), 1, "No record 9/planner/1", id="a plan that was not kept"),
    ],
)
def test_a_record_that_is_not_there_is_said(
    words: tuple[str, ...], code: int, sentence: str, kept: Path, tmp_path: Path
) -> None:
    out = tmp_path / "snapshot.json"
    found, _, err = type_("snapshot", "--ledger", str(kept), "--out", str(out), *words)
    assert found == code
    assert sentence in err
    assert not out.exists()


def test_a_place_that_cannot_be_written_and_a_ledger_that_is_not_there_are_said(
    kept: Path, tmp_path: Path
) -> None:
    code, _, err = type_("snapshot", "--ledger", str(kept), "--out", str(tmp_path / "no" / "such" / "folder"))
    assert (code, "Give a path that can be written" in err) == (2, True)
    code, _, err = type_("snapshot", "--ledger", str(tmp_path / "none.db"))
    assert (code, "no such ledger" in err) == (2, True)


def test_an_empty_ledger_has_none(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    Ledger(str(path), now=lambda: NOW).close()
    assert type_("snapshot", "--ledger", str(path))[0] == 1
