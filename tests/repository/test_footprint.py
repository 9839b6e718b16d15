"""What each role installs and imports: a node agent and a gateway stay small."""

import importlib.metadata
import json
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.repository.tree import ROOT, pyproject

HEAVY = {
    "torch",
    "ray",
    "highspy",
    "scipy",
    "sqlalchemy",
    "alembic",
    "matplotlib",
    "kubernetes",
    "lightgbm",
    "pyro-ppl",
}
MODULES_OF_HEAVY = {"torch", "ray", "highspy", "scipy", "sqlalchemy", "alembic", "matplotlib", "kubernetes"}


def installed_by(requirement: str) -> set[str]:
    """Names of every distribution that installing `requirement` brings in, from the metadata of what is here."""
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(requirement)]
    while todo:
        wanted = todo.pop()
        for extra in {"", *wanted.extras}:
            key = (canonicalize_name(wanted.name), extra)
            if key in seen:
                continue
            seen.add(key)
            for line in importlib.metadata.requires(wanted.name) or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    todo.append(needed)
    return {name for name, _ in seen}


@pytest.mark.parametrize("role", ["agent", "gateway"])
def test_a_role_on_the_nodes_installs_nothing_heavy(role: str):
    brought = installed_by(f"plimsoll[{role}]")
    assert {"plimsoll", "grpcio", "numpy", "cryptography"} <= brought
    assert not brought & HEAVY


def test_the_operator_brings_its_solver_and_ledger_but_no_learning_framework():
    brought = installed_by("plimsoll[operator]")
    assert {"highspy", "sqlalchemy", "alembic", "prometheus-client"} <= brought
    assert not brought & {"torch", "ray"}


def test_the_metadata_read_here_is_that_of_this_tree():
    declared = {Requirement(line).name for line in pyproject()["project"]["dependencies"]}
    told = {Requirement(line) for line in importlib.metadata.requires("plimsoll") or []}
    assert declared == {line.name for line in told if line.marker is None}, "run `make setup`"


IMPORT_ALL = """
import importlib, json, pathlib, sys
root = pathlib.Path(sys.argv[1])
for path in sorted(root.glob(sys.argv[2] + "/**/*.py")):
    name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize("room", ["agent/node", "agent/engine", "gateway", "runtime", "cluster"])
def test_importing_a_room_on_the_nodes_loads_nothing_heavy(room: str):
    told = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(ROOT), room],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert told.returncode == 0, told.stderr
    loaded = set(json.loads(told.stdout))
    assert room.partition("/")[0] in loaded
    assert not loaded & MODULES_OF_HEAVY


def test_each_dependency_says_why_in_a_word():
    text = (ROOT / "pyproject.toml").read_text()
    section = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    lines = [line for line in section.splitlines() if re.match(r'\s+"', line)]
    assert len(lines) > 20
    assert not [line for line in lines if not re.search(r"#\s*\w+", line)]
