"""Rooms of decisions and physics read no clock, no global randomness, no environment and no file.

import-linter sees imports; this walks the syntax for what comes without one, or with an innocent one.
"""

import ast
from pathlib import Path

import pytest

from tests.repository.tree import ROOT, python_files

PURE = ("cluster", "forecasting", "placement", "policies", "simulator/physics")

MODULES = {
    "asyncio", "fileinput", "glob", "io", "logging", "multiprocessing", "os", "pathlib", "random", "secrets",
    "shutil", "signal", "socket", "subprocess", "sys", "tempfile", "threading", "time", "urllib", "uuid",
}  # fmt: skip
CALLS = {
    "hash": "differs from one process to the next; use cluster's stable hash",
    "id": "differs from one run to the next",
    "input": "reads a terminal",
    "open": "reads a file",
    "print": "writes to a terminal",
}
CLOCKS = {"now", "utcnow", "today"}
INJECTED = {"BitGenerator", "Generator", "PCG64", "Philox", "SeedSequence", "default_rng"}
NUMPY = ("np.random", "numpy.random")


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain, or an empty string."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def called(node: ast.Call) -> str:
    """What is wrong with a call, or an empty string."""
    name = dotted(node.func)
    if name in CALLS:
        return f"{name}() {CALLS[name]}"
    parts = name.split(".")
    if parts[-1] in CLOCKS and {"datetime", "date"} & set(parts[:-1]):
        return f"{name}() reads the clock"
    if parts[-1] == "default_rng" and not node.args and not node.keywords:
        return f"{name}() without a seed draws one from the system"
    return ""


def impurities(source: str) -> list[str]:
    """Each forbidden thing in a module, as `line: what`."""
    found = []
    tree = ast.parse(source)
    dunder = {
        inner
        for node in ast.walk(tree)
        if getattr(node, "name", "") == "__hash__"
        for inner in ast.walk(node)
    }
    for node in set(ast.walk(tree)) - dunder:
        wrong = [f"imports {name}" for name in imported(node) if name.split(".")[0] in MODULES]
        if isinstance(node, ast.Call) and (what := called(node)):
            wrong.append(what)
        if isinstance(node, ast.Attribute) and dotted(node.value) in NUMPY and node.attr not in INJECTED:
            wrong.append(f"{dotted(node)} is global randomness")
        found += [f"{getattr(node, 'lineno', 0)}: {what}" for what in wrong]
    return sorted(found)


@pytest.mark.parametrize("room", PURE)
def test_a_pure_room_is_pure(room: str):
    modules = [name for name in python_files() if name.is_relative_to(room)]
    assert modules, f"{room}/ holds no module: the test looks in the wrong place."
    found = [f"{name}:{what}" for name in modules for what in impurities((ROOT / name).read_text())]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("import time", id="imports the clock"),
        pytest.param("def f():\n    from os import environ", id="imports the environment inside a function"),
        pytest.param("import datetime\nnow = datetime.datetime.now()", id="asks for the date"),
        pytest.param(
            "from datetime import datetime\nx = datetime.utcnow()", id="asks for the date, imported"
        ),
        pytest.param("import numpy as np\nx = np.random.uniform()", id="draws from numpy's global generator"),
        pytest.param("import numpy as np\nnp.random.seed(1)", id="seeds numpy's global generator"),
        pytest.param("import numpy as np\nx = np.random.default_rng()", id="takes a seed from the system"),
        pytest.param("x = hash('a')", id="depends on PYTHONHASHSEED"),
        pytest.param("with open('x') as f:\n    pass", id="opens a file"),
        pytest.param("from pathlib import Path", id="imports paths"),
    ],
)
def test_an_impure_module_is_caught(source: str):
    assert impurities(source)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("import numpy as np\nx = np.random.default_rng(7)", id="a generator with a seed"),
        pytest.param(
            "import numpy as np\ndef f(r: np.random.Generator): return r.random()", id="an injected one"
        ),
        pytest.param(
            "import datetime\nx = datetime.datetime.fromtimestamp(0, datetime.UTC)", id="a date of data"
        ),
        pytest.param(
            "class A:\n    def __hash__(self): return hash(1)", id="a hash for mappings of this process"
        ),
        pytest.param("def f(clock): return clock.now()", id="an injected clock"),
    ],
)
def test_a_pure_module_is_let_through(source: str):
    assert not impurities(source)


def test_the_walk_sees_every_file_of_the_rooms():
    on_disk = {path.relative_to(ROOT) for room in PURE for path in (ROOT / room).rglob("*.py")}
    assert on_disk - set(python_files()) == set(), (
        "these are ignored by git: they would be missing in a clone"
    )
    assert Path("cluster/__init__.py") in on_disk
