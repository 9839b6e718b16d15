"""The two commands of the README, and what set-up does on a machine without the Python it needs."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.repository.tree import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
OLD_PYTHON = '#!/bin/sh\ncase "$1" in --version) echo Python 3.9.2;; *) exit 1;; esac\n'


def test_the_first_two_targets_are_the_two_commands_of_the_readme():
    targets = re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)
    assert targets[:2] == ["demo", "test"]
    commands = re.findall(r"^ {4}make (\w+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands[:2] == ["demo", "test"]


def test_ci_runs_the_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "make test" in script
    assert "CI=true" in script


@pytest.mark.parametrize("status", [0, 2])
def test_ci_ends_on_the_closing_line_of_pytest_and_with_the_status_of_make(tmp_path: Path, status: int):
    closing = "==== 3 passed in 1.00s ===="
    lines = f"echo a test; echo '{closing}'; echo 'make: *** [Makefile:19: test] Error 1' >&2; exit {status}"
    (tmp_path / "make").write_text(f"#!/bin/sh\n{lines}\n")
    (tmp_path / "make").chmod(0o755)
    told = subprocess.run(
        [str(ROOT / ".ci" / "run")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == status
    assert told.stdout.splitlines() == ["a test", closing]
    assert not told.stderr


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A folder of commands that holds what set-up itself uses, and no Python."""
    for name in ("bash", "cat", "env", "apt-get", "touch"):
        if found := shutil.which(name):
            (tmp_path / name).symlink_to(found)
    if not (tmp_path / "apt-get").exists():
        (tmp_path / "apt-get").symlink_to("/bin/true")
    return tmp_path


@pytest.mark.parametrize(
    ("python", "told_of"),
    [
        pytest.param(None, "no python3", id="no Python at all"),
        pytest.param(OLD_PYTHON, "Python 3.9.2 without venv", id="a Python that is too old"),
    ],
)
def test_set_up_says_what_to_type_where_python_is_missing(
    bare_machine: Path, python: str | None, told_of: str
):
    if python:
        (bare_machine / "python3").write_text(python)
        (bare_machine / "python3").chmod(0o755)
    venv = bare_machine / "venv"
    told = subprocess.run(
        [str(bare_machine / "bash"), str(ROOT / "tools" / "setup_venv.sh"), str(venv)],
        env={"PATH": str(bare_machine)}, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 1
    assert f"this machine has {told_of}." in told.stderr
    assert "apt-get install -y python3 python3-venv" in told.stderr
    assert not venv.exists()


@pytest.mark.parametrize(
    ("variables", "arguments"),
    [
        pytest.param([], "demo --out out", id="plain"),
        pytest.param(
            ["TRACE=a b.csv", "SEED=7", "OUT=x"], "demo --trace a b.csv --seed 7 --out x", id="every variable"
        ),
    ],
)
def test_make_demo_hands_its_variables_on(variables: list[str], arguments: str):
    told = subprocess.run(
        ["make", "-n", "demo", *variables], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert " ".join(told[-1].replace('"', "").split()) == f".venv/bin/plimsoll {arguments}"


def test_every_target_is_listed_by_help():
    told = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in (
        "demo",
        "test",
        "test-all",
        "lint",
        "type",
        "bench",
        "mutants",
        "control-plane",
        "cluster",
        "clean",
        "help",
    ):
        assert re.search(rf"^ +make {target} +\w", told, re.MULTILINE), f"make help says nothing of {target}"
