"""What may stand in the tree: no data, no registry hosts, no paths of one machine; modules of a readable length."""

import ast
import csv
import re
from datetime import date
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.repository.tree import ROOT, files, pyproject, python_files

LONGEST_MODULE = 450
LONGEST_FUNCTION = 40  # lines of its body, docstring apart
LARGEST_FILE_BYTES = 300_000
TEXT = {
    ".py",
    ".md",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
    ".json",
    ".proto",
    ".sh",
    ".cfg",
    ".html",
    ".css",
    ".js",
    "",
}
DATA = {
    ".csv",
    ".tsv",
    ".parquet",
    ".npz",
    ".npy",
    ".gz",
    ".zip",
    ".xz",
    ".zst",
    ".db",
    ".sqlite",
    ".pkl",
    ".whl",
}

# The tables of facts the product reads from its own package: small, each with its source, each price dated.
SHIPPED_FACTS = {f"placement/data/{name}.csv" for name in ("accelerators", "models", "step_constants")} | {
    "simulator/physics/data/gpu_clocks.csv"
}

# Split, so that this file does not contain what it looks for.
HOSTS = ["py" + "pi.org", "python" + "hosted", "anaconda" + ".org", "files." + "python", "artifact" + "ory"]
MACHINE_PATHS = ["/wo" + "rk/", "../sha" + "red/", "/ro" + "ot/", "/hom" + "e/"]


def texts() -> list[tuple[Path, str]]:
    return [(name, (ROOT / name).read_text()) for name in files() if name.suffix in TEXT]


@pytest.mark.parametrize("needle", HOSTS)
def test_no_package_registry_is_named(needle: str):
    assert not [str(name) for name, text in texts() if needle in text.lower()]


@pytest.mark.parametrize("needle", MACHINE_PATHS)
def test_no_path_of_one_machine_is_named(needle: str):
    assert not [str(name) for name, text in texts() if needle in text]


def test_no_data_is_kept_here():
    data = {str(name) for name in files() if name.suffix in DATA and name.parts[0] != "tests"}
    large = [str(name) for name in files() if (ROOT / name).stat().st_size > LARGEST_FILE_BYTES]
    assert data - SHIPPED_FACTS == set(), "data sets stay outside; facts that ship are named in SHIPPED_FACTS"
    assert not large


@pytest.mark.parametrize("name", sorted(SHIPPED_FACTS))
def test_facts_that_ship_are_few_and_each_has_its_source_and_its_date(name: str):
    text = (ROOT / name).read_text()
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert 0 < len(rows) <= 100
    assert len(text) < 20_000
    for row in rows:
        assert row["source"].strip(), f"{name}: {row} has no source."
        if "facts_at" in row:
            date.fromisoformat(row["facts_at"])
        if row.get("dollars_per_gpu_hour"):
            date.fromisoformat(row["priced_at"])


def test_nothing_generated_is_committed():
    assert not [str(name) for name in files() if name.parts[0] in {"wire", ".venv", "mutants", "out"}]
    assert not [str(name) for name in files() if "_pb2" in name.name]


def test_modules_are_short_enough_to_read():
    lengths = {str(name): len((ROOT / name).read_text().splitlines()) for name in python_files()}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_MODULE}


@cache
def parsed(name: Path) -> ast.Module:
    return ast.parse((ROOT / name).read_text())


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the last one."""
    first = function.body[0]
    start = (first.end_lineno or 0) + 1 if ast.get_docstring(function) is not None else first.lineno
    return (function.end_lineno or 0) - start + 1


def functions(name: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        node for node in ast.walk(parsed(name)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_functions_are_short_enough_to_read():
    ours = [(name, node) for name in python_files() if name.parts[0] != "tests" for node in functions(name)]
    assert len(ours) > 100
    long = [f"{name}:{node.lineno} {node.name}: {body_lines(node)} lines" for name, node in ours
            if body_lines(node) > LONGEST_FUNCTION]  # fmt: skip
    assert not long, "\n".join(long)


def test_every_module_says_what_it_is_for():
    silent = [str(name) for name in python_files() if ast.get_docstring(parsed(name)) is None]
    assert not silent


def pinned() -> dict[str, list[str]]:
    """Versions that constraints.txt gives each name."""
    versions: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"([a-z0-9-]+)==([0-9][\w.]*)( ; .+)?", line)
        assert match, f"constraints.txt: {line!r} is no exact version of a package."
        versions.setdefault(match[1], []).append(match[2])
    return versions


def declared() -> list[Requirement]:
    project = pyproject()["project"]
    lines = [*project["dependencies"], *pyproject()["build-system"]["requires"]]
    lines += [line for extra in project["optional-dependencies"].values() for line in extra]
    return [requirement for line in lines if (requirement := Requirement(line)).name != "plimsoll"]


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_a_dependency_is_pinned_to_a_version_it_allows(requirement: Requirement):
    versions = pinned()[canonicalize_name(requirement.name)]
    assert all(requirement.specifier.contains(version) for version in versions)


def test_constraints_name_versions_and_nothing_else():
    text = (ROOT / "constraints.txt").read_text()
    assert "//" not in text
    assert "--" not in text
    assert len(pinned()) > 50
