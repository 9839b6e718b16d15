"""Mutation testing of the decision core: how many small faults, planted one at a time, do the tests notice?

mutmut plants the faults in a copy of the tree and runs, for each, those tests of decisions and physics that reach the
changed function. All of them would take hours, so a seeded sample is drawn. Printed are a table by room, the survivors
with their change, the kill rate of the sample with its standard error, and one JSON line.

    python tools/mutants.py [--sample N] [--seed N] [--goal RATE] [ROOM ...]
"""

import argparse
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "mutants"  # a copy of the tree; mutmut plants its faults in a second copy inside it
CORE = ("cluster", "forecasting", "placement", "policies", "simulator/physics")
WORLD = re.compile(
    r"^\s*(?:from|import) (?:agent|console|controller|gateway|grpc|runtime|simulator\.fleet|wire)\b",
    re.MULTILINE,
)

GENERATE = """
import os
from mutmut.__main__ import create_mutants
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir
set_mutant_under_test("mutant_generation")
os.mkdir("mutants")
copy_src_dir()
copy_also_copy_files()
create_mutants(os.cpu_count() or 1)
"""

SURVIVED, KILLED, TIMEOUT, UNTESTED = "survived", "killed", "timeout", "no test reaches it"
# mutmut's exit codes of the run of one mutant; any other one (a failed import, a crash) was noticed too.
MEANING = {0: SURVIVED, 5: UNTESTED, 33: UNTESTED, 34: SURVIVED, 35: SURVIVED}
MEANING |= dict.fromkeys((24, -24, 36, 152, 255), TIMEOUT)


def main() -> int:
    """Draws, runs and reports; returns 0 when the kill rate reaches the goal, 1 when not, 2 when it cannot run."""
    options = _options()
    print("-- planting faults", flush=True)
    _copy_tree()
    if subprocess.run(
        [sys.executable, "-c", GENERATE], cwd=WORK, stdout=subprocess.DEVNULL, check=False
    ).returncode:
        print("mutants: mutmut could not plant faults; its lines are above.", file=sys.stderr)
        return 2
    prefixes = tuple(f"{room.replace('/', '.')}." for room in options.rooms or CORE)
    known = [name for name in _verdicts() if name.startswith(prefixes)]
    if not known:
        print(f"mutants: nothing to mutate in {options.rooms}: name rooms of {CORE}.", file=sys.stderr)
        return 2
    sample = random.Random(options.seed).sample(sorted(known), min(options.sample, len(known)))
    print(f"-- {len(known)} faults; testing {len(sample)} of them (seed {options.seed})", flush=True)
    ran = subprocess.run(
        [_mutmut(), "run", *_workers(options), *sample], cwd=WORK, env=_environment(), check=False
    )
    verdicts = _verdicts()
    if ran.returncode or any(verdicts[name] is None for name in sample):
        print("mutants: the run did not finish (the tests must pass unmutated); see above.", file=sys.stderr)
        return 2
    return _report({name: verdicts[name] or SURVIVED for name in sample}, options, len(known))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "rooms",
        nargs="*",
        metavar="ROOM",
        help="only faults in these packages, such as policies or placement.selection",
    )
    parser.add_argument("--sample", type=int, default=200, help="faults to test (200)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample (1)")
    parser.add_argument("--goal", type=float, default=0.85, help="kill rate below which this fails (0.85)")
    parser.add_argument("--workers", type=int, default=None, help="faults tested at a time (one a core)")
    return parser.parse_args()


def _copy_tree() -> None:
    """Copies what git holds or would hold, and the generated stubs, and tells mutmut what is what."""
    shutil.rmtree(WORK, ignore_errors=True)
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    told = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    names = [Path(name) for name in told.split("\0") if name] + [path.relative_to(ROOT) for path in _stubs()]
    for name in names:
        if (ROOT / name).is_file():
            (WORK / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, WORK / name)
    beside = sorted({name.parts[0] for name in names} - {*CORE, "tests", "pyproject.toml"})
    tests = sorted(f"tests/{folder.name}" for folder in (WORK / "tests").iterdir() if _is_pure(folder))
    settings = {
        "source_paths": list(CORE),
        "also_copy": beside,
        "pytest_add_cli_args_test_selection": tests,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
    lines += ["use_git_change_detection = false", ""]
    with (WORK / "pyproject.toml").open("a") as file:
        file.write("\n[tool.mutmut]\n" + "\n".join(lines))


def _is_pure(folder: Path) -> bool:
    """True of a folder of tests that start no process, server or database: those of decisions and physics."""
    texts = [path.read_text() for path in folder.glob("**/*.py")] if folder.is_dir() else []
    tested = any(folder.glob("**/test_*.py")) and folder.name != "repository"
    return tested and not any(WORLD.search(text) for text in texts)


def _stubs() -> list[Path]:
    return [path for path in (ROOT / "wire").iterdir() if path.is_file()]


def _mutmut() -> str:
    return str(Path(sys.executable).with_name("mutmut"))


def _workers(options: argparse.Namespace) -> list[str]:
    return [] if options.workers is None else ["--max-children", str(options.workers)]


def _environment() -> dict[str, str]:
    """Fewer random cases a test: a fault that needs fifty of them to be seen is rarely the sampled one."""
    return {**os.environ, "PLIMSOLL_PROPERTIES": "brief", "PYTHONDONTWRITEBYTECODE": "1"}


def _verdicts() -> dict[str, str | None]:
    """What mutmut noted of each fault so far; None where it has not run."""
    found: dict[str, str | None] = {}
    for meta in sorted((WORK / "mutants").rglob("*.py.meta")):
        for name, code in json.loads(meta.read_text())["exit_code_by_key"].items():
            found[name] = None if code is None else MEANING.get(code, KILLED)
    return found


def _report(verdicts: dict[str, str], options: argparse.Namespace, known: int) -> int:
    rooms = sorted({name.split(".", 1)[0] for name in verdicts})
    print(f"\n{'room':<14}{'tested':>8}{'killed':>8}{'timeout':>9}{'survived':>10}{'untested':>10}")
    for room in rooms:
        count = Counter(verdict for name, verdict in verdicts.items() if name.startswith(room + "."))
        print(
            f"{room:<14}{count.total():>8}{count[KILLED]:>8}{count[TIMEOUT]:>9}"
            f"{count[SURVIVED]:>10}{count[UNTESTED]:>10}"
        )
    alive = sorted(name for name, verdict in verdicts.items() if verdict in {SURVIVED, UNTESTED})
    for name in alive:
        shown = subprocess.run(
            [_mutmut(), "show", name], cwd=WORK, capture_output=True, text=True, check=False
        )
        change = [
            line for line in shown.stdout.splitlines() if line[:1] in "+-" and line[:3] not in {"+++", "---"}
        ]
        print(f"\n{verdicts[name]}: {name}\n" + "\n".join(f"    {line}" for line in change))
    rate = 1 - len(alive) / len(verdicts)
    error = math.sqrt(rate * (1 - rate) / len(verdicts))
    print(f"\nkill rate {rate:.1%} ± {error:.1%} of {len(verdicts)} sampled faults (goal {options.goal:.0%})")
    figures = {"kill_rate": rate, "standard_error": error, "tested": len(verdicts), "faults": known}
    print(json.dumps({**figures, "survived": len(alive), "seed": options.seed, "goal": options.goal}))
    return 0 if rate >= options.goal else 1


if __name__ == "__main__":
    sys.exit(main())
