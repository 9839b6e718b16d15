"""Runs on processes of this machine. A worker that dies costs the run it had in hand, which is begun again."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from simulator.experiments.outcomes import Outcome, OutcomeFolder
from simulator.experiments.runs import Run
from simulator.experiments.working import carry_out

TRIES = 3
"""A run whose worker died so often is given up, with a sentence."""


def on_processes(
    target: str,
    scenario: bytes,
    runs: Sequence[Run],
    folder: OutcomeFolder,
    workers: int,
    done: Callable[[Outcome], None],
) -> list[Outcome]:
    """Outcomes of all runs in their order; what the folder has is not computed again. `done` hears each as it comes.

    When a worker dies the pool is made anew with the runs that are not finished. Which of those in hand killed it cannot
    be told: each is begun again, at most TRIES times. Raises ValueError when `workers` is not positive.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers cannot work; use at least 1")
    finished: dict[Run, Outcome] = {}
    for run in runs:
        if (kept := folder.load(run)) is not None:
            finished[run] = kept
            done(kept)
    lost: Counter[Run] = Counter()
    while left := [run for run in dict.fromkeys(runs) if run not in finished]:
        hopeless = [run for run in left if lost[run] >= TRIES]
        for run in hopeless:
            finished[run] = Outcome(run=run, error=f"its worker died {TRIES} times (out of memory?)")
            done(finished[run])
        left = [run for run in left if run not in finished]
        # Whoever was in hand at a death runs alone next, so that one bad run cannot use up the others' tries.
        suspects = [run for run in left if lost[run]]
        batch = suspects[:1] or left
        if batch:
            _round(target, scenario, batch, folder, min(workers, len(batch)), finished, lost, done)
    return [finished[run] for run in runs]


def _round(
    target: str,
    scenario: bytes,
    batch: Sequence[Run],
    folder: OutcomeFolder,
    workers: int,
    finished: dict[Run, Outcome],
    lost: Counter[Run],
    done: Callable[[Outcome], None],
) -> None:
    """Run a batch in one pool until it is done or broken; what was in hand then is counted as lost."""
    waiting = list(reversed(batch))
    hand: dict[Future[Outcome], Run] = {}
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            while waiting or hand:
                while waiting and len(hand) < workers:
                    run = waiting.pop()
                    hand[pool.submit(carry_out, target, scenario, run)] = run
                ready, _ = wait(hand, return_when=FIRST_COMPLETED)
                for future in ready:
                    outcome = future.result()
                    folder.keep(outcome)
                    finished[hand.pop(future)] = outcome
                    done(outcome)
        except BrokenProcessPool:
            lost.update(hand.values())
