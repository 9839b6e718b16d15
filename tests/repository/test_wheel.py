"""What a wheel carries: every room, the contracts' modules, the migrations, the facts and the demo's manifests."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.repository.tree import ROOMS, ROOT, files, pyproject

BESIDE = """
import sys
sys.path.insert(0, sys.argv[1])
from console.demo.shipped import examples
from controller.ledger.migrate import MIGRATIONS, head
from controller.resources import manifests
from placement.catalogue import load
from wire import agent_pb2
import console
print(console.__file__, examples(), len(manifests.load(examples())), head(), len(load().products), agent_pb2.__file__, sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, made by its own build hook with the builder that is installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    told = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout + told.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_every_file_of_a_room_and_every_example_is_in_the_wheel(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    rooms = {name for name in files() if name.parts[0] in ROOMS}
    assert {str(name) for name in rooms} - names == set()
    examples = {name for name in files() if name.parts[0] == "examples"}
    assert examples
    assert {f"console/{name}" for name in examples} - names == set()
    contracts = {name.stem for name in files() if name.suffix == ".proto"}
    assert {f"wire/{name}_pb2.py" for name in contracts} - names == set()


def test_nothing_else_is_in_the_wheel(wheel: Path):
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    project = pyproject()["project"]
    assert tops == {*ROOMS, "wire", f"plimsoll-{project['version']}.dist-info"}


def test_an_unpacked_wheel_finds_its_examples_facts_and_migrations_beside_it(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    told = subprocess.run(
        [sys.executable, "-c", BESIDE, str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    where, examples, count, revision, products, wire = told.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert Path(wire).is_relative_to(tmp_path)
    assert Path(examples) == tmp_path / "console" / "examples" / "demo"
    assert int(count) > 5
    assert int(products) > 5
    assert revision
