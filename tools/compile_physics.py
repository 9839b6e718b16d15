"""Compiles the modules of the physics in which the time goes to machine code: `make compiled`.

mypyc makes C of the annotated Python, any C compiler the rest; `simulator/compiled.py` finds the result for as long as the
sources stay as they are. Without a compiler nothing is lost but speed. Floating point is kept as Python has it: no fused
multiply-add, no reordering, so that results are the same to the last bit.

Run as `python tools/compile_physics.py`. Exit status: 0 compiled, or there already; 1 could not, with a sentence.
"""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXACT = ("-ffp-contract=off", "-Wno-error")  # and no compiler's new warning in C that mypyc made is a fault
KEPT_SECONDS = 30 * 86_400.0


def build(into: Path) -> None:
    """Compile into a folder. Raises: whatever mypyc and setuptools raise where there is no compiler."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    from simulator import compiled

    os.chdir(ROOT)  # mypyc names modules by their path from here
    paths = [str(path.relative_to(ROOT)) for path in compiled.sources()]
    options = [f"--cache-dir={into / 'types'}", "--follow-imports=silent", *paths]
    extensions = mypycify(
        options,
        opt_level="3",
        debug_level="0",
        group_name=compiled.GROUP,
        target_dir=str(into / "c"),
    )
    for extension in extensions:
        extension.extra_compile_args = [*extension.extra_compile_args, *EXACT]
    command = build_ext(Distribution({"name": compiled.GROUP, "ext_modules": extensions}))
    command.build_lib, command.build_temp = str(into / "lib"), str(into / "objects")
    command.ensure_finalized()
    command.run()


def _forget_old(cache: Path) -> None:
    """Machine code of sources that nobody has compiled for a month; another checkout may still use the rest."""
    for other in cache.iterdir():
        if other.stat().st_mtime < time.time() - KEPT_SECONDS:
            shutil.rmtree(other, ignore_errors=True)


def main() -> int:
    """Compile unless it has been done; what is half done never stands where it would be found."""
    sys.path.insert(0, str(ROOT))
    os.environ["PLIMSOLL_PHYSICS"] = "interpreted"  # the sources are what is wanted here
    from simulator import compiled

    made = compiled.folder()
    if made.exists():
        print(f"compiled already: {made}")
        return 0
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=made.parent, prefix="making-") as scratch:
        try:
            build(Path(scratch))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a compiler fails in many ways, and none of them matters
            why = str(error)[:200]
            print(f"could not compile the physics, which is then interpreted: {why}", file=sys.stderr)
            return 1
        _forget_old(made.parent)
        (Path(scratch) / "lib").rename(made)
    print(f"compiled: {made}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
