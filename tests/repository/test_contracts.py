"""The arrows between rooms: the contracts hold, cover every room, and catch what they are there to catch."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository.tree import ROOMS, ROOT, pyproject

CONTRACTS = pyproject()["tool"]["importlinter"]["contracts"]
LINT = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]


def test_the_contracts_hold():
    told = subprocess.run(LINT, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout


def test_every_room_is_under_contract_checked_and_shipped():
    settings = pyproject()["tool"]
    assert sorted(settings["importlinter"]["root_packages"]) == sorted(ROOMS)
    assert set(ROOMS) <= set(settings["mypy"]["files"])
    assert set(settings["hatch"]["build"]["targets"]["wheel"]["packages"]) == {*ROOMS, "wire"}
    for room in ROOMS:
        assert (ROOT / room / "py.typed").is_file(), (
            f"{room}/py.typed is missing: users would lose its types."
        )


def test_every_top_level_package_is_a_room():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"wire"}
    assert packages - {"benchmarks", "tests", "tools"} == set(ROOMS)


def house(tmp_path: Path) -> Path:
    """Builds an empty house with every module that a contract names, under the real contracts."""
    text = (ROOT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text[text.index("[tool.importlinter]") :])
    sources = {name for contract in CONTRACTS for name in contract.get("source_modules", [])}
    layers = {
        part.strip()
        for contract in CONTRACTS
        for row in contract.get("layers", [])
        for part in row.split("|")
    }
    forbidden = {name for contract in CONTRACTS for name in contract.get("forbidden_modules", [])}
    ours = {name for name in sources | layers | forbidden if name.split(".")[0] in ROOMS}
    for name in ours | {"agent.node", "policies.dispatch", "policies.power"}:
        folder = tmp_path
        for part in name.split("."):
            folder /= part
            folder.mkdir(exist_ok=True)
            (folder / "__init__.py").touch()
    return tmp_path


PLANTED = [
    pytest.param("placement", "import policies", "placement imports cluster", id="placement asks a policy"),
    pytest.param("cluster", "import runtime", "cluster imports nothing", id="a noun opens a connection"),
    pytest.param("policies", "import controller", "Arrows point down", id="a policy calls the operator"),
    pytest.param("policies.power", "import time", "A decision reads no", id="a policy reads the clock"),
    pytest.param(
        "simulator.physics", "import random", "A decision reads no", id="physics throws its own dice"
    ),
    pytest.param("forecasting", "import sqlalchemy", "A decision reads no", id="a forecast reads the ledger"),
    pytest.param("cluster", "import asyncio", "A decision reads no", id="a noun waits"),
    pytest.param(
        "agent.node", "import simulator.physics", "agent imports", id="an agent knows it is simulated"
    ),
    pytest.param("agent.node", "import highspy", "A node agent", id="an agent solves"),
    pytest.param("agent.node", "import kubernetes", "A node agent", id="an agent asks the API server"),
    pytest.param("gateway", "import policies.power", "gateway imports", id="a gateway decides on power"),
    pytest.param(
        "controller", "import simulator.fleet", "controller imports", id="the operator knows its fleet"
    ),
    pytest.param(
        "controller", "import gateway", "controller imports", id="the operator reaches into the gateway"
    ),
    pytest.param(
        "simulator.fleet",
        "import controller.store.embedded",
        "simulator.fleet imports",
        id="kubelet knows its store",
    ),
    pytest.param("runtime", "import cluster", "runtime imports nothing", id="the runtime learns about GPUs"),
    pytest.param(
        "controller.store.interface", "import grpc", "The store's interface", id="the seam takes sides"
    ),
]


@pytest.mark.parametrize(("where", "planted", "contract"), PLANTED)
def test_a_planted_import_breaks_its_contract(tmp_path: Path, where: str, planted: str, contract: str):
    root = house(tmp_path)
    (root / Path(*where.split(".")) / "planted.py").write_text(planted + "\n")
    if where == "controller.store.interface":
        (root / "controller/store/interface/__init__.py").write_text(planted + "\n")
    told = subprocess.run(LINT, cwd=root, capture_output=True, text=True, check=False)
    broken = told.stdout.partition("Broken contracts")[2]
    assert told.returncode != 0
    assert contract in broken, told.stdout


def test_an_empty_house_keeps_every_contract(tmp_path: Path):
    root = house(tmp_path)
    (root / "gateway" / "core.py").write_text("from policies import dispatch\nimport policies.dispatch\n")
    (root / "simulator/fleet/kubelet.py").write_text("from controller.store import interface\n")
    told = subprocess.run(LINT, cwd=root, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout
