"""Machine code for the modules in which the time goes, where somebody has compiled them: the same source, run faster.

`make compiled` (`tools/compile_physics.py`) compiles `MODULES` with mypyc into a folder of the user's cache that is named
after their text and this interpreter. So machine code is never older than its source: a changed line, another Python or no compiler
mean that the modules are interpreted, with the same results to the last bit (`tests/physics/test_compiled.py`).

`PLIMSOLL_PHYSICS=interpreted` in the environment switches it off; the tests do, since they look inside.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

MODULES: Final = tuple(
    f"simulator.physics.{name}"
    for name in ("batch", "engine", "handing", "kv", "prefill_first", "prefix", "sequence", "stepcost")
)
"""What is compiled, as one: calls among them are calls of C."""
GROUP: Final = "plimsoll_physics"
"""Name of the shared library behind them; mypyc adds `__mypyc`."""
SWITCH: Final = "PLIMSOLL_PHYSICS"
SUFFIX: Final = EXTENSION_SUFFIXES[0]


def sources() -> list[Path]:
    """The files of `MODULES`, in their order."""
    above = Path(__file__).parent.parent
    return [above / f"{name.replace('.', '/')}.py" for name in MODULES]


def folder() -> Path:
    """Where the machine code of the present sources belongs, whether or not it is there.

    OSError without the sources, RuntimeError without a home.
    """
    hasher = hashlib.blake2b(f"{sys.version}{SUFFIX}".encode(), digest_size=8)
    for path in sources():
        hasher.update(path.read_bytes())
    above = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(above) / "plimsoll" / "physics" / hasher.hexdigest()


def place(name: str) -> str:
    """The file of a compiled module, below `folder`."""
    return f"{name.replace('.', '/')}{SUFFIX}"


class Finder(MetaPathFinder):
    """Finds the compiled modules in their folder, before anybody looks for their sources."""

    def __init__(self, made: Path) -> None:
        """`made` is a folder that `tools/compile_physics.py` has filled."""
        self._files = {name: made / place(name) for name in (*MODULES, f"{GROUP}__mypyc")}

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The machine code of one of the modules; None for all others."""
        found = self._files.get(fullname)
        return None if found is None else spec_from_file_location(fullname, found)


def switch_on() -> None:
    """Let the modules be found compiled from now on, if they have been and nobody has switched it off."""
    if os.environ.get(SWITCH) == "interpreted":
        return
    try:
        made = folder()
        if not (made / place(f"{GROUP}__mypyc")).exists():
            return
    except (OSError, RuntimeError):
        return  # no sources to name it after, or no home to look in
    finder = Finder(made)
    sys.meta_path.insert(0, finder)
    if not _loads(f"{GROUP}__mypyc"):
        sys.meta_path.remove(finder)  # made on another machine that shares this cache


def _loads(library: str) -> bool:
    try:
        import_module(library)
    except ImportError:
        return False
    return True


def in_use() -> bool:
    """Whether the engine of this process is machine code."""
    engine = sys.modules.get("simulator.physics.engine")
    return engine is not None and str(engine.__file__).endswith(SUFFIX)
