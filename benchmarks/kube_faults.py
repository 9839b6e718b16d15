"""Random fault sequences between the cache and a server that misbehaves: does it ever end different?

Each sequence is a few dozen steps of changes, faults, passing time and looks at the server (`benchmarks.fault_runs`):
production store and cache over real HTTP on loopback, in this one process and event loop, with only the waiting made.
Afterwards everything is calm, and the cache must be equal, follow the next changes, add up to what it told its readers,
and need no list after a compaction. Storms, a fault that lasts for five minutes, are played too: they show how often a
server in trouble is asked to list. `--plant` switches a defect of the cache on, to show that it would be noticed.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from pathlib import Path

import msgspec

from benchmarks.base import Arguments, BenchmarkError, Figure, Result, Row, at_most
from benchmarks.fault_runs import WINDOW_SECONDS, Bench, Outcome
from benchmarks.listwatch import Answer, AnswerKind
from controller.store.cache import SOUND, Defects

RUNS, QUICK_RUNS = 10_000, 100
GOAL_LISTS_PER_SECOND = 1.0

PLANTS = {
    "drop-delete": Defects(drop_delete=True),
    "stale-relist": Defects(stale_relist=True),
    "lost-bookmark": Defects(lose_bookmark=True),
}

STORMS: dict[str, tuple[str, Answer]] = {
    "every watch answers 410": ("watch", Answer(AnswerKind.REFUSE, 410)),
    "every watch says 410 inside": ("watch", Answer(AnswerKind.GONE_INSIDE)),
    "every watch ends at once": ("watch", Answer(AnswerKind.ENDS)),
    "every watch answers 500": ("watch", Answer(AnswerKind.REFUSE, 500)),
    "every list answers 410": ("list", Answer(AnswerKind.REFUSE, 410)),
    "every list answers 429": ("list", Answer(AnswerKind.REFUSE, 429, 1)),
    "every list answers 500": ("list", Answer(AnswerKind.REFUSE, 500)),
    "every list is cut": ("list", Answer(AnswerKind.CUT)),
    "every list is dropped": ("list", Answer(AnswerKind.DROP)),
}
"""Faults that last, by what they are: no kind of trouble may turn into a storm of lists."""


class Measured(msgspec.Struct, frozen=True):
    """What a run found."""

    events: int
    faults: dict[str, int]
    diverged: tuple[Outcome, ...]
    most_lists_per_second: float
    took_seconds: float


def run(args: Arguments) -> Result:
    """Plays and judges. Raises: BenchmarkError for a defect that cannot be planted."""
    runs = args.runs if args.runs is not None else QUICK_RUNS if args.quick else RUNS
    if args.plant not in {"", *PLANTS}:
        raise BenchmarkError(
            f"There is no defect {args.plant!r} to plant; choose one of {', '.join(PLANTS)}."
        )
    if runs < 1:
        raise BenchmarkError(f"--runs {runs} plays nothing: give at least 1.")
    measured = asyncio.run(play(runs, args.seed, PLANTS.get(args.plant, SOUND)))
    return judge(measured, runs, args.plant, args.seed)


async def play(runs: int, seed: int, defects: Defects) -> Measured:
    """All sequences from `seed` on, and all storms."""
    began = time.monotonic()
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # each fault has its line: a hundred thousand of them say nothing
    try:
        with tempfile.TemporaryDirectory(prefix="plimsoll-faults-") as folder:
            bench = await Bench.start(Path(folder))
            try:
                outcomes = [await bench.play(seed * 1_000_000 + index, defects) for index in range(runs)]
                happened = dict(bench.server.happened)
                outcomes += [await bench.storm(verb, answer) for verb, answer in STORMS.values()]
            finally:
                await bench.stop()
    finally:
        logging.disable(before)
    return Measured(
        events=happened.pop("lines"),
        faults={str(kind): count for kind, count in sorted(happened.items())},
        diverged=tuple(each for each in outcomes if each.problem),
        most_lists_per_second=max(each.most_lists_per_second for each in outcomes),
        took_seconds=time.monotonic() - began,
    )


def judge(measured: Measured, runs: int, plant: str, seed: int) -> Result:
    """Rows and figures."""
    divergences = len(measured.diverged)
    wanted = (
        Row("divergences", str(divergences), "≥ 1 (a defect is planted)", divergences > 0)
        if plant
        else (Row("divergences", str(divergences), "0", divergences == 0))
    )
    rows = (
        Row("sequences", str(runs)),
        Row("events sent", str(measured.events)),
        *(Row(f"faults: {kind.replace('_', ' ')}", str(count)) for kind, count in measured.faults.items()),
        wanted,
        at_most(
            f"lists a second, most in {WINDOW_SECONDS:g} s",
            measured.most_lists_per_second,
            GOAL_LISTS_PER_SECOND,
        ),
    )
    figures: dict[str, Figure | dict[str, int]] = {
        "sequences": runs,
        "events": measured.events,
        "faults": measured.faults,
        "divergences": divergences,
        "max_lists_per_s": measured.most_lists_per_second,
    }
    remark = (
        f"Seed {seed}; {measured.took_seconds:.0f} s of real time. Waiting is made, the rest is real; the last figure is in "
        f"made time, over {len(STORMS)} storms of five minutes each as well."
    )
    if plant:
        remark += f" Planted: {plant}."
    for each in measured.diverged[:3]:
        remark += f" Sequence {each.seed}: {each.problem}."
    return Result(rows=rows, figures=figures, remark=remark)
