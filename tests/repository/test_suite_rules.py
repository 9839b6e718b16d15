"""The rules of the suite itself, tried on small suites: a skip without a reason fails the run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository.tree import ROOT

pytest_plugins = ["pytester"]

CASES = [
    pytest.param("@pytest.mark.skip\ndef test_a(): pass", 1, id="a bare mark"),
    pytest.param("@pytest.mark.skip()\ndef test_a(): pass", 1, id="an empty mark"),
    pytest.param("@pytest.mark.skip(reason='')\ndef test_a(): pass", 1, id="an empty reason"),
    pytest.param("def test_a(): pytest.skip()", 1, id="a bare call"),
    pytest.param("pytest.skip(allow_module_level=True)", 1, id="a whole module"),
    pytest.param(
        "def test_b(): pass\n@pytest.mark.skip\ndef test_a(): pass", 1, id="one among passing tests"
    ),
    pytest.param("@pytest.mark.skip(reason='no GPU here')\ndef test_a(): pass", 0, id="a mark with a reason"),
    pytest.param("def test_a(): pytest.skip('no GPU here')", 0, id="a call with a reason"),
    pytest.param(
        "pytest.importorskip('no_such_module')\ndef test_a(): pass", 0, id="a module that is not here"
    ),
    pytest.param("@pytest.mark.xfail(reason='known')\ndef test_a(): assert 0", 0, id="an expected failure"),
    pytest.param("def test_a(): assert 0", 1, id="a plain failure"),
]


def suite(folder: Path, body: str) -> None:
    """A small suite under the rules of the real one: one passing module, and one with `body`."""
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "conftest.py")
    (folder / "test_it.py").write_text(f"import pytest\n\n{body}\n")
    (folder / "test_other.py").write_text("def test_other(): pass\n")


@pytest.mark.parametrize(("body", "status"), CASES)
def test_a_skip_states_its_reason(pytester: pytest.Pytester, body: str, status: int):
    suite(pytester.path, body)
    told = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert told.ret == status
    explained = "assert 0" in body or not status
    assert ("skipped without a reason" in told.stdout.str()) != explained


@pytest.mark.parametrize(
    ("reason", "status"), [("", 1), ("no GPU here", 0)], ids=["without", "with a reason"]
)
def test_a_skip_in_another_process_states_its_reason(tmp_path: Path, reason: str, status: int):
    suite(tmp_path, f"def test_a(): pytest.skip({reason!r})")
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "/dev/null", "-p", "no:cacheprovider", "-n", "1", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert told.returncode == status, told.stdout
    assert ("skipped without a reason" in told.stdout) == bool(status)
