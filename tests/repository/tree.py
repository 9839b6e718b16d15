"""The source tree as git would commit it, for the tests of the repository itself."""

import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

ROOMS = (
    "agent",
    "cluster",
    "console",
    "controller",
    "forecasting",
    "gateway",
    "placement",
    "policies",
    "runtime",
    "simulator",
)

# Folders made by set-up and by running things; what matters where there is no git (an unpacked archive).
MADE = {".git", ".venv", "wire", "mutants", "build", "dist", "out", "__pycache__", ".hypothesis"}


@cache
def files() -> tuple[Path, ...]:
    """Every file git holds or would hold, relative to the root; without git, every file not made by us."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode == 0:
        names = [Path(name) for name in listed.stdout.decode().split("\0") if name]
    else:
        names = [path.relative_to(ROOT) for path in ROOT.rglob("*")]
        names = [name for name in names if not MADE & set(name.parts) and not name.parts[0].startswith(".")]
    return tuple(sorted(name for name in names if (ROOT / name).is_file()))


@cache
def python_files() -> tuple[Path, ...]:
    """Every Python file of the tree, tests and tools included."""
    return tuple(name for name in files() if name.suffix == ".py")


@cache
def pyproject() -> dict[str, Any]:
    """The parsed pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())
